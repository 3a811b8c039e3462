"""With many users only some of them do the most expensive work, and the result says so; a fault that only the many show
is still found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lab_utils.checks.events import talking
from lab_utils.checks.golden_path import whole_flow
from lab_utils.checks.isolation import leaks
from lab_utils.runner import run_check
from lab_utils.target import Handle, Target
from lab_utils.targets import PLANTED
from lab_utils.targets.agent_registry import AgentRegistryTarget
from lab_utils.values.result import CheckResult
from lab_utils.values.verdict import Outcome

pytest.importorskip("uvicorn")
pytest.importorskip("websockets")

FACTORIES = "factory_pattern_memory_leak_prevention_under_load"
LIFECYCLE = "websocket_connection_lifecycle_management"
FEW, MANY = ({"users": users, "agents_per_user": 1, "cycles": 4} for users in (3, 5))


@pytest.fixture(autouse=True)
def few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(talking, "_SOME", 3)
    monkeypatch.setattr(whole_flow, "_MOST_AT_ONCE", 3)


def run(check: str, target: Any = "agent_registry", **parameters: int) -> CheckResult:
    return run_check(check, target=target, parameters=parameters, in_process=True)


def made_in_small_cycles(make: Callable[[], Target], parameters: dict[str, int]) -> CheckResult:
    """In a process of its own: a test session's million objects would be counted with every cycle."""

    def made() -> Target:
        leaks._IN_A_CYCLE = leaks._LEAST_IN_A_CYCLE = 3
        return make()

    return run_check(FACTORIES, target=made, parameters=parameters)


def measured(result: CheckResult) -> dict[str, float]:
    return {one.metric: one.value for one in result.measurements}


@pytest.mark.parametrize(
    ("check", "left_out"),
    [
        (
            "bridge_communication_validation_per_user",
            "that a text of 70,000 characters arrives with more than 3 of the 5 users",
        ),
        (LIFECYCLE, "that clients drop and come back, and servers and processes restart, with more than 3 of the 5"),
        ("complete_agent_orchestration_flow_per_user", "that more than 3 of the 5 flows are under way at once"),
    ],
)
def test_what_some_of_the_users_do_is_left_out_of_the_claim_about_the_others(check: str, left_out: str) -> None:
    many, few = run(check, users=5), run(check, users=3)
    assert [many.outcome, few.outcome] == [Outcome.PASS] * 2
    assert left_out in many.claim
    assert left_out in many.verdict.reason
    assert "left out" not in few.verdict.reason


def test_a_defect_of_connections_is_found_among_many() -> None:
    assert run(LIFECYCLE, "ForgetsMissed", users=5).outcome is Outcome.FAIL


def test_all_users_come_at_once_after_the_cycles_of_a_few() -> None:
    many = measured(made_in_small_cycles(AgentRegistryTarget, MANY))
    assert many["agents of all users at once"] == 5
    assert many["freed by reference counting when all users had come at once"] == 1.0


def test_a_leak_of_each_agent_is_found_among_many() -> None:
    assert made_in_small_cycles(PLANTED["FactoryClosureKeeps"].make, MANY).outcome is Outcome.FAIL


class KeptInACrowd(AgentRegistryTarget):
    """Keeps an agent that is made while more than four users are there: three in a cycle, and the anchor."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Any] = []

    async def create(self, user: str, agent_type: str, *args: Any, **options: Any) -> Handle:
        handle = await super().create(user, agent_type, *args, **options)
        if self.population().sessions > 4:
            self.kept.append(handle.native)
        return handle


def test_what_only_a_crowd_leaves_is_found() -> None:
    result = made_in_small_cycles(KeptInACrowd, MANY)
    assert {finding.anomaly for finding in result.verdict.findings} >= {"retained-object"}
    few = made_in_small_cycles(KeptInACrowd, FEW)
    assert few.outcome is Outcome.PASS
    assert "agents of all users at once" not in measured(few)
