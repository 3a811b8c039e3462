"""One walk from all users' roots: the owner of each object, and the objects that another user met again."""

from __future__ import annotations

import gc
import re
import types
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, Final

from lab_utils.probes.kinds import TRUSTED_KINDS, ByType, Kind, kinds, odd, parts_of, trusted_as, walked
from lab_utils.probes.paths import short

__all__ = ["Conflict", "Walk", "as_text", "is_text"]

Conflict = tuple[Any, list[int], dict[int, Any]]
"""An object, the users who reach it, and for those who only read it the proxy or closure that they read it by."""

_TRUSTED: Final = -1
_IMMUTABLE: Final = -2
_HARMLESS: Final = -3  # Immutable, and nothing in it that was searched for or is to be counted.
_CHUNK: Final = 10_000
_ADDRESS: Final = re.compile(r" at 0x[0-9a-f]+")

is_text: Final = ByType(lambda kind: issubclass(kind, (str, bytes, bytearray)))
"""Type -> whether its objects are texts to search."""

# The treatment of a type's objects in the walk.
_SKIP, _PLAIN, _ODD, _TEXT = range(4)


class Walk:
    """One walk from all users' roots, and the owner of each object."""

    def __init__(self, trusted: list[Any], text: str) -> None:
        self.trusted = trusted
        self.text = text
        self.owners: dict[int, int] = {id(item): _TRUSTED for item in trusted}
        # These hold the objects met, for an id is only known while its object lives. An object walked by `parts_of`
        # stands in a queue as the list of its parts.
        self._queues: list[list[Any]] = []
        self._parted: list[Any] = []
        # A plain dictionary, filled as types are met: it is read for every reference.
        self._steps: dict[type, int] = {}
        self.shared: dict[int, tuple[Any, list[int]]] = {}
        self.aside: dict[int, tuple[Any, dict[int, Any]]] = {}
        self.texts: dict[int, set[str]] = {}
        self._times_trusted: Counter[int] = Counter()
        self._frozen: dict[int, tuple[frozenset[str], list[int]]] = {}

    def user(self, number: int, roots: Mapping[str, object]) -> None:
        """Walk from one user's roots, breadth first."""
        owners, steps, plain, harmless = self.owners, self._steps, _PLAIN, _HARMLESS
        passed: set[int] = set()
        queue: list[Any] = [list(roots.values())]
        push = queue.append
        # The queue grows while it is read: one loop for all that is the user's.
        for item in chain.from_iterable(map(gc.get_referents, queue)):
            try:
                step = steps[type(item)]
            except KeyError:
                step = steps[type(item)] = self._step_of(type(item))
            if not step:
                continue
            key = id(item)
            if key in owners:
                owner = owners[key]
                if owner != number and owner != harmless and self._met_again(item, number, passed):
                    push(self._parts(item, number))
            elif step == plain:
                owners[key] = number
                push(item)
            else:
                if step == _TEXT:
                    self._read(item, number)
                    if not walked[type(item)]:
                        continue
                owners[key] = number
                self._parted.append(item)
                push(self._parts(item, number))
        self._queues.append(queue)

    def _step_of(self, kind: type) -> int:
        if self.text and is_text[kind]:
            return _TEXT
        if not walked[kind]:
            return _SKIP
        # For a dictionary only `parts_of` returns the keys, which matter if they are to be searched.
        return _ODD if kind in odd or (self.text and issubclass(kind, dict)) else _PLAIN

    def _parts(self, item: Any, number: int) -> list[Any]:
        aside: list[Any] = []
        parts = parts_of(item, aside)
        for behind in aside:
            self.aside.setdefault(id(behind), (behind, {}))[1].setdefault(number, item)
        return parts

    def _read(self, item: Any, number: int) -> None:
        words = as_text(item)
        if self.text in words:
            self.texts.setdefault(number, set()).add(words)

    def _met_again(self, item: Any, number: int, passed: set[int]) -> bool:
        """Judge an object that is somebody else's already; True if it is to be walked through."""
        key = id(item)
        owner = self.owners[key]
        if owner == _TRUSTED:
            self._times_trusted[key] += 1
            return False
        if kinds[type(item)] is Kind.OWNED:
            self.shared.setdefault(key, (item, [owner]))[1].append(number)
            return False
        if key in passed:
            return False
        passed.add(key)
        if owner == _IMMUTABLE or self._is_immutable(item, number):
            texts, trusted = self._frozen[key]
            self._times_trusted.update(trusted)
            if texts:
                self.texts.setdefault(number, set()).update(texts)
            return False
        return True

    def _is_immutable(self, item: Any, number: int) -> bool:
        """True if there is nothing changeable behind a frozen object; it then has no owner from here on."""
        seen: dict[int, Any] = {id(item): item}
        todo: list[Any] = [item]
        texts: set[str] = set()
        trusted: list[int] = []
        for one in todo:
            for part in self._parts(one, number):
                key = id(part)
                if self.text and is_text[type(part)] and self.text in as_text(part):
                    texts.add(as_text(part))
                known = self.owners.get(key)
                if known == _TRUSTED:
                    trusted.append(key)
                elif known == _HARMLESS:
                    continue
                elif known == _IMMUTABLE:
                    texts |= self._frozen[key][0]
                    trusted += self._frozen[key][1]
                elif kinds[type(part)] is Kind.OWNED:
                    return False
                elif walked[type(part)] and key not in seen:
                    seen[key] = part
                    todo.append(part)
        for key in seen:
            self.owners[key] = _IMMUTABLE if texts or trusted else _HARMLESS
            self._frozen[key] = (frozenset(texts), trusted)
        return True

    @property
    def objects(self) -> int:
        """How many objects were walked."""
        return len(self.owners) - len({id(item) for item in self.trusted})

    def kept(self) -> Iterator[Any]:
        """Everything that was walked."""
        yield from self._parted
        yield from chain.from_iterable(self._queues)

    def changed_behind(self) -> list[Conflict]:
        """Objects that one user only reads, through a proxy or a closure (given for each reader), and another can
        change."""
        found = []
        for key, (item, readers) in self.aside.items():
            owner = self.owners.get(key, _TRUSTED)
            others = [reader for reader in readers if reader != owner]
            if owner >= 0 and others and key not in self.shared:
                found.append((item, [owner, *others], {reader: readers[reader] for reader in others}))
        return found

    def met(self) -> tuple[dict[str, int], int]:
        """How often each thing that is trusted was met, and how many references there were in all."""
        types_met: Counter[type] = Counter()
        for queue in self._queues:
            for start in range(0, len(queue), _CHUNK):
                types_met.update(map(type, gc.get_referents(*queue[start : start + _CHUNK])))
        # The globals of a function are not its parts: they are trusted, and met with every function.
        functions = sum(isinstance(item, types.FunctionType) for item in self._parted)
        times = Counter({"globals of a function": functions})
        for kind, count in types_met.items():
            if kinds[kind] is Kind.CODE:
                times[trusted_as(kind)] += count
        named = Counter[str]()
        for item in self.trusted:
            # Without its address, which is another one in each run.
            named[f"declared: {_ADDRESS.sub('', short(item))}"] += self._times_trusted[id(item)]
        return {**{name: times[name] for name in TRUSTED_KINDS}, **named}, types_met.total()


def as_text(item: Any) -> str:
    """A text, bytes or a buffer as text."""
    return item if isinstance(item, str) else item.decode("utf-8", "replace")
