"""Notices a target that holds an event loop: its code works or blocks for long where it should await."""

from __future__ import annotations

import asyncio
import inspect
import re
import sys
import threading
import time
import tracemalloc
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final
from weakref import ref

from lab_utils.interleavings.observing import BEAT_S, STEPS
from lab_utils.interleavings.threads import times
from lab_utils.targets.loading import is_theirs, place
from lab_utils.trial import loops

__all__ = ["BETWEEN_S", "MOST_S", "Holding", "holder"]

BETWEEN_S: Final = BEAT_S
"""Seconds between two looks. A step of a loop that lasts for less is not counted."""
MOST_S: Final = 2.0
"""Seconds that one coroutine of the target may hold loops, in all such steps together, before that is a finding."""

_TRACED: Final = 3.0
"""How many times as long code takes while its allocations are traced, as the checks of memory have them."""

_DEPTH: Final = 5
_STEP: Final = asyncio.Handle._run.__code__
_TARGETS: Final = str(Path(__file__).parents[1] / "targets")
_IMPORTS: Final = "<frozen importlib"
_THREADS: Final = re.compile(r"^((?:Current thread|Thread) .*)\n((?:  .*\n)*)", re.MULTILINE)
_DUMPED: Final = re.compile(r'^  File "(.*)", line (\d+) in (.*)$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _Seen:
    """A thread in the midst of a step of its loop and a call of the target: the seconds for which it worked so far, and
    for which it held the loop in this call."""

    step: ref[asyncio.Handle]
    worked_s: float
    held_s: float


class Holding:
    """Adds up how long the target's coroutines hold event loops of this process. Call `look` every `BETWEEN_S` seconds
    from a thread without a loop: it costs next to nothing while the lab's loops turn.

    Two looks that meet the same step of a loop, and the same call of the target in it, count the time between them.
    (Calls that never suspend may follow one another in one step.) The time in which any thread of the process was in
    line for a processor does not count, for it may have had the interpreter, and two intervals at most do, for the
    process may have been stopped.
    While allocations are traced, a third of the work counts, and no step that would be short without that. Imports do
    not count, nor does `start`, before which nobody is served. Code in C that keeps the interpreter to itself is not
    seen, for then nobody looks: the parent process notices it (`runner/watch.py`).
    """

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._calls: dict[str, list[str]] = {}
        self._seen: dict[int, _Seen] = {}
        self._turned = 0
        self._in_line_s: dict[int, float] = {}
        self.looked_at = time.monotonic()

    def look(self, *, is_starting: bool = False) -> bool:
        """Look at all threads, unless a loop has turned or a target `is_starting`. Return whether a coroutine has held
        loops for too long."""
        now = time.monotonic()
        passed, self.looked_at = now - self.looked_at, now
        if is_starting or STEPS.count != self._turned:
            self._turned = STEPS.count
            self._seen.clear()
            return False
        before, self._seen = self._seen, {}
        had = {thread.ident or 0: times(thread) for thread in threading.enumerate()}
        in_line_before, self._in_line_s = (
            self._in_line_s,
            {ident: in_line_s for ident, (_, in_line_s, _) in had.items()},
        )
        waited_s = sum(in_line_s - in_line_before.get(ident, 0.0) for ident, in_line_s in self._in_line_s.items())
        for ident, (worked_s, _, is_ready) in had.items():
            step, is_same, place, calls = _step_of(sys._current_frames().get(ident))
            if step is None or not place:
                continue
            last, held_s = before.get(ident), 0.0
            if last is not None and last.step() is step and is_same:
                most_s, more_s = min(passed, 2 * BETWEEN_S), worked_s - last.worked_s
                if not is_ready:
                    # It waits for something: for the target's code, or for the interpreter, which another thread may
                    # have had while in line itself. (The system counts a wait in line once it is over.)
                    more_s = max(more_s, most_s - waited_s)
                more_s = min(more_s, most_s)
                if tracemalloc.is_tracing():
                    more_s -= min(more_s, worked_s - last.worked_s) * (1 - 1 / _TRACED)
                held_s = last.held_s + more_s
                if held_s >= BETWEEN_S / 2:
                    self._seconds[place] += more_s if last.held_s >= BETWEEN_S / 2 else held_s
                    self._calls[place] = calls
            self._seen[ident] = _Seen(ref(step), worked_s, held_s)
        return self.most()[1] >= MOST_S

    def most(self) -> tuple[list[str], float]:
        """The calls that led to the place where loops were held for longest, and the seconds."""
        place = max(self._seconds, key=self._seconds.__getitem__, default="")
        return self._calls.get(place, []), self._seconds.get(place, 0.0)


def _step_of(frame: FrameType | None) -> tuple[asyncio.Handle | None, bool, str, list[str]]:
    """The step that a thread's loop runs; whether the call of the target in it was met before; the place of the
    target's innermost coroutine, and the calls within that."""
    inside: list[FrameType] = []
    while frame is not None and frame.f_code is not _STEP:
        inside.append(frame)
        frame = frame.f_back
    if frame is None:
        return None, False, "", []
    theirs = [one for one in inside if _is_targets(one)]
    coroutines = [one for one in theirs if one.f_code.co_flags & inspect.CO_COROUTINE]
    # The trial reports the start of a target; that of one which a check makes for itself is known by its name.
    is_counted = coroutines and theirs[-1] is coroutines[-1] and theirs[-1].f_code.co_name != "start"
    if not is_counted or any(one.f_code.co_filename.startswith(_IMPORTS) for one in inside):
        return frame.f_locals.get("self"), False, "", []
    innermost = coroutines[0]
    calls = [loops.place(one) for one in reversed(inside[: inside.index(innermost) + 1])]
    held_at = f"{innermost.f_code.co_filename}:{innermost.f_code.co_qualname}"
    return frame.f_locals.get("self"), _was_seen(coroutines[-1]), held_at, calls[-_DEPTH:]


def _was_seen(call: FrameType) -> bool:
    """Whether a call was met before. It is marked: to keep a frame would keep what the target's code refers to. The
    mark has no effect but on a debugger that follows single opcodes."""
    seen, call.f_trace_opcodes = call.f_trace_opcodes, True
    return seen


def _is_targets(frame: FrameType) -> bool:
    return _is_of_target(frame.f_code.co_filename)


def _is_of_target(file: str) -> bool:
    return is_theirs(file) or file.startswith(_TARGETS)


def holder(dumped: str) -> str:
    """The innermost line of the target, "file.py:12 in create", in the thread that holds the interpreter; "" where that
    is not to be blamed on the target: in an import, in `start`, or in the lab's own code.

    `dumped`: the stacks that `faulthandler` wrote while no thread of Python could run. The current one is the main
    thread; where it waits for events, another thread holds the interpreter.
    """
    threads = [
        (head.startswith("Current"), _DUMPED.findall(calls)) for head, calls in _THREADS.findall(dumped) if calls
    ]
    main = [calls for is_current, calls in threads if is_current]
    others = [calls for is_current, calls in threads if not is_current]
    is_waiting = any(calls[0][2] == "select" for calls in main)
    for calls in others if is_waiting else main:
        theirs = [call for call in calls if _is_of_target(call[0])]
        if theirs and theirs[-1][2] != "start" and not any(call[0].startswith(_IMPORTS) for call in calls):
            file, line, name = theirs[0]
            return f"{place(file)}:{line} in {name}"
    return ""
