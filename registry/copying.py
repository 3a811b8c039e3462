"""Copies values deep, so that a later change on one side changes nothing on the other."""

from __future__ import annotations

import copy
import datetime
import decimal
import fractions
import uuid
from typing import Any, Final, NoReturn, TypeVar, cast

from registry.errors import UncopyableValue, describe, shortened, shown, stops

__all__ = ["DEFAULT_BOUNDS", "MOST_DEPTH", "MOST_MEMBERS", "Bounds", "copy_private"]

T = TypeVar("T")


Bounds = tuple[int, int]
"""How deep a value that is copied may be, and how many members its lists, dicts, tuples and sets may have in all. The
length of a text is not bounded: it is shared, not copied."""

MOST_DEPTH: Final = 1_000
MOST_MEMBERS: Final = 1_000_000
DEFAULT_BOUNDS: Final[Bounds] = (MOST_DEPTH, MOST_MEMBERS)

# Immutable all the way down: a copy would be the same value.
_ATOMS: frozenset[type] = frozenset(
    {
        type(None),
        bool,
        int,
        float,
        complex,
        str,
        bytes,
        datetime.date,
        datetime.datetime,
        datetime.time,
        datetime.timedelta,
        decimal.Decimal,
        fractions.Fraction,
        uuid.UUID,
    }
)
_SIMPLE: frozenset[type] = frozenset({type(None), bool, int, float, str, bytes})
_STR: frozenset[type] = frozenset({str})
# Exact immutable time zones; any other tzinfo may carry state.
_ZONES: tuple[type, ...] = (type(None), datetime.timezone)


def copy_private(value: T, *, strict: bool, where: str, bounds: Bounds = DEFAULT_BOUNDS) -> T:
    """Return a deep copy that shares nothing mutable with `value`; aliases and cycles inside it are kept.

    Takes time and memory in proportion to the value, however deep. `strict` takes only plain data: None, bool, numbers,
    str, bytes, dates and times, UUIDs, and lists, tuples, dicts and sets of them, by exact type. Otherwise every other
    object is left to `copy.deepcopy`, and not counted.
    Raises `UncopyableValue`, naming the place below `where` and the type, or the limit of `Limits` that `bounds` are.
    """
    plain: Any = value
    if type(plain) is dict:
        # Most values are flat: reading them at C speed costs the others little.
        flat = _SIMPLE.issuperset(map(type, plain.values())) and _STR.issuperset(map(type, plain))
        if flat and len(plain) <= bounds[1]:
            return cast(T, plain.copy())
    elif type(plain) in _ATOMS and _is_plain(plain):
        return value
    work = _Work(strict, bounds)
    try:
        copied: T = _copy(value, work, 1)
        if work.left is not None:
            work.fill()
        return copied
    except _Refused as refused:
        why, cause = f"{_place(value, refused.value, where)} {refused.why}", refused.__cause__
    except RecursionError:
        # Raised for tuples within tuples, or objects in each of many lists.
        why, cause = f"{where} is nested too deep to be copied; pass flatter data", None
    try:
        # Not from within an `except`: the refused value holds the copy as far as it went.
        raise UncopyableValue(why) from cause
    finally:
        del cause


def _is_plain(value: object) -> bool:
    """Whether no state hides behind the time zone of an atom."""
    if not isinstance(value, (datetime.datetime, datetime.time)):
        return True
    return type(value.tzinfo) in _ZONES or type(value.tzinfo).__module__ == "zoneinfo"


class _Refused(Exception):
    """Something within the value cannot be copied; where that is, is looked for afterwards."""

    def __init__(self, value: object, why: str) -> None:
        super().__init__(why)
        self.value = value
        self.why = why


class _Work:
    """The work that one copy has done, and the budget that is left."""

    __slots__ = ("bounds", "depth", "left", "memo", "near", "room", "strict")

    def __init__(self, strict: bool, bounds: Bounds) -> None:
        self.strict = strict
        self.bounds = bounds
        self.memo: dict[int, Any] = {}
        self.depth, self.room = bounds
        self.near = min(_NEAR, self.depth)
        self.left: list[tuple[Any, Any, int]] | None = None

    def descend(self, depth: int) -> None:
        """Begin at level 1 a value that may go so deep."""
        self.depth = depth
        self.near = min(_NEAR, depth)

    def put_off(self, value: Any, made: Any, level: int) -> Any:
        """Return the new container, to be filled later."""
        if level > self.depth:
            raise _Refused(
                value,
                f"is nested deeper than {self.bounds[0]} (Limits.max_value_depth); "
                "pass flatter data, or raise that limit",
            )
        if self.left is None:
            self.left = []
        self.left.append((value, made, self.depth - level + 1))
        return made

    def fill(self) -> None:
        """Fill the containers that were put off."""
        depth = self.depth
        while self.left:
            source, made, deep = self.left.pop()
            self.descend(deep)
            _copy(source, self, 1, made)
        self.descend(depth)

    def refuse_size(self, value: object) -> NoReturn:
        raise _Refused(
            value,
            f"brings the members to more than {self.bounds[1]} (Limits.max_value_members); "
            "pass less, or raise that limit",
        )


def _copy(value: Any, work: _Work, level: int, made: Any = None) -> Any:
    """Return the copy, or fill `made`. From some level on lists and dicts are put off: Python's own stack bounds
    nothing."""
    kind = type(value)
    if kind is dict:
        if made is None:
            made = work.memo.get(id(value))
            if made is not None:
                return made
            made = work.memo[id(value)] = {}
            if level > work.near:
                return work.put_off(value, made, level)
        level += 1
        work.room -= len(value)
        if work.room < 0:
            work.refuse_size(value)
        for key, item in value.items():
            # Most values are text and numbers: deciding that here saves a call for each.
            plain_key = key if type(key) is str else _copy(key, work, level)
            made[plain_key] = item if type(item) in _SIMPLE else _copy(item, work, level)
        return made
    if kind is list:
        if made is None:
            made = work.memo.get(id(value))
            if made is not None:
                return made
            made = work.memo[id(value)] = []
            if level > work.near:
                return work.put_off(value, made, level)
        level += 1
        work.room -= len(value)
        if work.room < 0:
            work.refuse_size(value)
        made += [item if type(item) in _SIMPLE else _copy(item, work, level) for item in value]
        return made
    if kind in _ATOMS:
        if _is_plain(value):
            return value
    elif kind is tuple or kind is set or kind is frozenset:
        made = work.memo.get(id(value))
        if made is not None:
            return made
        if level > work.depth:
            return work.put_off(value, None, level)
        level += 1
        work.room -= len(value)
        if work.room < 0:
            work.refuse_size(value)
        made = kind([item if type(item) in _SIMPLE else _copy(item, work, level) for item in value])
        # A tuple that holds itself through a list was completed by the inner call.
        return work.memo.setdefault(id(value), made)
    return _copy_object(value, work)


def _copy_object(value: Any, work: _Work) -> Any:
    """A value that is neither plain data nor a container of it."""
    name = shortened(f"{type(value).__module__}.{type(value).__qualname__}")
    if work.strict:
        raise _Refused(
            value,
            f"is a {name}; strict isolation takes only plain data "
            "(None, bool, numbers, str, bytes, dates and times, lists, tuples, dicts and sets of them)",
        )
    # The parts that it shares with the rest are whole when its own code, a hash say, looks at them.
    work.fill()
    try:
        return copy.deepcopy(value, work.memo)
    except BaseException as error:
        if stops(error):
            raise
        raise _Refused(
            value,
            f"is a {name}, which cannot be copied deep ({describe(error, 300)}); "
            "pass plain data, or an object with a __deepcopy__",
        ) from error


def _place(value: object, sought: object, where: str) -> str:
    """The place of something within a value, in words, the middle of a long path left out; `where` for objects that
    only `copy.deepcopy` has seen."""
    todo: list[tuple[Any, _Way]] = [(value, None)] if value is not sought else []
    seen = set[int]()
    while todo:
        item, way = todo.pop()
        kind = type(item)
        if id(item) in seen:
            continue
        seen.add(id(item))
        steps: list[tuple[Any, str | None, object]]
        if kind is dict:
            steps = [(inner, None, key) for key, inner in item.items() if inner is sought or type(inner) in _MARKS]
            steps += [(key, " key", None) for key in item if key is sought or type(key) in _MARKS]
        else:
            steps = [(inner, _MARKS[kind], None) for inner in item if inner is sought or type(inner) in _MARKS]
        for inner, mark, key in steps:
            if inner is sought:
                return where + _words((way, mark, key))
            todo.append((inner, (way, mark, key)))
    return where


_Way = tuple[Any, "str | None", object] | None
"""The way to a container, and the mark (None: a key) that leads on from it."""


def _words(way: _Way) -> str:
    steps: list[tuple[str | None, object]] = []
    while way is not None:
        way, mark, key = way
        steps.append((mark, key))
    steps.reverse()
    if len(steps) > _MOST_MARKS:
        # Cut before the keys are shown: one large key may be that of each step.
        steps[_MOST_MARKS // 2 : -_MOST_MARKS // 2] = [(f"...({len(steps) - _MOST_MARKS} more)...", None)]
    return "".join(f"[{shown(key, 40)}]" if mark is None else mark for mark, key in steps)


_NEAR: Final = 50
_MOST_MARKS: Final = 12
_MARKS: Final[dict[type, str]] = {dict: "", list: "[]", tuple: "()", set: "{}", frozenset: "{}"}
