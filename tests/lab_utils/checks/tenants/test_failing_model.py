"""A model that fails for one customer, in the process and over HTTP: what a target must have for it to be asked."""

from __future__ import annotations

from typing import Any

import pytest

from lab_utils.checks.tenants import often
from lab_utils.checks.tenants.failing_model import judge_failing_model
from lab_utils.checks.tenants.often import _Comparison
from lab_utils.standin import Fault, Misbehaviour
from lab_utils.target import Command, Recipe
from lab_utils.targets.agent_registry import AgentRegistryTarget
from lab_utils.trial import Trial
from registry import LLMFailed, LLMTimedOut
from tests.lab_utils.made import conducted


class NeverFails(AgentRegistryTarget):
    """Asks the scripted model, whatever is chosen, and by no plan."""

    def choose_model(self, over: str, plan: Any = None) -> str:
        return super().choose_model("scripted")


def test_a_target_that_asks_no_model_over_http_has_that_part_left_out() -> None:
    trial = Trial(NeverFails, {}, 1)
    conducted(trial, judge_failing_model(trial))
    assert trial.left_out == ["customers beside one whose model over HTTP fails: the target asks none over HTTP"]


class NoPlan(AgentRegistryTarget):
    def choose_model(self, over: str, plan: Any = None) -> str:
        return super().choose_model(over)


def test_a_server_that_never_fails_is_said_to_be_left_out() -> None:
    trial = Trial(NoPlan, {}, 1)
    conducted(trial, judge_failing_model(trial))
    assert trial.left_out == [
        "customers beside one whose model over HTTP fails: it did not fail where the plan says so"
    ]


def test_a_model_in_the_process_that_never_fails_is_said_to_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(often, "_WAYS", [way for way in often._WAYS if way.place == "model"])
    comparison = _Comparison(NeverFails, lambda _: None)
    assert comparison.whole() == ""
    assert comparison.left_out == [
        "others beside questions that the model failed: no model in the process failed",
        "others beside questions that were cancelled: no model in the process failed",
        "others beside questions that the model failed of each of 8 customers: no model in the process failed",
    ]


@pytest.mark.parametrize(
    ("fault", "error", "status"),
    [
        (Fault.RATE_LIMITED, LLMFailed, 429),
        (Fault.SERVER_ERROR, LLMFailed, 500),
        (Fault.CUT_OFF, LLMFailed, None),
        (Fault.MALFORMED, LLMFailed, None),
        (Fault.SILENT, LLMTimedOut, None),
    ],
)
async def test_the_scripted_model_fails_by_its_plan_for_one_user_alone(
    fault: Fault, error: type[LLMFailed], status: int | None
) -> None:
    target = AgentRegistryTarget()
    target.choose_model("scripted", lambda asked: Misbehaviour(fault) if asked.user == "ada" else None)
    await target.start([Recipe("helper")], {}, 5.0)
    ask = Command("ask", {"text": "how are you"})
    try:
        with pytest.raises(error) as met:
            await target.run(await target.create("ada", "helper"), ask)
        assert (type(met.value), met.value.status) == (error, status)
        assert await target.run(await target.create("bob", "helper"), ask) == 'You asked: "how are you"'
    finally:
        await target.stop()
