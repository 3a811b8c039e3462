"""Runs one small core: prepares a target, lets both callers work, and judges their answers and the state they leave."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

from lab_utils.checks.registration.cores import Core
from lab_utils.checks.registration.racing import stems_from_cancellation
from lab_utils.checks.registration.sequential import MODELLED, Asked, Held, State, judged
from lab_utils.interleavings import Answer, Cancel, Stage, Workload
from lab_utils.target import (
    Capability,
    Command,
    EndReport,
    Handle,
    NotSupported,
    PlannedStep,
    Recipe,
    Refusal,
    Refused,
    Row,
    Target,
)
from lab_utils.values.workload import PLAIN, TRICKY, rows_for, user_ids

__all__ = ["workload_of"]

_TURNS = 2
"""How often every factory, run and cleanup of the lab suspends."""

_PLAN = (PlannedStep("one", "helper"), PlannedStep("two", "helper", after=("one",)))
_CALLERS = ("the first", "the second")
_FINDS = frozenset({"get", "remove", "reset", "end", "end_all"})
"""Calls that find or count the agents that are there."""
_REPORTED = "reported an error, where no factory, run or cleanup fails or ignores its cancellation:"


def workload_of(core: Core, make_target: Callable[[], Target], seed: int) -> Workload:
    """A workload for any schedule: a fresh target, the two callers, and the judgement of the state they leave."""

    rng = random.Random(seed)
    user = user_ids(1, rng, set(TRICKY) - PLAIN)[0]
    rows = rows_for(user, 3, rng)

    async def work(stage: Stage) -> None:
        await _Run(core, make_target(), user, [dict(row) for row in rows], stage).whole()

    return work


class _Run:
    """One run of one core."""

    def __init__(self, core: Core, target: Target, user: str, rows: Sequence[Row], stage: Stage) -> None:
        self.core, self.target, self.user, self.rows, self.stage = core, target, user, {user: rows}, stage
        self.made = self.begun = self.cleaned = self.made_when_cancelled = 0
        self.was_cancelled = False
        self.prior: list[Handle] = []

    async def whole(self) -> None:
        """Prepare, let both callers work, judge their answers and the agents held, and end everything."""
        recipe = Recipe("helper", self._on_create, self._on_run, self._on_cleanup)
        await self.target.start([recipe], self.rows, 5.0)
        for _ in range(self.core.prior):
            self.prior.append(await self.target.create(self.user, "helper"))
        names = {
            f"{_CALLERS[0]}: {self.core.first}": self.core.first,
            f"{_CALLERS[1]}: {self.core.second}": self.core.second,
        }
        # Watched in any case: a caller that is cancelled at no point has its suspensions counted.
        cancel = Cancel(list(names)[self.core.watched], self.core.point, self.core.after, self._note_cancelled)
        work = {name: self._ask(one) for name, one in names.items() if one != "nothing"}
        answers = await self.stage.together(work, cancel)
        working = await self._judge([(names[name], answer) for name, answer in answers.items()])
        if not self.stage.problems:
            await self._leave([answer.value for answer in answers.values()], working)
        # Also after a finding: a target that is never stopped complains when it is freed.
        try:
            await self.target.stop()
        except NotImplementedError:
            # A feature that the loop lacks: the exploration reports it.
            raise
        except Exception as error:
            self.stage.find("stop-failed", f"the stop failed with {type(error).__name__}: {error}")

    async def _ask(self, operation: str) -> Any:
        try:
            return await self._call(operation)
        except asyncio.CancelledError:
            # A caller may have to pass its cancellation on to a factory in another task, which ends meanwhile.
            self.made_when_cancelled = self.made
            raise

    async def _call(self, operation: str) -> Any:
        target, user = self.target, self.user
        match operation:
            case "create":
                return await target.create(user, "helper")
            case "get_or_create":
                return await target.get_or_create(user, "helper")
            case "get":
                return await target.get(user, "helper")
            case "run":
                return await target.run(self.prior[-1], self._command())
            case "remove":
                return await target.remove(user, "helper")
            case "reset":
                return await target.reset(user)
            case "end":
                return await target.end(user)
            case "end_all":
                return await target.end_all()
            case "attach":
                return await target.attach(user)
            case "supervise":
                return await target.supervise(user, _PLAN)
            case _:
                return await target.orchestrate(user, "What did we spend?")

    def _command(self) -> Command:
        """A write, and now and then a read: who reads the same at once may be served by one run."""
        is_read = self.core.first == self.core.second == "run" and self.core.after > 0
        return Command("read", {"key": "k"}) if is_read else Command("write", {"key": "k", "value": "v"})

    async def _judge(self, answers: Sequence[tuple[str, Answer]]) -> frozenset[str] | None:
        """Judge the answers and the agents held now; return the agents that must work, None where nothing is known."""
        asked = [self._asked(operation, answer) for operation, answer in answers]
        conflicts = [answer for _, answer in answers if getattr(answer.error, "kind", None) is Refusal.CONFLICT]
        if len(conflicts) == len(answers) and not self.stage.problems:
            self.stage.find("wrong-refusal", "each of two runs at once was refused for a conflict, and none was done")
        if self.stage.problems or not all(operation in MODELLED for operation, _ in answers):
            return None
        asked_of = {operation for operation, _ in answers}
        may_count_later = not (self._can(Capability.CREATE_ANEW) or self._can(Capability.POPULATION))
        if may_count_later and ("create" in asked_of or (self.prior and asked_of & _FINDS)):
            # An agent may be found and counted from its first run on, so these answers say nothing here.
            return None
        before = State(tuple(handle.instance for handle in self.prior), bool(self.prior))
        verdict = judged(before, asked, await self._held())
        if verdict.anomaly:
            self.stage.find(verdict.anomaly, verdict.sentence)
        return verdict.working

    async def _held(self) -> Held | None:
        """The counts that the target reports; None if it does not report them all."""
        if not self._can(Capability.POPULATION, Capability.LOOKUP):
            return None
        found = await self.target.get(self.user, "helper")
        population = self.target.population()
        return Held(population.sessions, population.agents, None if found is None else found.instance)

    def _can(self, *capabilities: Capability) -> bool:
        return self.target.capabilities.issuperset(capabilities)

    def _asked(self, operation: str, answer: Answer) -> Asked:
        value, error = answer.value, answer.error
        is_refused = is_unknown = False
        if operation == "create" and not self._can(Capability.CREATE_ANEW):
            # It may find what is there.
            operation = "get_or_create"
        is_watched = answer.caller.startswith(_CALLERS[self.core.watched])
        if self.was_cancelled and is_watched and not isinstance(error, asyncio.CancelledError):
            came = f"answer {value}" if error is None else f"{type(error).__name__}: {error}"
            self.stage.find("cancellation-lost", f"{answer.caller} was cancelled, and came back with {came}")
        if isinstance(error, asyncio.CancelledError):
            is_unknown = bool(self.core.point) and is_watched
            if not is_unknown:
                self.stage.find("cancelled-others", f"{answer.caller} was cancelled, and nobody had cancelled it")
        elif isinstance(error, Refused):
            is_refused = error.kind is Refusal.CLOSED
            # A store without locks: one of two runs at once may be asked to try again. Its effect is not judged.
            is_unknown = error.kind is Refusal.CONFLICT and self.core.first == self.core.second == "run"
            if not (is_refused or is_unknown):
                self.stage.find("wrong-refusal", f"{answer.caller} was refused as {error.kind}: {error}")
        elif isinstance(error, NotSupported):
            raise error
        elif error is not None:
            is_of_others = bool(self.core.point) and not is_watched and stems_from_cancellation(error)
            anomaly = "cancelled-others" if is_of_others else "failed-operation"
            self.stage.find(anomaly, f"{answer.caller} raised {type(error).__name__}: {error}")
        if isinstance(value, EndReport):
            for text in value.errors:
                self.stage.find("wrong-report", f"{answer.caller} {_REPORTED} {text}")
            value = value.closed
        elif isinstance(value, Handle):
            value = value.instance
        subject = self.prior[-1].instance if operation == "run" else ""
        may_have_made = self.made_when_cancelled > len(self.prior)
        return Asked(operation, value, answer.began, answer.ended, is_refused, is_unknown, may_have_made, subject)

    async def _leave(self, answered: Sequence[Any], working: frozenset[str] | None) -> None:
        """Live agents must work and closed ones must not; the next call works; after the end nothing is left."""
        await self._rest()
        handles = {handle.instance: handle for handle in (*self.prior, *answered) if isinstance(handle, Handle)}
        for handle in handles.values() if working is not None else ():
            await self._use(handle, handle.instance in (working or ()))
        await self._call_again()
        if self._can(Capability.END):
            await self._end()

    async def _call_again(self) -> None:
        make = self.target.get_or_create if self._can(Capability.GET_OR_CREATE) else self.target.create
        try:
            await make(self.user, "helper")
        except Exception as error:
            self.stage.find("next-call-fails", f"the next call failed with {type(error).__name__}: {error}")

    async def _end(self) -> None:
        counted, find = self._can(Capability.POPULATION), self.stage.find
        there = self.target.population().agents if counted else None
        report = await self.target.end(self.user)
        if there not in (None, report.closed):
            find("wrong-count", f"the end of {there} agents was reported as {report}")
        for text in report.errors:
            find("wrong-report", f"the end {_REPORTED} {text}")
        await self._rest()
        left = self.target.population() if counted else None
        if left is not None and (left.agents or left.sessions):
            find("left-behind", f"after everybody has gone the target holds {left}")
        if self.begun > self.made:
            find("closed-twice", f"{self.made} agents were made, and {self.begun} cleanups were begun")
        made, cleaned = self.made, self.cleaned
        if made and not self.begun:
            # Agents may have no cleanups at all: then that of somebody else has none either.
            await self.target.create(f"{self.user}, another one", "helper")
            await self.target.end(f"{self.user}, another one")
        if self.begun and cleaned < made:
            find("never-closed", f"{made} agents were made, and {cleaned} cleanups ended")

    async def _rest(self) -> None:
        if self.core.point:
            # A cancelled caller has left its work to others, who may go on for a while.
            await self.stage.rest()

    async def _use(self, handle: Handle, is_open: bool) -> None:
        try:
            await self.target.run(handle, Command("read", {"key": "k"}))
        except Exception as error:
            if is_open:
                sentence = f"{handle.instance} is held and found, and does not work: {type(error).__name__}: {error}"
                self.stage.find("failed-operation", sentence)
            return
        if not is_open:
            self.stage.find("use-after-close", f"{handle.instance} is held no more, and works")

    def _note_cancelled(self) -> None:
        self.was_cancelled = True

    # The lab's factory, run and cleanup: each one suspends.

    async def _on_create(self, user: str) -> None:
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        self.made += 1

    async def _on_run(self, user: str) -> None:
        for _ in range(_TURNS):
            await asyncio.sleep(0)

    async def _on_cleanup(self, user: str) -> None:
        self.begun += 1
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        self.cleaned += 1
