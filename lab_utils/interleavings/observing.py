"""Follows one run step by step: cancels a caller at the requested step, and records the interleaving."""

from __future__ import annotations

import asyncio
import os
import sysconfig
from array import array
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, Final

__all__ = ["AT_ITS_TURN", "BEAT_S", "STEPS", "Observer", "awaited_by", "awaits", "is_internal", "place"]

AT_ITS_TURN: Final = -1
"""In place of a number of steps: when the wait of a task is over, and the task has not gone on yet."""

_STDLIB: Final = sysconfig.get_paths()["stdlib"]
_SITE: Final = sysconfig.get_paths()["purelib"]
_DETANGLE: Final = f"{_SITE}{os.sep}detangle{os.sep}"
_LAB: Final = f"{Path(__file__).parents[1]}{os.sep}"
_MOST_LINES: Final = 400


class _Number:
    """One of the numbers of `_Steps`."""

    def __init__(self, at: int) -> None:
        self._at = at

    def __get__(self, steps: _Steps, owner: type | None = None) -> int:
        return steps.numbers[self._at]

    def __set__(self, steps: _Steps, number: int) -> None:
        steps.numbers[self._at] = number


class _Steps:
    """Numbers that are kept in place: a new object for each would show where memory is traced, at a random moment if
    another thread counts."""

    __slots__ = ("numbers",)
    count, answers, beats = map(_Number, range(3))

    def __init__(self) -> None:
        self.numbers = array("Q", (0, 0, 0))


BEAT_S: Final = 0.25
STEPS: Final = _Steps()
"""Counts the steps of loops whose clock is the lab's own, and the turns of its other loops, so that another thread sees
that one stands still; the `answers` of the target to calls on any loop; and the `beats` of that thread, `BEAT_S` apart,
which show whether the process was stopped. An object: a count on a class would empty the interpreter's cache of names
at each step, and a check of memory would see the names go."""


class Observer:
    """The loop's callbacks at each step. To detangle this is a tracer."""

    def __init__(self, trace: bool) -> None:
        self.lines: list[str] = []
        self.suspensions = 0
        self.has_cancelled = False
        self.is_tracing = trace
        """Whether steps are written down."""
        self.is_needed = trace
        """Whether there is anything to do after a step."""
        self._is_open = False
        self._loop: Any = None
        self._watched: asyncio.Task[Any] | None = None
        self._point = self._after = 0
        self._told: Callable[[], None] = lambda: None
        self._countdown: int | None = None
        self._number = 0
        self._begun: set[int] = set()
        self._look: Callable[[asyncio.Task[Any] | None], None] | None = None
        self._before = ""
        self._skipped: tuple[str, ...] = ()
        self._answer = ""

    def attach(self, loop: Any) -> None:
        """Know the loop, which knows how its tasks are called."""
        self._loop = loop

    def begin(self) -> None:
        """Write down from here on."""
        self._is_open = True
        self._before = ""

    def watch(self, task: asyncio.Task[Any], point: int, after: int, told: Callable[[], None]) -> None:
        """Count the suspensions of this task, and of the tasks that it waits for; cancel it at that one, so many steps
        later or, with `AT_ITS_TURN`, when the wait is over and it has not gone on yet. `told` is called just before."""
        self._watched, self._point, self._after, self._told = task, point, after, told
        self.is_needed = True

    def each_step(self, look: Callable[[asyncio.Task[Any] | None], None] | None) -> None:
        """Call `look` after every step with the task that made it, None for a callback; None ends that."""
        self._look = look
        self.is_needed = self.is_tracing or look is not None or self._watched is not None

    def say(self, line: str) -> None:
        """Write a line of the lab's own."""
        if self.is_tracing:
            self.lines.append(f"      -- {line}")

    def answered(self, caller: str, value: Any, error: BaseException | None) -> None:
        """A caller has its answer."""
        if self.is_tracing:
            self._answer = f"; answers {_short(value)}" if error is None else f"; raises {_error(error)}"

    # Called by the loop.

    def before_step(self, lane: Any, handle: Any) -> None:
        """A step of a task, or a callback, is about to run."""
        STEPS.count += 1
        if self.is_tracing:
            self.note(lane, handle)

    def note(self, lane: Any, handle: Any) -> None:
        """Know what the step is that is about to run."""
        if lane.task is not None:
            self._before = _awaited(lane.task) if lane.id in self._begun else "begins"
            self._begun.add(lane.id)
        else:
            self._before = _called(handle._callback)

    def after_step(self, lane: Any, handle: Any) -> None:
        """It has run."""
        if self.is_tracing and self._is_open and len(self.lines) < _MOST_LINES:
            self._write(lane)
        if self._watched is not None:
            self._cancel_in_time(lane.task)
        if self._look is not None:
            self._look(lane.task)

    def on_deviation(self, lanes: Any) -> None:
        """The next step runs ahead of these."""
        if self.is_tracing:
            self._skipped = tuple(self._loop.lane_label(lane) for lane in lanes)

    def on_unhandled(self, context: dict[str, Any]) -> None:
        """The loop reported an error that nobody handled."""
        self.say(f"nobody handles {context.get('message')}: {context.get('exception')!r}")

    def on_spawn(self, task: Any, info: Any) -> None: ...

    def on_fault(self, text: str) -> None: ...

    def on_net(self, actor: str, text: str) -> None: ...

    def on_note(self, task: Any, text: str, where: Any) -> None: ...

    def _write(self, lane: Any) -> None:
        if not (self._before or self._skipped):
            return
        self._number += 1
        mark = "*" if self._skipped else " "
        ahead = f"  (ahead of {', '.join(self._skipped)})" if self._skipped else ""
        end = self._answer
        if lane.task is not None and lane.task.done() and not end:
            end = "; is cancelled" if lane.task.cancelled() else "; ends"
        who = self._loop.lane_label(lane) if lane.task is not None else "the loop"
        self.lines.append(f"{self._number:>4}{mark} {who}: {self._before or 'books of asyncio'}{end}{ahead}")
        self._before, self._skipped, self._answer = "", (), ""

    def _cancel_in_time(self, task: asyncio.Task[Any] | None) -> None:
        watched = self._watched
        assert watched is not None
        if watched.done():
            self._watched = None
            return
        if self._countdown is not None:
            self._countdown -= 1
        elif task is watched or task is awaited_by(watched)[0]:
            self.suspensions += 1
            if self.suspensions == self._point:
                self._countdown = self._after
        if self._countdown == 0 or (self._after == AT_ITS_TURN and self._countdown is not None and _has_turn(watched)):
            self._watched = None
            self.has_cancelled = True
            self._told()
            watched.cancel()
            self.say(f"{watched.get_name()} is cancelled")


def _called(callback: Any) -> str:
    """The name of a callback; "" for the standard library's own bookkeeping, which shows nothing."""
    function = getattr(callback, "__func__", callback)
    code = getattr(function, "__code__", None)
    if code is None or is_internal(code.co_filename):
        return ""
    return f"calls {place(code.co_filename, code.co_firstlineno, getattr(function, '__qualname__', code.co_name))}"


def awaited_by(task: asyncio.Task[Any]) -> tuple[asyncio.Task[Any], asyncio.Future[Any] | None]:
    """Return the last of the tasks that wait for one another, beginning with this one, and the future that it waits
    for; None where it waits for nothing but its next turn."""
    waiter: Any = task
    while isinstance(waiter, asyncio.Task):
        task, waiter = waiter, getattr(waiter, "_fut_waiter", None)
    return task, waiter


def _has_turn(task: asyncio.Task[Any]) -> bool:
    last, future = awaited_by(task)
    return last.done() or future is None or future.done()


def awaits(task: asyncio.Task[Any]) -> Iterator[FrameType]:
    """Return the frames that the task waits in, the innermost last, and those of the task that it awaits, and so on."""
    waiter: Any = task
    while isinstance(waiter, asyncio.Task):
        yield from _coroutines(waiter)
        waiter = getattr(waiter, "_fut_waiter", None)


def _coroutines(task: asyncio.Task[Any]) -> Iterator[FrameType]:
    coroutine: Any = task.get_coro()
    while coroutine is not None:
        frame: FrameType | None = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is None:
            break
        yield frame
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)


def _awaited(task: asyncio.Task[Any]) -> str:
    """Where the task goes on: the innermost await that is not the standard library's or this package's. Where that is
    the lab's, such as a gate in a factory, the innermost await of the target that waits for it is named as well."""
    own, last, theirs = None, None, None
    for frame in _coroutines(task):
        last = frame
        if not is_internal(frame.f_code.co_filename):
            own = frame
            theirs = theirs if frame.f_code.co_filename.startswith(_LAB) else frame
    shown = own or last
    if shown is None:
        return "goes on"
    within = "" if theirs is None or theirs is shown else f", within {_place(theirs)}"
    return f"goes on at {_place(shown)}{within}"


@cache
def is_internal(filename: str) -> bool:
    """Return whether a file is the standard library's, this package's, or that of the loop that it runs on."""
    return filename.startswith((str(Path(__file__).parent), _DETANGLE)) or (
        filename.startswith(_STDLIB) and not filename.startswith(_SITE)
    )


def _place(frame: FrameType) -> str:
    return place(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)


def place(filename: str, line: int, function: str) -> str:
    """`package/module.py:line function`, the same wherever the package is installed."""
    return f"{_within_package(filename)}:{line} {function}"


@cache
def _within_package(filename: str) -> str:
    path = Path(filename)
    top = path.parent
    while (top / "__init__.py").is_file():
        top = top.parent
    return path.relative_to(top).as_posix() if path.is_relative_to(top) else path.name


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 90 else f"{text[:87]}..."


def _error(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
