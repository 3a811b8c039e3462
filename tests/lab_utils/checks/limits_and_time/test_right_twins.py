"""Registries with other policies than ours, and right: no check of limits_and_time blames one for its policy."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from lab_utils.runner import run_check
from lab_utils.target import Capability, Recipe, Refusal, Refused
from lab_utils.targets.planted.limits.endings import SweepHoldsTheRegistry
from lab_utils.targets.reference import Agent, Bridge, Context, ReferenceTarget, Session
from lab_utils.values.verdict import Outcome


class OldestIdleMakesRoom(ReferenceTarget):
    """A full house refuses only while everybody in it runs."""

    async def build(self, session: Session, recipe: Recipe, context: Context, connect: bool) -> Agent:
        most = self.bounds.agents_per_user
        if most is not None and len(session.agents) >= most:
            oldest = next(agent for agent in session.agents if not agent.runs)
            session.agents.remove(oldest)
            await self.close_agent(oldest, [])
        return await super().build(session, recipe, context, connect)

    def check_room(self, session: Session) -> None:
        if all(agent.runs for agent in session.agents):
            super().check_room(session)

    capabilities = ReferenceTarget.capabilities - {Capability.ADOPTION}


class RefusedAfterTheFactory(ReferenceTarget):
    """Whether there is room is looked at when the agent is made; one that finds none is closed."""

    def check_room(self, session: Session) -> None:
        return

    async def install(self, session: Session, agent: Agent) -> object:  # type: ignore[override]
        most = self.bounds.agents_per_user
        if most is not None and len(session.agents) >= most:
            await self.close_agent(agent, [])
            raise Refused(Refusal.CAPACITY, f"{session.user!r} has {most} agents, the limit")
        return await super().install(session, agent)


class SweepsInTheBackground(ReferenceTarget):
    """A sweep returns at once; those who are due are ended in tasks, unless they come back before."""

    async def sweep(self) -> Sequence[str]:
        due = [session for session in self.sessions.values() if self.is_due(session)]
        for session in due:
            task = asyncio.ensure_future(self.end_if_due(session))
            self.closing.add(task)  # type: ignore[arg-type]
            task.add_done_callback(self.closing.discard)
        return [session.user for session in due]


class SilentBridges(ReferenceTarget):
    """It has no events at all, and no other ability that a part of a check needs."""

    capabilities = frozenset({Capability.AGENT_CAP, Capability.AGE_END, Capability.ADOPTION})

    def make_bridge(self, user: str) -> Bridge:
        bridge = super().make_bridge(user)
        bridge.clients.clear()
        return bridge


@pytest.mark.parametrize(
    ("target", "check"),
    [
        (OldestIdleMakesRoom, "agent_and_user_limit_enforcement"),
        (RefusedAfterTheFactory, "agent_and_user_limit_enforcement"),
        (SweepsInTheBackground, "idle_and_over_age_session_ending"),
    ],
)
def test_another_policy_is_right_as_well(target: type[ReferenceTarget], check: str) -> None:
    result = run_check(check, target=target, in_process=True)
    findings = "\n".join(map(str, result.verdict.findings))
    assert result.outcome is Outcome.PASS, f"{result.verdict.reason}\n{findings}\n{result.traceback}"


@pytest.mark.parametrize(
    ("check", "left_out"),
    [
        ("agent_and_user_limit_enforcement", "caps on users (the target lacks: user_cap)"),
        ("idle_and_over_age_session_ending", "endings by idleness (the target lacks: idle_end)"),
        ("adopted_agent_ownership", ""),
        ("independent_registries_in_one_process", ""),
    ],
)
def test_a_target_with_a_part_of_it_is_judged_by_that_part(check: str, left_out: str) -> None:
    result = run_check(check, target=SilentBridges, in_process=True)
    assert result.outcome is Outcome.PASS, [result.verdict.reason, *map(str, result.verdict.findings)]
    assert left_out in result.verdict.reason


@pytest.mark.parametrize(
    "check",
    ["agent_type_registration_and_replacement", "strict_context_enforcement", "foreign_thread_and_loop_refusal"],
)
def test_one_without_it_is_not_applicable(check: str) -> None:
    assert run_check(check, target=SilentBridges, in_process=True).outcome is Outcome.NOT_APPLICABLE


def test_who_waits_for_a_sweep_is_named_by_that_where_each_is_given_the_same_time() -> None:
    class Theirs(SweepHoldsTheRegistry):
        """Not planted: a check has all of its patience."""

    result = run_check("idle_and_over_age_session_ending", target=Theirs, stuck_after=1.0, in_process=True)
    assert {finding.anomaly for finding in result.verdict.findings} == {"waits-for-other"}
