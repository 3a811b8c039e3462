"""Names the objects that were not there before, their holders, and the place of their allocation."""

from __future__ import annotations

import asyncio
import threading
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from lab_utils.probes.allocation import allocated_at, place_of
from lab_utils.probes.holders import chain_to, explained
from lab_utils.probes.kinds import is_a
from lab_utils.probes.live import all_objects, handles_now, open_files, type_name

__all__ = ["Before", "growing", "most_held"]

_CONTAINERS: Final = (dict, list, set, deque)
_LOOKED_INTO: Final = 12
_LEAST_LONG: Final = 8
_LAB: Final = f"{Path(__file__).parents[1]}/"


class Before:
    """The objects there now, by identity, so that later ones can be distinguished. Keeps none of it alive.

    Memory goes by how much there is of the types of `modules` (a package means all below it), and of tasks, timers,
    handles, threads, descriptors and sockets.
    """

    def __init__(self, modules: tuple[str, ...]) -> None:
        known = [*_instances(modules), *_tasks(), *_timers(), *_handles(), *_threads()]
        self._known = frozenset(map(id, known))
        self._files = frozenset(open_files().items())

    def left(self, kind: str, roots: Mapping[str, object], most: int = 2) -> list[str]:
        """Up to `most` of a kind that were not there before, each with its holders and its allocation site.

        Kinds: "tasks", "timers", "handles", "threads", "descriptors", "sockets", and qualified names of types.
        """
        if kind in ("descriptors", "sockets"):
            # A number is given again when its descriptor is closed: its path or socket distinguishes the two.
            files = sorted(open_files().items() - self._files)
            new = [file for file in files if file[1].startswith("socket:") == (kind == "sockets")][:most]
            return [f"descriptor {number} is {what}; no object need hold a descriptor" for number, what in new]
        finders: dict[str, Callable[[], list[Any]]] = {
            "tasks": _tasks,
            "timers": _timers,
            "handles": _handles,
            "threads": _threads,
        }
        found: list[Any] = finders[kind]() if kind in finders else _of_types(lambda name: name == kind)
        new_ones = [item for item in found if id(item) not in self._known][:most]
        return [f"{_called(item)}{explained(item, [found, new_ones], roots)}" for item in new_ones]


def most_held(roots: Mapping[str, object], most: int = 2) -> list[str]:
    """The lines of code that hold most of the traced memory now, each with the longest container that they made.

    The lab's own lines are left out. Empty when allocations are not traced.
    """
    if not tracemalloc.is_tracing():
        return []
    sizes = tracemalloc.take_snapshot().statistics("lineno")
    lines = [(one.traceback[0], one.size) for one in sizes if not _is_the_labs(one.traceback[0].filename)][:most]
    longest: dict[Any, Any] = {}
    for item in _containers():
        if len(item) >= _LEAST_LONG and (last := tracemalloc.get_object_traceback(_last(item))) is not None:
            frame = last[-1]
            if len(item) > len(longest.get(frame, ())):
                longest[frame] = item
    found = []
    for frame, size in lines:
        holder = chain_to(longest[frame], [longest], roots) if frame in longest else None
        where = f"; among them the content of {holder}" if holder else "; no container of them was found"
        found.append(f"{size:,} bytes allocated at {place_of(frame)}{where}")
    return found


def _last(item: Any) -> Any:
    """One of the last that were put in."""
    if is_a(item, dict):
        # As a dictionary, whatever its class makes of that: not every one can be reversed.
        return dict.__getitem__(item, next(dict.__reversed__(item)))
    return next(iter(item)) if is_a(item, set) else item[-1]


def _is_the_labs(file: str) -> bool:
    return "tracemalloc" in file or (file.startswith(_LAB) and not file.startswith(f"{_LAB}targets/"))


class growing:
    """Finds the containers that have grown in a `with` block, their holders and the place of their allocation.

    ```python
    with growing() as grown:
        ...
    lines = grown.lines({"the target": target}, least=5)
    ```
    """

    def __enter__(self) -> growing:
        self._before = {id(item): len(item) for item in _containers()}
        self._after: list[tuple[int, Any]] = []
        return self

    def __exit__(self, *_: object) -> None:
        known = self._before
        grown = [(len(item) - known[id(item)], item) for item in _containers() if id(item) in known]
        self._after = sorted(grown, key=lambda pair: -pair[0])[:_LOOKED_INTO]

    def lines(self, roots: Mapping[str, object], least: int, most: int = 2) -> list[str]:
        """Up to `most` of those that grew by `least` or more and that somebody known holds, the fastest first."""
        found: list[str] = []
        for more, item in self._after:
            if more < least or len(found) == most or item is self._before:
                continue
            holder = chain_to(item, [self._after, *self._after], roots)
            if holder is not None:
                found.append(f"grew by {more:,} to {len(item):,}: {holder}; {allocated_at(item)}")
        return found


def _containers() -> Iterator[Any]:
    everything = all_objects()
    # By type and not by object: there are a few thousand of the one and many times more of the other.
    kinds = {kind for kind in set(map(type, everything)) if issubclass(kind, _CONTAINERS)}
    return (item for item in everything if type(item) in kinds)


def _instances(modules: Iterable[str]) -> list[Any]:
    prefixes = tuple(f"{name}." for name in modules)
    return _of_types(lambda name: name.startswith(prefixes))


def _of_types(is_meant: Callable[[str], bool]) -> list[Any]:
    everything = all_objects()
    kinds = {kind for kind in set(map(type, everything)) if is_meant(type_name(kind))}
    return [item for item in everything if type(item) in kinds]


def _tasks() -> list[Any]:
    return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


def _threads() -> list[Any]:
    return list(threading.enumerate())


def _timers() -> list[Any]:
    scheduled = getattr(asyncio.get_running_loop(), "_scheduled", ())
    return [timer for timer in scheduled if not timer.cancelled()]


def _handles() -> list[Any]:
    return list(handles_now(asyncio.get_running_loop()))


def _called(item: Any) -> str:
    return f"{getattr(item.get_coro(), '__qualname__', item.get_coro())}: " if is_a(item, asyncio.Task) else ""
