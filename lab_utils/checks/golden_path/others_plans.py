"""A part of agent_coordination_with_supervisor_integration: plans of several users, and of one, with the same names of
steps, at the same time and one after another."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from lab_utils.target import Capability, Hook, PlannedStep, Recipe, SupervisionReport, Target
from lab_utils.trial import Trial
from lab_utils.trial.faults import Gate, Planned
from lab_utils.values.canaries import word

__all__ = ["judge_others_plans"]

_PLACES = ("held run", "last create", "last run")
"""Where a plan is held while another user's runs: before the last step, in its factory, and when it has its inputs."""
_AGAIN = 3
"""Plans after which as many agents must be left as after the one before them."""


async def judge_others_plans(trial: Trial) -> None:
    """Each step must run for its own user, in each plan anew, and receive that user's outputs alone."""
    for place in _PLACES:
        await _Plans(trial, place).judge()
    for place in ("held run", "last run"):
        for end in ("was released first", "was released last", "was cancelled", "failed"):
            await _PlansOfOne(trial, place).judge(end)


_TURNS = 60
"""Turns of the loop in which a user's second plan comes to where it is held, unless it waits for the first."""
_STEPS = ("middle", "held", "last")


def _plan(notes: Iterable[str], own: str) -> tuple[PlannedStep, ...]:
    """A step for each note; those in `_STEPS` follow, of which the first comes after the plan's own note."""
    return (
        *(PlannedStep(note, "notes") for note in notes),
        PlannedStep("middle", "middle", (own,)),
        PlannedStep("held", "held", ("middle",)),
        PlannedStep("last", "last", ("middle", "held")),
    )


class _Plans:
    """Three users, each with a plan whose steps are named alike. Every plan has a step for each user's canary; "middle"
    comes after the user's own, so that its output, and those of "held" and "last", hold that canary alone."""

    def __init__(self, trial: Trial, place: str) -> None:
        self.trial, self.place = trial, place
        self.users = trial.user_ids(3)
        self.canaries = {user: word(user, 0) for user in self.users}
        self.gates: dict[str, Gate] = {}
        self.failing: set[str] = set()
        self.ran = Counter[tuple[str, str]]()
        self.target: Target

    async def judge(self) -> None:
        first, second, third = self.users
        types = ("notes", *_STEPS)
        self.target = await self.trial.target(
            [Recipe(name, self._hook(f"{name} create"), self._hook(f"{name} run")) for name in types]
        )
        one, another = await self._held(first), await self._held(second)
        await self._released(first, one)
        await self._released(second, another)
        cancelled = await self._held(third)
        cancelled.cancel()
        await self.trial.waiting.ends(asyncio.wait({cancelled}), "a cancelled plan")
        self.gates.clear()
        await self._anew(first, third)
        self.failing.add(third)
        await self.trial.waiting.ends(self._begun(third), "a plan that is to fail")
        self.failing.clear()
        await self._anew(first, third)
        if Capability.POPULATION in self.target.capabilities:
            await self._again(third)

    async def _anew(self, *users: str) -> None:
        """A plan of each user, the one whose plan was cut short last: a plan that resumes takes the checkpoint away."""
        self.ran.clear()
        for user in users:
            await self._released(user, self._begun(user))

    async def _again(self, user: str) -> None:
        agents = [self.target.population().agents]
        for _ in range(_AGAIN):
            await self._released(user, self._begun(user))
            agents.append(self.target.population().agents)
        grows = all(before < after for before, after in pairwise(agents))
        sentence = f"after each plan of {user!r} that is run again there are more agents: {agents}"
        self.trial.require(not grows, "left-behind", sentence, agents)

    def _hook(self, place: str) -> Hook:
        async def passing(user: str) -> None:
            self.ran[user, place] += 1
            if place == self.place and user in self.gates:
                await self.gates[user](user)
            if place == self.place and user in self.failing:
                raise Planned("planned")

        return passing

    def _begun(self, user: str) -> asyncio.Future[SupervisionReport]:
        plan = _plan(self.canaries.values(), self.canaries[user])
        return asyncio.ensure_future(self.trial.timed(self.target.supervise(user, plan)))

    async def _held(self, user: str) -> asyncio.Future[SupervisionReport]:
        """This user's plan, held; or ended, where it never comes to the place."""
        gate = self.gates[user] = Gate()
        running = self._begun(user)
        began = await self.trial.waiting.reached(gate.reached, running) or running.done()
        sentence = f"the plan of {user!r} does not go on while another user's is under way"
        self.trial.require(began, "no-overlap", sentence, self.ran)
        return running

    async def _released(self, user: str, running: asyncio.Future[SupervisionReport]) -> None:
        """Let this plan end, and judge whose outputs its steps received, and that they ran."""
        if user in self.gates:
            self.gates[user].open()
        report = await self.trial.waiting.ends(running, f"the plan of {user!r}")
        for step in _STEPS:
            status, output = report.statuses.get(step), report.outputs.get(step)
            self.trial.require(status == "completed", "plan-failed", f"step {step!r} is {status!r}", report)
            if status == "completed":
                self._judge_output(user, step, output)
            ran = self.ran.pop((user, f"{step} run"), 0)
            sentence = f"step {step!r} of {user!r} is {status!r}, and its agent was not run in this plan"
            self.trial.require(bool(ran) or status != "completed", "wrong-status", sentence, report)

    def _judge_output(self, user: str, step: str, output: Any) -> None:
        told = repr(output)
        others = [other for other in self.users if other != user and self.canaries[other] in told]
        sentence = f"step {step!r} of {user!r} received outputs of the plan of {others}"
        self.trial.require(not others, "cross-user-data", sentence, output)
        sentence = f"step {step!r} of {user!r} did not receive the outputs of its own plan"
        self.trial.require(bool(others) or self.canaries[user] in told, "wrong-answer", sentence, output)


class _PlansOfOne:
    """Two plans of one user at once, each held at this place; whatever becomes of the first, the second has its own
    outputs. A target may run one user's plans one after another: then the second one comes to the place later."""

    def __init__(self, trial: Trial, place: str) -> None:
        self.trial, self.place = trial, place
        self.user = trial.user_ids(1)[0]
        self.notes = (word(self.user, 0), word(self.user, 1))
        self.gates = (Gate(), Gate())
        self.came = 0
        self.is_failing = False
        self.target: Target

    async def judge(self, end: str) -> None:
        """Begin both, and let the first one end so."""
        types = ("notes", *_STEPS)
        self.target = await self.trial.target([Recipe(one, on_run=self._hook(f"{one} run")) for one in types])
        one, other = self.gates
        first = self._begun(self.notes[0])
        began = await self.trial.waiting.reached(one.reached, first)
        if not self.trial.require(began, "plan-failed", f"a plan of {self.user!r} does not come to its steps"):
            return
        second = self._begun(self.notes[1])
        await self.trial.waiting.settle(_TURNS)
        self.is_failing = end == "failed"
        if end == "was released last":
            other.open()
            await self.trial.waiting.settle(_TURNS)
        if end == "was cancelled":
            first.cancel()
        one.open()
        other.open()
        ended = asyncio.wait({first, second})
        await self.trial.waiting.ends(ended, f"two plans of {self.user!r} at once")
        beside = f"beside one that {end}" if end in ("was cancelled", "failed") else "beside another one"
        if end.startswith("was released"):
            self._judge(first, 0, beside)
        elif not first.cancelled() and first.exception() is None:
            # What becomes of a cancelled or failed plan by itself is another part's matter.
            sentence = f"a plan of {self.user!r} failed beside another one, and its report has no error"
            self.trial.require(bool(first.result().error), "failure-hidden", sentence, first.result())
        self._judge(second, 1, beside)
        await self.trial.stop(self.target)

    def _hook(self, place: str) -> Hook:
        async def passing(user: str) -> None:
            if place == self.place:
                self.came += 1
                number = self.came
                await self.gates[min(number, 2) - 1](user)
                if number == 1 and self.is_failing:
                    raise Planned("planned")

        return passing

    def _begun(self, own: str) -> asyncio.Future[SupervisionReport]:
        plan = _plan(self.notes, own)
        return asyncio.ensure_future(self.trial.timed(self.target.supervise(self.user, plan)))

    def _judge(self, running: asyncio.Future[SupervisionReport], number: int, beside: str) -> None:
        sentence = f"a plan of {self.user!r} {beside} was cancelled, and nobody had cancelled it"
        if not self.trial.require(not running.cancelled(), "cancelled-others", sentence):
            return
        if (error := running.exception()) is not None:
            sentence = f"a plan of {self.user!r} {beside} raised {type(error).__name__}: {error}"
            self.trial.find("plan-failed", sentence, repr(error))
            return
        report, own, others = running.result(), self.notes[number], self.notes[1 - number]
        whole = all(report.statuses.get(step) == "completed" for step in _STEPS) and not report.error
        sentence = f"a plan of {self.user!r} {beside} did not complete"
        self.trial.require(whole, "plan-failed", sentence, report)
        for step in _STEPS if whole else ():
            told = repr(report.outputs.get(step))
            sentence = f"step {step!r} of a plan of {self.user!r} {beside} received other outputs than its own plan's"
            self.trial.require(own in told and others not in told, "wrong-answer", sentence, told)
