"""Copies values deep, so that what one side still holds changes nothing on the other."""

from __future__ import annotations

import copy
import datetime
import decimal
import fractions
import uuid
from typing import Any, TypeVar

from registry.errors import UncopyableValue, describe, stops

__all__ = ["copy_private"]

T = TypeVar("T")

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
# Exact immutable time zones; any other tzinfo may carry state.
_ZONES: tuple[type, ...] = (type(None), datetime.timezone)


def copy_private(value: T, *, strict: bool, where: str) -> T:
    """Return a deep copy that shares nothing mutable with `value`; aliases and cycles inside it are kept.

    `strict` takes only plain data: None, bool, numbers, str, bytes, dates and times, UUIDs, and lists, tuples, dicts
    and sets of them, by exact type. Otherwise every other object is left to `copy.deepcopy`.
    Raises `UncopyableValue`, naming the place below `where` and the type.
    """
    if type(value) in _ATOMS and (not isinstance(value, (datetime.datetime, datetime.time)) or _plain_zone(value)):
        return value
    try:
        copied: T = _copy(value, strict, where, {})
        return copied
    except RecursionError:
        raise UncopyableValue(f"{where} is nested too deep to be copied; pass flatter data") from None


def _plain_zone(value: datetime.datetime | datetime.time) -> bool:
    return type(value.tzinfo) in _ZONES or type(value.tzinfo).__module__ == "zoneinfo"


def _copy(value: Any, strict: bool, where: str, memo: dict[int, Any]) -> Any:
    kind = type(value)
    if kind in _ATOMS:
        if not isinstance(value, (datetime.datetime, datetime.time)) or _plain_zone(value):
            return value
    elif kind is dict:
        known = memo.get(id(value))
        if known is not None:
            return known
        made: Any = {}
        memo[id(value)] = made
        for key, item in value.items():
            # Most values are text and numbers: deciding that here saves a call for each.
            plain_key = key if type(key) is str else _copy(key, strict, f"{where} key", memo)
            made[plain_key] = item if type(item) in _SIMPLE else _copy(item, strict, f"{where}[{key!r}]", memo)
        return made
    elif kind is list:
        known = memo.get(id(value))
        if known is not None:
            return known
        made = []
        memo[id(value)] = made
        made.extend(item if type(item) in _SIMPLE else _copy(item, strict, f"{where}[]", memo) for item in value)
        return made
    elif kind is tuple:
        known = memo.get(id(value))
        if known is not None:
            return known
        made = tuple(item if type(item) in _SIMPLE else _copy(item, strict, f"{where}()", memo) for item in value)
        # A tuple that holds itself through a list was completed by the inner call.
        return memo.setdefault(id(value), made)
    elif kind is set or kind is frozenset:
        known = memo.get(id(value))
        if known is not None:
            return known
        made = kind(_copy(item, strict, f"{where}{{}}", memo) for item in value)
        memo[id(value)] = made
        return made
    if strict:
        raise UncopyableValue(
            f"{where} is a {kind.__module__}.{kind.__qualname__}; strict isolation takes only plain data "
            "(None, bool, numbers, str, bytes, dates and times, lists, tuples, dicts and sets of them)"
        )
    try:
        return copy.deepcopy(value, memo)
    except BaseException as error:
        if stops(error):
            raise
        raise UncopyableValue(
            f"{where} is a {kind.__module__}.{kind.__qualname__}, which cannot be copied deep "
            f"({describe(error)}); pass plain data, or an object with a __deepcopy__"
        ) from error


_SIMPLE: frozenset[type] = frozenset({type(None), bool, int, float, str, bytes})
