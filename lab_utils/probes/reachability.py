"""Walks the object graph from what one user can hold, and owns what it finds."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import gc
import logging
import types
import weakref
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

__all__ = ["TRUSTED_TYPES", "Reached", "Shared", "reach", "shared_between"]

TRUSTED_TYPES: tuple[type, ...] = (
    type,
    types.ModuleType,
    types.CodeType,
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    types.FrameType,
    weakref.ref,
    property,
    asyncio.AbstractEventLoop,
    logging.Logger,
    logging.Handler,
)
"""Never walked: code and infrastructure of the process, which belongs to no user. Of a function only its closure,
defaults and attributes are walked, not its globals."""

_IMMUTABLE = (str, bytes, int, float, complex, bool, type(None), range, type(Ellipsis), type(NotImplemented))


@dataclass(frozen=True, slots=True)
class Reached:
    """What was reached from one user's roots: objects by id, each with the step that led to it."""

    owner: str
    objects: Mapping[int, Any]
    texts: Mapping[str, int]
    came_from: Mapping[int, int]
    root_names: Mapping[int, str]

    def path_to(self, item: object) -> str:
        """The shortest path from a root to the object (or to what holds the text), readable."""
        if isinstance(item, str):
            return f"{self.path_to(self.objects[self.texts[item]])} holds {item!r}"
        steps = [item]
        while id(steps[-1]) not in self.root_names:
            steps.append(self.objects[self.came_from[id(steps[-1])]])
        steps.reverse()
        text = self.root_names[id(steps[0])]
        for holder, held in pairwise(steps):
            text += _step(holder, held)
        return f"{text} -> {_short(item)}"


@dataclass(frozen=True, slots=True)
class Shared:
    """A mutable object that two users can reach, with the path of each."""

    item: Any
    users: tuple[str, str]
    paths: tuple[str, str]


def reach(owner: str, roots: Mapping[str, object], trusted: Iterable[object] = (), text: str = "canary<") -> Reached:
    """Walk breadth first from the roots (name -> object), so that every path found is a shortest one.

    Texts (and bytes) in which `text` occurs are kept too, each with the first object that holds it.
    """
    skip = {id(item) for item in trusted}
    objects: dict[int, Any] = {}
    came_from: dict[int, int] = {}
    names: dict[int, str] = {}
    texts: dict[str, int] = {}
    todo: deque[Any] = deque()
    for name, root in roots.items():
        if _walkable(root, skip) and id(root) not in objects:
            objects[id(root)] = root
            names[id(root)] = f"{owner}.{name}"
            todo.append(root)
    while todo:
        item = todo.popleft()
        for held in _held_by(item):
            if isinstance(held, (str, bytes)):
                words = held if isinstance(held, str) else held.decode("utf-8", "replace")
                if text in words:
                    texts.setdefault(words, id(item))
            elif id(held) not in objects and _walkable(held, skip):
                objects[id(held)] = held
                came_from[id(held)] = id(item)
                todo.append(held)
    return Reached(owner, objects, texts, came_from, names)


def shared_between(reached: Iterable[Reached], trusted: Iterable[object] = ()) -> tuple[list[Shared], int]:
    """Return the mutable objects that more than one user reaches, one finding each, and how many objects were owned.

    Of a chain of shared objects only the first is given: what hangs below it is shared because of it.
    """
    trusted_ids = {id(item) for item in trusted}
    owner_of: dict[int, Reached] = {}
    found: dict[int, Shared] = {}
    for one in reached:
        for key, item in one.objects.items():
            other = owner_of.setdefault(key, one)
            if other is one or _is_immutable(item, trusted_ids):
                continue
            parent = one.came_from.get(key)
            if parent is not None and parent in owner_of and owner_of[parent] is not one:
                continue
            found.setdefault(key, Shared(item, (other.owner, one.owner), (other.path_to(item), one.path_to(item))))
    return list(found.values()), len(owner_of)


def _held_by(item: Any) -> list[Any]:
    if isinstance(item, types.FunctionType):
        held: list[Any] = [*(item.__closure__ or ()), *(item.__defaults__ or ())]
        return [*held, item.__kwdefaults__ or {}, item.__dict__]
    return [held for held in gc.get_referents(item) if held is not type(item)]


def _walkable(item: Any, skip: set[int]) -> bool:
    return not isinstance(item, (*_IMMUTABLE, *TRUSTED_TYPES)) and id(item) not in skip


def _is_immutable(item: Any, trusted: set[int], depth: int = 0) -> bool:
    """True for what cannot change: atoms, enum members, stateless functions, and tuples, frozensets, frozen
    dataclasses of such."""
    if isinstance(item, (*_IMMUTABLE, *TRUSTED_TYPES, enum.Enum)) or id(item) in trusted:
        return True
    if type(item) is object:
        return True  # A bare sentinel: it has nothing that could change.
    if depth > 8:
        return False
    parts: Iterable[Any]
    if isinstance(item, (tuple, frozenset)):
        parts = item
    elif isinstance(item, types.FunctionType):
        parts = [*(cell.cell_contents for cell in item.__closure__ or ()), *(item.__defaults__ or ())]
        parts = [*parts, *item.__dict__.values()]
    elif _is_frozen_dataclass(item):
        parts = [getattr(item, field.name) for field in dataclasses.fields(item)]
    else:
        return False
    return all(_is_immutable(part, trusted, depth + 1) for part in parts)


def _is_frozen_dataclass(item: Any) -> bool:
    return dataclasses.is_dataclass(item) and bool(getattr(item, "__dataclass_params__").frozen)  # noqa: B009  # Typeshed lacks it.


def _step(holder: Any, held: Any) -> str:
    if isinstance(holder, dict):
        for key, value in holder.items():
            if value is held:
                return f"[{key!r}]"
            if key is held:
                return f".key({key!r})"
    if isinstance(holder, (list, tuple)):
        for index, value in enumerate(holder):
            if value is held:
                return f"[{index}]"
    for kind in type(holder).__mro__:
        for name in getattr(kind, "__slots__", ()):
            if isinstance(name, str) and getattr(holder, _mangled(kind, name), None) is held:
                return f".{name}"
    for name, value in getattr(holder, "__dict__", {}).items():
        if value is held:
            return f".{name}"
    return f".<{type(held).__name__}>"


def _mangled(kind: type, name: str) -> str:
    return f"_{kind.__name__.lstrip('_')}{name}" if name.startswith("__") and not name.endswith("__") else name


def _short(item: object) -> str:
    try:
        text = repr(item)
    except Exception as error:
        text = f"<{type(item).__name__}, whose repr raised {type(error).__name__}>"
    return text if len(text) <= 120 else f"{text[:117]}..."
