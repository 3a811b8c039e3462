"""Sees from another thread that work has come to a standstill, and tells where it stands."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any

from lab_utils.trial import loops

__all__ = ["Looks"]

_IDLE_SHARE, _IDLE_SECONDS = 0.02, 0.02
_DEPTH = 5
"""Of a thread that stands still, so many of its innermost calls are told."""

_TASKS = 12


class Looks:
    """Looks at the process, at every thread that begins from now on, and at the tasks of a loop.

    Two looks are alike if the process was idle between them (it had 2% of a core, or 20 ms), each thread and each task
    stands at the same instruction of the same code, and `moved()` is the same. Many alike in a row are a standstill.
    What works has the processor; and what is only kept from it, by others or with its whole machine, is met at another
    instruction sooner or later. `clock` and `cpu` are in seconds.
    """

    def __init__(
        self,
        loop: Callable[[], asyncio.AbstractEventLoop | None],
        moved: Callable[[], object],
        clock: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.process_time,
    ) -> None:
        self._loop, self._moved, self._clock, self._cpu = loop, moved, clock, cpu
        self._at, self._used = clock(), cpu()
        # Themselves, for what begins later may be given the number of one that has ended.
        self._others = set(threading.enumerate())
        self._last_moved: object = moved()
        self._last: object = None
        self.alike = 0
        """How many looks in a row have been like the one before."""

    def look(self) -> None:
        """Look once more."""
        # What is at work or moves is left alone, however slow and idle it is: a frame that is looked at becomes an
        # object, and one that just then ends keeps what it holds a little longer. A check of memory would find both.
        is_idle, has_moved = self._was_idle(), self._has_moved()
        found = self._found() if is_idle and not has_moved else None
        self.alike = self.alike + 1 if found is not None and found == self._last else 0
        self._last = found

    def places(self) -> list[str]:
        """Where it stands: a line for each thread that waits in no event loop, and for a dozen of the tasks."""
        lines = []
        for thread, frame in self._threads():
            calls = [loops.place(one) for one in _inwards(frame)]
            if "select" not in frame.f_code.co_name:
                lines.append(f"thread {thread.name!r} is in {' > '.join(calls[-_DEPTH:])}")
        # The oldest first, as numbered by asyncio: those of the check itself, which say what it waits for.
        tasks = [loops.where(task) for task in sorted(self._tasks(), key=_age)]
        more = [f"and {len(tasks) - _TASKS} tasks more"] if len(tasks) > _TASKS else []
        return [*lines, *tasks[:_TASKS], *more]

    def threads(self) -> list[threading.Thread]:
        """Those that have begun since, and have not ended."""
        return [thread for thread in threading.enumerate() if thread not in self._others]

    def _was_idle(self) -> bool:
        at, used = self._clock(), self._cpu()
        passed, spent = at - self._at, used - self._used
        self._at, self._used = at, used
        return spent <= max(_IDLE_SECONDS, _IDLE_SHARE * passed)

    def _found(self) -> int | None:
        try:
            stacks = sorted(_instructions(_inwards(frame)) for _, frame in self._threads())
            tasks = sorted(_instructions(loops.awaited(task)) for task in self._tasks())
            return hash((*stacks, None, *tasks))
        except RuntimeError:
            # Something has changed while it was read: it moves.
            return None

    def _has_moved(self) -> bool:
        before = self._last_moved
        try:
            self._last_moved = self._moved()
        except RuntimeError:
            self._last_moved = None
        return self._last_moved is None or self._last_moved != before

    def _threads(self) -> Iterator[tuple[threading.Thread, FrameType]]:
        frames = sys._current_frames()
        for thread in threading.enumerate():
            if thread not in self._others and (frame := frames.get(thread.ident or 0)) is not None:
                yield thread, frame

    def _tasks(self) -> set[asyncio.Task[Any]]:
        loop = self._loop()
        return set() if loop is None else asyncio.all_tasks(loop)


def _age(task: asyncio.Task[Any]) -> tuple[int, str]:
    return len(task.get_name()), task.get_name()


def _inwards(frame: FrameType | None) -> list[FrameType]:
    """The frame's callers, outermost first, and itself."""
    found: list[FrameType] = []
    while frame is not None:
        found.append(frame)
        frame = frame.f_back
    return found[::-1]


def _instructions(frames: Iterable[FrameType]) -> int:
    return hash(tuple((frame.f_code, frame.f_lasti) for frame in frames))
