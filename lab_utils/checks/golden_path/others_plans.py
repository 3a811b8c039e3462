"""A part of agent_coordination_with_supervisor_integration: plans of several users with the same names of steps, at the
same time and one after another."""

from __future__ import annotations

import asyncio
from collections import Counter
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
        types = ("notes", "middle", "held", "last")
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
        plan = (
            *(PlannedStep(one, "notes") for one in self.canaries.values()),
            PlannedStep("middle", "middle", (self.canaries[user],)),
            PlannedStep("held", "held", ("middle",)),
            PlannedStep("last", "last", ("middle", "held")),
        )
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
        for step in ("middle", "held", "last"):
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
