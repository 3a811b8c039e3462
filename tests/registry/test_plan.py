"""Plans as data: the valid steps and plans, the errors of invalid ones, and the plan that comes along."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from inline_snapshot import snapshot

from registry.agent import AgentResult
from registry.errors import PlanError
from registry.supervisor import GOLDEN_PATH, Plan, PlanResult, Step, StepOutcome, StepStatus
from tests.registry.refusing import Refusals


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


def test_steps_and_plans_that_cannot_be_are_refused_with_every_step_at_fault() -> None:
    refused, right = Refusals(), {"name": "a", "agent_type": "x"}
    wrong: dict[str, list[Any]] = {
        "name": ["", None],
        "agent_type": [3, " x"],
        "after": ["b"],
        "timeout": [0, -1.5, math.inf, math.nan, True, "5"],
        "text": [b"hi"],
    }
    for field, value in [(field, value) for field, values in wrong.items() for value in values]:
        made: dict[str, Any] = right | {field: value}
        refused.by(PlanError, partial(Step, **made))
    x = partial(Step, agent_type="x")
    plans: list[Any] = [
        (),
        (x("a"), 3),
        ("a",),
        (x("b"), x("a"), x("b"), Step("b", "y")),
        (x("a", after=("z",)),),
        (x("a"), x("b", after=("a", "a"))),
        (x("a", after=("a",)),),
        (x("c", after=("b",)), x("b", after=("o", "c")), x("o"), x("a", after=("b",))),
        (x("end", after=("a",)), x("a", after=("b",)), x("b", after=("a",))),
        (x("ok"), x("a", after=("c", "ok")), x("b", after=("a",)), x("c", after=("b",))),
        (x("b", after=("y",)), x("a", after=("z", "a")), x("a")),
    ]
    refused.by(PlanError, *(partial(Plan, steps) for steps in plans))
    assert refused.texts == snapshot(
        [
            "step name '' is empty; pass at least one character",
            "step name None is a NoneType; pass a str",
            "agent type 3 is a int; pass a str",
            "agent type ' x' begins or ends with white space; strip it where the id is made",
            "step 'a': after='b' is a single string; pass ('b',)",
            "step 'a': timeout=0 is not a positive number of seconds, nor None",
            "step 'a': timeout=-1.5 is not a positive number of seconds, nor None",
            "step 'a': timeout=inf is not a positive number of seconds, nor None",
            "step 'a': timeout=nan is not a positive number of seconds, nor None",
            "step 'a': timeout=True is not a positive number of seconds, nor None",
            "step 'a': timeout='5' is not a positive number of seconds, nor None",
            "step 'a': text is a bytes; pass a str",
            "a plan without steps does nothing; pass at least one Step",
            "3 is a int; a plan is made of Step values",
            "'a' is a str; a plan is made of Step values",
            "two steps are named 'b'",
            "step 'a' comes after 'z', which is not a step of the plan",
            "step 'b' names 'a' twice",
            "the steps wait for each other: 'a' after 'a'",
            "the steps wait for each other: 'b' after 'c' after 'b'",
            "the steps wait for each other: 'a' after 'b' after 'a'",
            "the steps wait for each other: 'a' after 'c' after 'b' after 'a'",
            "two steps are named 'a'; step 'b' comes after 'y', which is not a step of the plan; step 'a' comes after 'z', which is not a step of the plan",
        ]
    )


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


@pytest.mark.parametrize(
    "make",
    [
        lambda long: Plan((Step("a", "x", after=(long,)),)),
        lambda long: Plan((Step("a", "x", after=("b", long, long)), Step("b", "x"))),
        lambda long: Plan((Step("a", "x", after=tuple(f"{n}" for n in range(10_000))),)),
        lambda long: Plan((long,)),
        lambda long: Step("a", "x", after=long),
        lambda long: Step("a", "x", timeout=long),
    ],
)
def test_a_refusal_of_a_plan_is_short_whatever_the_plan_holds(make: Callable[[Any], Any]) -> None:
    with pytest.raises(PlanError) as caught:
        make("x" * 1_000_000)
    assert len(str(caught.value)) < 4_100
