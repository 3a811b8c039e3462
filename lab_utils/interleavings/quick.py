"""Quick steps for detangle's loop: the same steps in the same order, without records that nobody reads here.

detangle asks for the order of all runnable tasks at each step, records each decision and the line that made each task,
and calls its tracer twice. Here most steps have one order, asyncio's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Any, Final

from lab_utils.interleavings.observing import STEPS, Observer

__all__ = ["QUICKENED", "SimTask", "quicken"]

QUICKENED: Final = ("_run_once", "call_soon")
"""The loop's methods that `quicken` puts others in place of."""

_NUMBERS: Final = STEPS.numbers


class SimTask(asyncio.Task[Any]):
    """A task that is hashed by its number: sets of tasks are then walked in the same order in every process. It knows
    its lane, the loop's queue of its steps."""

    lane: Any = None

    def __init__(self, coroutine: Any, number: int, **options: Any) -> None:
        self._number = number
        super().__init__(coroutine, **options)

    def __hash__(self) -> int:
        return self._number


def quicken(loop: Any, observer: Observer, is_choosing: Callable[[], bool]) -> None:
    """Exchange methods of a loop that has run nothing yet, whose tasks are `SimTask`s. Its tracer is the observer.

    The order of steps is asked for where `is_choosing()`; elsewhere it is asyncio's own.
    """
    slow_step, slow_call = loop._run_once, loop.call_soon
    active, callbacks = loop._active, loop._callback_lane
    most_steps, most_time = loop.config.max_steps, loop.config.max_time

    def run_once() -> bool:
        is_last = loop.steps + 1 >= most_steps or loop._now > most_time
        if is_last or loop._inbox or loop.tracer is None:
            # It says itself that it does not end. Other threads' calls, and steps while it is torn down, are rare.
            return bool(slow_step())
        timers = loop._timers
        if timers and timers[0][0] <= loop._now:
            loop._collect_due_timers()
        lane = loop._pick_lane() if len(active) > 1 and is_choosing() else _oldest(active)
        if lane is None:
            return bool(loop._advance_time())
        queue = lane.queue
        _, handle = queue.popleft()
        if not queue:
            del active[lane.id]
        _NUMBERS[0] += 1
        if observer.is_tracing:
            observer.note(lane, handle)
        loop._current_lane = lane
        try:
            handle._run()
        finally:
            loop._current_lane = None
        loop.steps += 1
        if observer.is_needed:
            observer.after_step(lane, handle)
        return True

    def call_soon(callback: Any, *arguments: Any, context: Context | None = None) -> asyncio.Handle:
        if loop._abandoned or loop._closed:
            refused: asyncio.Handle = slow_call(callback, *arguments, context=context)
            return refused
        handle = asyncio.Handle(callback, arguments, loop, context)
        owner = getattr(callback, "__self__", None)
        if type(owner) is SimTask:
            lane = owner.lane
            if lane is None:
                lane = owner.lane = loop._lane_for_task(owner)
        elif owner is None:
            lane = callbacks
        else:
            loop._enqueue(handle, callback)
            return handle
        loop._seq += 1
        queue = lane.queue
        if not queue:
            active[lane.id] = lane
        queue.append((loop._seq, handle))
        return handle

    loop._run_once, loop.call_soon = run_once, call_soon


def _oldest(active: dict[int, Any]) -> Any:
    """The lane whose first step has waited longest, or None; lanes whose steps were all cancelled go."""
    best, least = None, 0
    for lane in list(active.values()) if len(active) > 1 else tuple(active.values()):
        queue = lane.queue
        while queue and queue[0][1]._cancelled:
            queue.popleft()
        if not queue:
            del active[lane.id]
        elif best is None or queue[0][0] < least:
            best, least = lane, queue[0][0]
    return best
