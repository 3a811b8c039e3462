"""Counts live objects exactly: objects by type, tasks, timers, handles, threads, file descriptors, sockets."""

from __future__ import annotations

import asyncio
import gc
import os
import selectors
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures.thread import _threads_queues, _WorkItem
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final

__all__ = [
    "KINDS",
    "Counts",
    "Watch",
    "all_objects",
    "collector_off",
    "count_now",
    "drop_cancelled_timers",
    "drop_dead_cursors",
    "grown",
    "handles_now",
    "next_timer",
    "open_files",
    "threads_now",
    "timers_now",
    "type_counts",
    "type_name",
]

KINDS: Final = ("tasks", "timers", "handles", "threads", "descriptors", "sockets")
"""The things counted besides objects by type."""
_FILES: Final = "/proc/self/fd"
_MANY_TIMERS: Final = 101
_FAR_OFF: Final = 3_600.0


@dataclass(frozen=True, slots=True)
class Counts:
    """One exact count of everything a leak may consist of.

    `timers` wait for their time, `handles` for the loop's next turn or for a file to be ready; the steps of tasks are
    not among them, for the tasks are counted. `sockets` are not among the `descriptors`. `cancelled_timers` hold
    nothing any more and are dropped by the loop when their time has come, or sooner; they are memory all the same, and
    are shown.
    """

    objects: Counter[str]
    tasks: int
    timers: int
    handles: int
    threads: int
    descriptors: int
    sockets: int
    cancelled_timers: int = 0


@contextmanager
def collector_off() -> Iterator[None]:
    """Collect all garbage, then switch the cyclic collector off: from here on, only reference counting frees."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def all_objects() -> list[Any]:
    """The objects that the collector knows. It also puts back those that a program has set aside by `gc.freeze()`: else
    a leak among them is overlooked, or they look like one when they come back."""
    gc.unfreeze()
    return gc.get_objects()


def type_counts(modules: tuple[str, ...] = ()) -> Counter[str]:
    """Live instances by qualified type name; only of types defined in `modules` (or below them) if any are given."""
    everything = all_objects()
    kinds: Iterable[type] = map(type, everything)
    if modules:
        # Sifted first: each number that a counter goes through is an allocation, and a slow one where memory is traced.
        prefixes = tuple(f"{name}." for name in modules)
        wanted = {kind for kind in set(kinds) if type_name(kind).startswith(prefixes)}
        kinds = filter(wanted.__contains__, map(type, everything))
    counts: Counter[str] = Counter()
    for kind, count in Counter(kinds).items():
        counts[type_name(kind)] += count
    return counts


def type_name(kind: type) -> str:
    """The qualified name of a type, with its module."""
    # Some types of extension modules put a descriptor in its place.
    module: object = kind.__module__
    return f"{module if isinstance(module, str) else ''}.{kind.__qualname__}"


def count_now(modules: tuple[str, ...] = ()) -> Counts:
    """Count now, from within a running event loop. The task that calls is counted too."""
    loop = asyncio.get_running_loop()
    timers, cancelled = _timers(loop)
    files = open_files()
    sockets = sum(map(_is_socket, files.values()))
    return Counts(
        objects=type_counts(modules),
        tasks=len(asyncio.all_tasks()),
        timers=timers,
        handles=len(handles_now(loop)),
        threads=threads_now(),
        descriptors=len(files) - sockets,
        sockets=sockets,
        cancelled_timers=cancelled,
    )


def grown(before: Counts, after: Counts) -> dict[str, int]:
    """The kinds with more objects than before, by name; empty if everything is back."""
    more = {name: count - before.objects[name] for name, count in after.objects.items()}
    for name in KINDS:
        more[name] = getattr(after, name) - getattr(before, name)
    return {name: count for name, count in more.items() if count > 0}


def threads_now() -> int:
    """How many threads there are. Those of one pool that have nothing to do count as one: it starts them as calls
    coincide, up to its size."""
    threads = threading.enumerate()
    # The frames are kept in no variable: one of them is this function's own, and the two would be a cycle.
    idle = [
        id(_threads_queues[one])
        for one in threads
        if one in _threads_queues and not _is_at_work(sys._current_frames().get(one.ident or 0))
    ]
    return len(threads) - len(idle) + len(set(idle))


def _is_at_work(frame: FrameType | None) -> bool:
    """Whether a pool's thread has work whose result is still due; once it is there, the thread takes a moment more."""
    while frame is not None:
        if frame.f_code is _WorkItem.run.__code__:
            return not frame.f_locals["self"].future.done()
        frame = frame.f_back
    return False


def timers_now(loop: asyncio.AbstractEventLoop) -> int:
    """How many timers of the loop wait for their time."""
    return _timers(loop)[0]


def next_timer(loop: asyncio.AbstractEventLoop) -> float | None:
    """When the next timer of the loop is due, by the loop's clock; None if none waits."""
    return min((handle.when() for handle in _scheduled(loop) if not handle.cancelled()), default=None)


def _scheduled(loop: asyncio.AbstractEventLoop) -> Sequence[asyncio.TimerHandle]:
    scheduled: list[asyncio.TimerHandle] | None = getattr(loop, "_scheduled", None)
    if scheduled is None:
        raise RuntimeError(f"{type(loop).__name__} does not show its timers; run the lab on asyncio's own loop")
    return scheduled


def _timers(loop: asyncio.AbstractEventLoop) -> tuple[int, int]:
    scheduled = _scheduled(loop)
    # A cancelled handle has let go of its callback, but stays in the heap until its time or a cleanup of the loop's.
    cancelled = sum(handle.cancelled() for handle in scheduled)
    return len(scheduled) - cancelled, cancelled


def drop_dead_cursors() -> None:
    """Have each SQLite connection forget its cursors that are gone, before its own time for it, once in 200 cursors.
    A subclass of connections is left alone: it may hold lists of the target's.

    The weak references that it keeps of them meanwhile would look like a leak in fewer cycles, and like noise in more.
    """
    kind = getattr(sys.modules.get("sqlite3"), "Connection", None)
    if kind is None:
        return
    for connection in [one for one in gc.get_objects() if type(one) is kind]:
        for part in gc.get_referents(connection):
            if type(part) is list:
                part[:] = [one for one in part if type(one) is not weakref.ReferenceType or one() is not None]


async def drop_cancelled_timers() -> None:
    """Have the running loop forget the timers that were cancelled, before its own time for it.

    It keeps them until their time has come or until there are a hundred. The timer that a kept time limit leaves behind
    would look like a leak that is given back once in fifty times.
    """
    loop = asyncio.get_running_loop()
    live, cancelled = _timers(loop)
    if cancelled:
        # When there are so many, and most of them cancelled, the loop throws these out at its next turn.
        for timer in [loop.call_later(_FAR_OFF, _nothing) for _ in range(live + _MANY_TIMERS)]:
            timer.cancel()
        await asyncio.sleep(0)


def _nothing() -> None:
    """The callback of a timer that is never due."""


def handles_now(loop: asyncio.AbstractEventLoop) -> list[asyncio.Handle]:
    """The callbacks that the loop is to run at its next turn, or when a file is ready; without the steps of tasks."""
    ready = getattr(loop, "_ready", None)
    selector = getattr(loop, "_selector", None)
    if ready is None:
        raise RuntimeError(f"{type(loop).__name__} does not show its handles; run the lab on asyncio's own loop")
    # Windows' proactor waits for operations instead. One registration of a file is a pair: the callback for reading,
    # and the one for writing.
    keys = list(selector.get_map().values()) if isinstance(selector, selectors.BaseSelector) else []
    waiting = [handle for key in keys for handle in key.data or ()]
    known = [handle for handle in (*ready, *waiting) if handle is not None and not handle.cancelled()]
    return [handle for handle in known if not isinstance(_owner(handle), asyncio.Task)]


def _owner(handle: asyncio.Handle) -> object:
    """The object whose method is to be run: of a step of a task, the task."""
    return getattr(getattr(handle, "_callback", None), "__self__", None)


def open_files() -> dict[int, str]:
    """The open descriptors of the process, each with its target: a path, or such as "socket:[123]".

    Empty where there is no /proc: sockets then show as objects only.
    """
    # Not by `pathlib`: it interns every part of a path. That fills the interpreter's table of interned texts, which
    # then grows by a megabyte at once, in the middle of a measurement.
    found = {}
    try:
        numbers = os.listdir(_FILES)  # noqa: PTH208
    except OSError:
        return {}
    for number in numbers:
        try:
            found[int(number)] = os.readlink(f"{_FILES}/{number}")  # noqa: PTH115
        except OSError:
            continue  # The one that this listing itself had open.
    return found


def _is_socket(what: str) -> bool:
    return what.startswith("socket:")


class Watch:
    """Knows objects without keeping them: how many were seen, and which of them are still alive."""

    def __init__(self) -> None:
        self._watched: dict[int, tuple[str, weakref.ref[Any]]] = {}
        self.seen = 0

    def see(self, label: str, item: object) -> bool:
        """Watch an object, once; False for one that cannot be watched (no weak reference can be made to it)."""
        known = self._watched.get(id(item))
        if known is not None and known[1]() is item:
            return True
        try:
            self._watched[id(item)] = (label, weakref.ref(item))
        except TypeError:
            return False
        self.seen += 1
        return True

    def drop_freed(self) -> None:
        """Forget freed objects, so that watching cycle after cycle does not grow; they stay counted as seen."""
        # A new dictionary: one that was large stays so when it is emptied.
        self._watched = {key: known for key, known in self._watched.items() if known[1]() is not None}

    def alive(self) -> list[tuple[str, Any]]:
        """The label and the object of each that is still alive. Holding the answer keeps them alive."""
        return [(label, item) for label, ref in self._watched.values() if (item := ref()) is not None]

    def count_alive(self) -> int:
        """How many are still alive."""
        return sum(ref() is not None for _, ref in self._watched.values())

    def forget(self) -> None:
        """Watch nothing any more, and count from zero again."""
        self._watched.clear()
        self.seen = 0
