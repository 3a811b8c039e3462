"""The tools of a workload in one run: its callers, the calls to cancel, and the place for its findings."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from lab_utils.interleavings.observing import Observer

__all__ = ["Answer", "Cancel", "NotExplorable", "Problem", "Stage", "Workload"]


class NotExplorable(Exception):
    """The workload needs something that a deterministic loop does not have: real sockets, threads or processes."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A workload's finding in one run: the anomaly's standard name, and a sentence."""

    anomaly: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """Cancel this caller when it has suspended `point` times (from 1; 0: never), `after` more steps of the loop later,
    or, with `AT_ITS_TURN`, when that wait is over.

    `told` is called just before.
    """

    caller: str
    point: int
    after: int = 0
    told: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class Answer:
    """How a caller's work ended. `began`, `ended`: places in the order of all beginnings and ends of this run."""

    caller: str
    value: Any
    error: BaseException | None
    began: int
    ended: int


class Stage:
    """The tools of a workload in one run: its callers, and the place for its findings."""

    def __init__(
        self, choosing: Callable[[bool], None], observer: Observer, impossible: Callable[[BaseException], str]
    ) -> None:
        self.problems: list[Problem] = []
        self._choosing = choosing
        self._why_impossible = impossible
        self._observer = observer
        self._clock = itertools.count(1)
        self._answers: dict[str, Answer] = {}
        self._impossible = ""

    def find(self, anomaly: str, sentence: str) -> None:
        """Add a problem."""
        self.problems.append(Problem(anomaly, sentence))

    async def together(
        self, work: Mapping[str, Coroutine[Any, Any, Any]], cancel: Cancel | None = None
    ) -> dict[str, Answer]:
        """Run the callers at once, each in a task of its own, in an order that the schedule chooses.

        Return when all have ended. A caller that never ends ends the run: `never-ends`, with the tasks and their
        awaited objects. Raises `NotExplorable` if one was refused a real socket, thread or process.
        """
        tasks = {name: asyncio.create_task(self._run(name, coroutine), name=name) for name, coroutine in work.items()}
        self._observer.begin()
        if cancel is not None:
            self._observer.watch(tasks[cancel.caller], cancel.point, cancel.after, cancel.told)
        self._choosing(True)
        try:
            await asyncio.wait(tasks.values())
        finally:
            self._choosing(False)
            self._observer.say("the callers have ended; the lab looks at the remains")
        if self._impossible:
            raise NotExplorable(self._impossible)
        # A task that was cancelled before its first step has no answer of its own.
        return {
            name: self._answers.get(name) or Answer(name, None, asyncio.CancelledError(), 0, next(self._clock))
            for name in tasks
        }

    def each_step(self, look: Callable[[asyncio.Task[Any] | None], None] | None) -> None:
        """Call `look` after every step of the loop with the task that made it, None for a callback; None ends that."""
        self._observer.each_step(look)

    def require_explorable(self, error: BaseException) -> None:
        """Raise `NotExplorable` if the error comes of a real socket, thread or process that was refused."""
        if why := self._why_impossible(error):
            raise NotExplorable(why)

    async def rest(self) -> None:
        """Let everything run that is ready, however long; waits for virtual time only."""
        await asyncio.sleep(1e-6)

    def until_next_timer(self) -> float | None:
        """Virtual seconds until the loop's next timer is due, None where there is none."""
        loop: Any = asyncio.get_running_loop()
        due = [when for when, _, timer in loop._timers if not timer.cancelled()]
        return max(0.0, min(due) - loop.time()) if due else None

    async def _run(self, name: str, work: Coroutine[Any, Any, Any]) -> None:
        began, value, error = next(self._clock), None, None
        try:
            value = await work
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as raised:
            error = raised
            self._impossible = self._impossible or self._why_impossible(raised)
        self._answers[name] = Answer(name, value, error, began, next(self._clock))
        self._observer.answered(name, value, error)


Workload = Callable[[Stage], Coroutine[Any, Any, None]]
