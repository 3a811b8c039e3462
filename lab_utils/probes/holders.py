"""Explains a leak: walks backwards from an object that should be gone to whatever still holds it."""

from __future__ import annotations

import asyncio
import gc
import types
from collections import deque
from collections.abc import Iterable
from typing import Any

__all__ = ["held_by"]

_MOST_LOOKED_AT = 30


def held_by(item: object, ignore: Iterable[object] = (), depth: int = 6) -> str:
    """Return the shortest chain of holders found, from the outermost down to the item, as readable text.

    The walk ends at a module, a class, a task, the frame of a suspended coroutine, or where nothing more is known
    to hold on; lists and dictionaries of the caller go into `ignore`. It looks at a bounded number of objects, each of
    which costs a pass over all there are, so call it for findings only.
    """
    own = {id(thing) for thing in ignore}
    came_from: dict[int, Any] = {id(item): None}
    todo: deque[tuple[Any, int]] = deque([(item, 0)])
    last: Any = item
    looked = 0
    while todo and looked < _MOST_LOOKED_AT:
        current, distance = todo.popleft()
        last = current
        if distance > 0 and _is_root(current):
            break
        if distance == depth:
            continue
        looked += 1
        holders = gc.get_referrers(current)
        for holder in holders:
            if holder is holders or id(holder) in own or id(holder) in came_from or _is_ours(holder):
                continue
            came_from[id(holder)] = current
            todo.append((holder, distance + 1))
        own.add(id(holders))
        del holders
    chain = [last]
    while came_from.get(id(chain[-1])) is not None:
        chain.append(came_from[id(chain[-1])])
    return " -> ".join(_named(part) for part in chain)


def _is_root(item: Any) -> bool:
    if isinstance(item, dict) and "__name__" in item and "__spec__" in item:
        return True
    return isinstance(item, (types.ModuleType, type, asyncio.Task, asyncio.TimerHandle))


def _is_ours(item: Any) -> bool:
    # Running frames are the lab's own, looking; a suspended coroutine's frame belongs to whoever leaked it.
    return isinstance(item, types.FrameType) or (isinstance(item, types.GeneratorType) and item.gi_running)


def _named(item: Any) -> str:
    if isinstance(item, dict):
        name = item.get("__name__")
        return f"module {name}" if isinstance(name, str) and "__spec__" in item else f"dict of {len(item)}"
    if isinstance(item, types.ModuleType):
        return f"module {item.__name__}"
    if isinstance(item, type):
        return f"class {item.__qualname__}"
    if isinstance(item, (list, tuple, set, frozenset)):
        return f"{type(item).__name__} of {len(item)}"
    if isinstance(item, types.CellType):
        return "closure cell"
    if isinstance(item, (types.FunctionType, types.MethodType, types.CoroutineType)):
        return f"{type(item).__name__} {item.__qualname__}"
    return type(item).__qualname__
