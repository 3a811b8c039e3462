"""On a target whose calls take long, a check asks users at once where it may, or asks fewer and says so; it still finds
what is planted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from lab_utils.checks.limits_and_time.asking import live
from lab_utils.checks.tenants import protection, succession
from lab_utils.checks.tenants.counted_cost import judge_cost_of_ending
from lab_utils.target import Command, Handle, Recipe, Target
from lab_utils.targets import PLANTED, make_target
from lab_utils.targets.reference import ReferenceTarget
from lab_utils.trial import Trial
from lab_utils.values.verdict import Outcome, Verdict
from tests.lab_utils.made import conducted

# Those whose finding depends on no address that is given again.
RECYCLED = (
    "MemoryPooledAfterFailure",
    "MemoryPartlyEmptied",
    "MemoryGivenBackTwice",
    "RowsUsedAgain",
    "AgentNumbersGivenAgain",
)
FEW: dict[str, Any] = {"users": 13, "records_per_user": 3, "transport": "inprocess", "llm": "scripted"}


def judged(part: Any, make: Callable[[], Target], *, is_hasty: bool = False) -> tuple[Verdict, str]:
    """The verdict of this part alone, and what it left out."""
    trial = Trial(make, FEW, 5, stuck_after=10.0, is_hasty=is_hasty)
    verdict = conducted(trial, part(trial))
    return verdict, "; ".join(trial.left_out)


@pytest.mark.parametrize("name", ["reference", *RECYCLED])
def test_six_crowds_of_users_who_come_for_a_moment_are_enough(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(succession, "_LONGEST_S", -1.0)
    verdict, left_out = judged(succession.judge_successors, lambda: make_target(name), is_hasty=name in PLANTED)
    found = {finding.anomaly for finding in verdict.findings}
    if name == "reference":
        assert verdict.outcome is Outcome.PASS, verdict
        assert "32 of 80 users who come for a moment, for want of time" in left_out
    else:
        assert found & PLANTED[name].anomalies


@pytest.mark.parametrize("name", ["reference", "SharedToolCache", "GlobalEventNumbers"])
def test_a_customer_of_each_tier_is_watched_at_least(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protection, "_LONGEST_S", -1.0)
    verdict, left_out = judged(protection.body, lambda: make_target(name), is_hasty=name in PLANTED)
    assert "what 4 of 7 customers observe, for want of time" in left_out
    if name == "reference":
        assert verdict.outcome is Outcome.PASS, verdict
    else:
        assert {finding.anomaly for finding in verdict.findings} & PLANTED[name].anomalies


class CreatesOfTwenty(ReferenceTarget):
    """Knows how many creates were under way at once."""

    most = under_way = 0

    async def create(self, user: str, *arguments: Any, **options: Any) -> Handle:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await asyncio.sleep(0)
            return await super().create(user, *arguments, **options)
        finally:
            self.under_way -= 1


def test_the_many_beside_whom_a_user_leaves_come_twenty_at_a_time() -> None:
    target = CreatesOfTwenty()
    verdict, _ = judged(judge_cost_of_ending, lambda: target)
    assert verdict.outcome is Outcome.PASS, verdict
    assert target.most == 20


class RunsOfTwo(ReferenceTarget):
    """A run ends once a run of another user is under way."""

    def __init__(self) -> None:
        super().__init__()
        self.both = asyncio.Barrier(2)

    async def run(self, handle: Handle, command: Command) -> Any:
        await self.both.wait()
        return await super().run(handle, command)


async def test_agents_of_several_users_are_asked_at_once_whether_they_live() -> None:
    trial = Trial(RunsOfTwo, {}, 5, stuck_after=10.0)
    target = await trial.target([Recipe("helper"), Recipe("analyst")])
    handles = [await target.create(user, kind) for user in ("ada", "bob") for kind in ("helper", "analyst")]
    assert await live(trial, target, handles) == handles
    await trial.stop(target)
