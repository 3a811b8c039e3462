"""Plans as data: what a step and a plan may be, what is said of those that cannot be, and the plan that comes along."""

from __future__ import annotations

import math
from typing import Any

import pytest

from registry.agent import AgentResult
from registry.errors import PlanError
from registry.supervisor import GOLDEN_PATH, Plan, PlanResult, Step, StepOutcome, StepStatus


def test_the_golden_path_is_triage_data_optimization_beside_goals_actions_reporting() -> None:
    assert {step.name: step.after for step in GOLDEN_PATH.steps} == {
        "triage": (),
        "data_helper": ("triage",),
        "optimization": ("triage", "data_helper"),
        "goals_triage": ("triage", "data_helper"),
        "actions": ("optimization", "goals_triage"),
        "reporting": ("data_helper", "optimization", "goals_triage", "actions"),
    }
    assert all((step.agent_type, step.timeout, step.text) == (step.name, None, "") for step in GOLDEN_PATH.steps)


def test_a_step_needs_a_name_and_an_agent_type_and_no_more() -> None:
    step = Step("a", "x")
    assert (step.after, step.timeout, step.text) == ((), None, "")
    assert Step("a", "x", after=["b", "c"]).after == ("b", "c")  # type: ignore[arg-type]
    assert [Step("a", "x", timeout=limit).timeout for limit in (1, 0.001)] == [1, 0.001]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": ""}, "step name '' is empty; pass at least one character"),
        ({"agent_type": 3}, "agent type 3 is a int; pass a str"),
        ({"after": "b"}, "step 'a': after='b' is a single string; pass ('b',)"),
        ({"timeout": 0}, "step 'a': timeout=0 is not a positive number of seconds, nor None"),
        ({"timeout": -1.5}, "step 'a': timeout=-1.5 is not a positive number of seconds, nor None"),
        ({"timeout": math.inf}, "step 'a': timeout=inf is not a positive number of seconds, nor None"),
        ({"timeout": math.nan}, "step 'a': timeout=nan is not a positive number of seconds, nor None"),
        ({"timeout": True}, "step 'a': timeout=True is not a positive number of seconds, nor None"),
        ({"text": b"hi"}, "step 'a': text is a bytes; pass a str"),
    ],
)
def test_a_step_that_cannot_be_is_refused_in_one_sentence(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(PlanError) as refused:
        Step(**({"name": "a", "agent_type": "x"} | fields))
    assert str(refused.value) == words


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ((), "a plan without steps does nothing; pass at least one Step"),
        ((Step("a", "x"), 3), "3 is a int; a plan is made of Step values"),
        ((Step("b", "x"), Step("a", "x"), Step("b", "x"), Step("b", "y")), "two steps are named 'b'"),
        ((Step("a", "x", after=("z",)),), "step 'a' comes after 'z', which is no step of the plan"),
        ((Step("a", "x"), Step("b", "x", after=("a", "a"))), "step 'b' names 'a' twice"),
        ((Step("a", "x", after=("a",)),), "the steps wait for each other: 'a' after 'a'"),
        (
            (Step("c", "x", after=("b",)), Step("b", "x", after=("o", "c")), Step("o", "x"), Step("a", "x", ("b",))),
            "the steps wait for each other: 'b' after 'c' after 'b'",
        ),
        (
            (Step("b", "x", after=("y",)), Step("a", "x", after=("z", "a")), Step("a", "x")),
            (
                "two steps are named 'a'; step 'b' comes after 'y', which is no step of the plan; "
                "step 'a' comes after 'z', which is no step of the plan"
            ),
        ),
    ],
)
def test_a_plan_that_cannot_be_is_refused_with_every_step_at_fault(steps: Any, words: str) -> None:
    with pytest.raises(PlanError) as refused:
        Plan(steps)
    assert str(refused.value) == words


def test_a_plan_of_a_list_is_a_plan_of_a_tuple() -> None:
    assert Plan([Step("a", "x")]) == Plan((Step("a", "x"),))  # type: ignore[arg-type]


def test_the_words_for_how_a_step_ended() -> None:
    assert [str(status) for status in StepStatus] == ["completed", "failed", "timed_out", "cancelled", "skipped"]


def a_result(output: Any) -> AgentResult:
    return AgentResult("x", "agent-1", "r", output)


def test_results_are_those_of_the_completed_steps_and_cannot_be_changed() -> None:
    done, nothing = a_result(3), a_result(None)
    result = PlanResult(
        (
            StepOutcome("a", "x", StepStatus.COMPLETED, 1.0, 2.0, done),
            StepOutcome("b", "x", StepStatus.COMPLETED, 1.0, 2.0, nothing),
            StepOutcome("c", "x", StepStatus.SKIPPED),
        ),
        ("a", "b"),
        ("b", "a"),
    )
    assert (dict(result.results), dict(result.outputs)) == ({"a": done, "b": nothing}, {"a": 3, "b": None})
    skipped = result["c"]
    assert (skipped.started, skipped.finished, skipped.result, skipped.error) == (None, None, None, "")
    for mapping in (result.results, result.outputs):
        with pytest.raises(TypeError):
            mapping["a"] = 1  # type: ignore[index]
    with pytest.raises(KeyError, match=r"^'d'$"):
        result["d"]
