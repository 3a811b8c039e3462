"""Quick steps for detangle's loop: the same steps in the same order, without records that nobody reads here.

detangle asks for the order of all runnable tasks at each step, records each decision and the line that made each task,
and calls its tracer twice. Here most steps have one order, asyncio's own.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from contextvars import Context
from typing import Any, Final, Protocol

from lab_utils.interleavings.observing import STEPS, Observer

__all__ = ["QUICKENED", "SimTask", "Steering", "quicken"]

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


class Steering(Protocol):
    """Chooses the next of several lanes while it is open; else their order is asyncio's own."""

    is_open: bool

    def schedule(self, lanes: Sequence[Any]) -> int:
        """The place of the next lane, in asyncio's own order of them."""


def quicken(loop: Any, observer: Observer, steering: Steering) -> None:
    """Exchange methods of a loop that has run nothing yet, whose tasks are `SimTask`s. Its tracer is the observer, and
    its strategy the steering."""
    of_loop = sys.modules[type(loop).__module__]
    new_lane, new_info, host = of_loop.Lane, of_loop.TaskInfo, of_loop.current_host
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
        lane = chosen() if len(active) > 1 and steering.is_open else _oldest(active)
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

    def chosen() -> Any:
        lanes = [lane for lane in list(active.values()) if _is_ready(lane, active)]
        if len(lanes) < 2:
            return lanes[0] if lanes else None
        lanes.sort(key=_first)
        taken = steering.schedule(lanes)
        if taken:
            observer.on_deviation(lanes[:taken])
        return lanes[taken]

    def lane_of(task: SimTask) -> Any:
        loop._lane_counter += 1
        lane = task.lane = loop._task_lanes[task] = new_lane(loop._lane_counter, task, "task", "")
        loop.tasks.append(task)
        parent = asyncio.current_task(loop) if loop._running else None
        info = loop.task_info[task] = new_info(task, lane, parent, host.get(), None)
        if loop._net is not None:
            loop._net._on_task_created(task, info.host)
        return lane

    def call_soon(callback: Any, *arguments: Any, context: Context | None = None) -> asyncio.Handle:
        if loop._abandoned or loop._closed:
            refused: asyncio.Handle = slow_call(callback, *arguments, context=context)
            return refused
        handle = asyncio.Handle(callback, arguments, loop, context)
        owner = getattr(callback, "__self__", None)
        if type(owner) is SimTask:
            lane = owner.lane or lane_of(owner)
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


def _first(lane: Any) -> int:
    number: int = lane.queue[0][0]
    return number


def _oldest(active: dict[int, Any]) -> Any:
    """The lane whose first step has waited longest, or None."""
    best, least = None, 0
    for lane in list(active.values()):
        if _is_ready(lane, active) and (best is None or lane.queue[0][0] < least):
            best, least = lane, lane.queue[0][0]
    return best


def _is_ready(lane: Any, active: dict[int, Any]) -> bool:
    """Whether the lane has a step; one whose steps were all cancelled goes."""
    queue = lane.queue
    while queue and queue[0][1]._cancelled:
        queue.popleft()
    if not queue:
        del active[lane.id]
    return bool(queue)
