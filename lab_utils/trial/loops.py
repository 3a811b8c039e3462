"""Runs a coroutine on an event loop of its own, which no task can keep from closing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from lab_utils.interleavings.observing import STEPS, is_internal
from lab_utils.values.limits import SLICES

__all__ = ["SLICES", "awaited", "done_in", "held", "place", "run", "where"]

T = TypeVar("T")

_LAB = f"{Path(__file__).parents[1]}{os.sep}"
_TARGETS = f"{_LAB}targets{os.sep}"

_DEPTH = 4
"""The number of innermost coroutines that are shown of a task: the last are often asyncio's own."""

_MOST_HANDLERS = 100
"""How often a coroutine is closed that begins to wait again in each of its handlers."""


def _count_turns(loop: Any) -> None:
    """Count this loop's turns in `STEPS`; those of a loop that is not written in Python are not counted."""
    once = getattr(loop, "_run_once", None)
    if once is None:
        return

    def counted() -> None:
        STEPS.count += 1
        once()

    loop._run_once = counted


def run(main: Coroutine[Any, Any, T], patience: Callable[[], float], left: Callable[[str], None]) -> T:
    """Run `main` as `asyncio.run` does, and return its answer or raise its error.

    `asyncio.run` waits for ever for a task that ignores its cancellation. Here each is given `patience()` seconds,
    which is called when `main` has ended. Tasks left then are reported to `left`, a line for each, and its handlers are
    run once the loop is closed, so that their objects are released.
    """
    loop = asyncio.new_event_loop()
    _count_turns(loop)
    stubborn: set[asyncio.Task[Any]] = set()
    try:
        try:
            return loop.run_until_complete(main)
        finally:
            stubborn |= loop.run_until_complete(_cancelled(asyncio.all_tasks(loop), patience()))
            generators = loop.create_task(loop.shutdown_asyncgens())
            stubborn |= loop.run_until_complete(_cancelled({generators}, patience(), at_once=False))
            for line in sorted(map(where, stubborn)):
                left(line)
            loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()
        if stubborn:
            # They have been reported. Freed while pending, each would be reported again.
            loop.set_exception_handler(lambda *_: None)
        _close(stubborn)


async def done_in(seconds: float, work: Iterable[asyncio.Future[Any]]) -> set[asyncio.Future[Any]]:
    """Wait until all of the work is done, for so many seconds in slices; return what is not."""
    pending = set(work)
    for _ in range(SLICES):
        if pending:
            _, pending = await asyncio.wait(pending, timeout=seconds / SLICES)
    return pending


def where(task: asyncio.Task[Any]) -> str:
    """Name a waiting task, and the places at which it waits, the innermost last."""
    places = [place(frame) for frame in awaited(task)]
    return f"{task.get_name()} waits in {' > '.join(places[-_DEPTH:]) or 'nowhere'}"


def held(loop: asyncio.AbstractEventLoop, caller: asyncio.Task[Any]) -> list[asyncio.Task[Any]]:
    """The other tasks of the loop that wait in code of a target, in the order of their names: the caller may wait for
    one of them."""
    others = asyncio.all_tasks(loop) - {caller}
    return sorted((task for task in others if any(map(_is_targets, awaited(task)))), key=asyncio.Task.get_name)


def _is_targets(frame: FrameType) -> bool:
    """Whether a frame is neither the lab's, but for its targets, nor the standard library's."""
    name = frame.f_code.co_filename
    return not is_internal(name) and (name.startswith(_TARGETS) or not name.startswith(_LAB))


def awaited(task: asyncio.Task[Any]) -> Iterator[FrameType]:
    """The frames of the task's coroutine, of the one that it awaits, and so on."""
    inner: Any = task.get_coro()
    while inner is not None and (frame := getattr(inner, "cr_frame", None)) is not None:
        yield frame
        inner = inner.cr_await


def place(frame: FrameType) -> str:
    """Name the function and the line at which a frame stands."""
    code = frame.f_code
    return f"{code.co_qualname.rpartition('<locals>.')[2]}, {code.co_filename.rpartition('/')[2]}:{frame.f_lineno}"


async def _cancelled(
    tasks: Iterable[asyncio.Task[Any]], patience_s: float, *, at_once: bool = True
) -> set[asyncio.Task[Any]]:
    """Cancel the tasks, `at_once` or when the time is over; return those that have not ended by then."""
    given = set(tasks)
    if not at_once:
        await done_in(patience_s, given)
    for task in given:
        task.cancel()
    pending = await done_in(patience_s, given)
    for task in given - pending:
        if not task.cancelled():
            # Looked at: the error of a task that is cut off here belongs to nobody.
            task.exception()
    return given & pending


def _close(tasks: Iterable[asyncio.Task[Any]]) -> None:
    for task in tasks:
        coroutine: Any = task.get_coro()
        for _ in range(_MOST_HANDLERS):
            # It waits again in a handler (RuntimeError), or a handler fails because the loop is closed.
            with suppress(Exception):
                coroutine.close()
                break
