"""Registries with other policies than ours, and less to look at, and right: no check of many tenants blames one."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from lab_utils.runner import run_check
from lab_utils.target import Capability, Recipe, Refusal, Refused
from lab_utils.targets.reference import Agent, Context, Dispatcher, ReferenceTarget, Session
from lab_utils.trial.faults import NO_CLEANUPS
from lab_utils.values.verdict import Outcome

UPDATES = "concurrent_user_operations_isolation"


class _Versioned(Agent):
    """It works on a copy of its memory, and keeps it unless somebody else wrote meanwhile."""

    async def run(self, action: str, arguments: Mapping[str, Any], run: str) -> Any:
        before, mine = dict(self.memory), copy.copy(self)
        mine.memory, mine.turn = dict(before), asyncio.Lock()
        answer = await Agent.run(mine, action, arguments, run)
        if self.memory != before:
            raise Refused(Refusal.CONFLICT, "somebody else wrote meanwhile")
        self.memory.update(mine.memory)
        return answer


class Optimistic(ReferenceTarget):
    """Runs of one agent go on at once; of two that write, the second is refused and may try again."""

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        return _Versioned(recipe, context, dispatcher, session)


def test_a_conflict_and_another_try_serialise_updates_as_a_lock_does() -> None:
    result = run_check(UPDATES, target=Optimistic, in_process=True)
    assert result.outcome is Outcome.PASS, [result.verdict.reason, *map(str, result.verdict.findings[:3])]
    measured = {one.metric: one.value for one in result.measurements}
    assert measured["updates tried again after a conflict"] > 0
    assert measured["updates that succeeded"] == 100


class Store(ReferenceTarget):
    """A store behind a database: it makes, runs and ends, and has neither events nor counts nor parts to look at."""

    capabilities = frozenset({Capability.CREATE_ANEW, Capability.END, Capability.LOOKUP})


class ResurrectingStore(Store):
    """A session's memory is there again when the user comes back."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], dict[str, Any]] = {}

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        agent = super().make_agent(recipe, context, dispatcher, session)
        agent.memory = self.kept.setdefault((context.user, recipe.agent_type), agent.memory)
        return agent


@pytest.mark.parametrize(
    ("check", "left_out"),
    [
        ("user_session_cleanup_and_isolation", "the clients and events of those who leave and stay"),
        ("user_context_boundary_enforcement", "contexts, permissions, types and tools"),
        ("shared_state_contamination_detection", "the objects users can reach by references (the target lacks: parts)"),
    ],
)
def test_a_store_is_judged_by_the_parts_that_it_can_do(check: str, left_out: str) -> None:
    result = run_check(check, target=Store, in_process=True)
    assert result.outcome is Outcome.PASS, [result.verdict.reason, *map(str, result.verdict.findings[:3])]
    assert left_out in result.verdict.reason


class WithoutCleanups(ReferenceTarget):
    """Its agents have nothing to give back."""

    def register(self, recipe: Recipe, *, replace: bool = False) -> None:
        super().register(dataclasses.replace(recipe, on_cleanup=None), replace=replace)

    async def start(self, recipes: Sequence[Recipe], rows: Any, close_timeout: float) -> None:
        without = [dataclasses.replace(recipe, on_cleanup=None) for recipe in recipes]
        await super().start(without, rows, close_timeout)


@pytest.mark.parametrize(
    "check",
    [
        "concurrent_agent_registration_safety",
        "user_session_cleanup_and_isolation",
        "agent_lifecycle_management_per_user",
        "idle_and_over_age_session_ending",
        "adopted_agent_ownership",
    ],
)
def test_agents_without_cleanups_are_not_missed_where_cleanups_are_counted(check: str) -> None:
    result = run_check(check, target=WithoutCleanups, in_process=True)
    assert result.outcome is Outcome.PASS, [result.verdict.reason, *map(str, result.verdict.findings[:3])]
    # A pass does not claim that they were called.
    assert NO_CLEANUPS in result.verdict.reason


def test_resurrection_is_found_without_events_and_counts() -> None:
    result = run_check("user_session_cleanup_and_isolation", target=ResurrectingStore, in_process=True)
    assert {finding.anomaly for finding in result.verdict.findings} <= {"old-life-read", "old-life-wrote"}
    assert result.outcome is Outcome.FAIL
