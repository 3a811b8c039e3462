"""A model over HTTP that is left in the middle of its answer: right targets, and those that ask none."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import MappingProxyType, ModuleType
from typing import Any

import pytest

from lab_utils.checks.isolation import left_model, left_socket, scene
from lab_utils.checks.isolation.left_model import judge_left_model
from lab_utils.checks.isolation.scene import users_of
from lab_utils.checks.registration.teardown import RUNS
from lab_utils.runner import run_check
from lab_utils.target import Capability, Command, Handle, Refusal, Refused
from lab_utils.targets import make_target
from lab_utils.targets.agent_registry import AgentRegistryTarget
from lab_utils.trial import Trial
from lab_utils.values.verdict import Outcome
from registry import Prompt
from tests.lab_utils.made import conducted

CAREFUL = "lab_utils.targets.planted.isolation.over_http:ConnectionClosedWhenLeft"


@pytest.mark.parametrize("seed", [1, 2])
def test_a_connection_that_is_closed_when_it_is_left_has_nothing_to_find(seed: int) -> None:
    trial = Trial(lambda: make_target(CAREFUL), {}, seed, stuck_after=10.0)
    verdict = conducted(trial, judge_left_model(trial))
    assert verdict.outcome is not Outcome.FAIL, verdict.findings[:2]


NUMBERED = "lab_utils.targets.planted.isolation.over_http:QuestionsNumbered"
EQUAL = "lab_utils.targets.planted.isolation.over_http:EqualQuestionsAreOne"
FOUND = {
    "AnswersInTheMailbox": {"wrong-answer"},
    "QuestionsNumberedAnew": {"old-life-read"},
    "EqualQuestionsCancelled": {"cancelled-others"},
    "PlaceAtTheModelKept": {"next-call-fails"},
}


@pytest.mark.parametrize("target", [NUMBERED, EQUAL, *FOUND])
def test_who_left_a_question_is_given_the_answer_to_the_next_one(target: str) -> None:
    trial = Trial(lambda: make_target(target), {}, 1, stuck_after=10.0)
    verdict = conducted(trial, judge_left_model(trial))
    assert {finding.anomaly for finding in verdict.findings} == FOUND.get(target, set()), verdict.findings[:2]


class WithoutEnd(AgentRegistryTarget):
    """It has no call for the end of a session."""

    capabilities = AgentRegistryTarget.capabilities - {Capability.END}


def test_a_target_without_an_end_is_left_by_cancellation_alone() -> None:
    trial = Trial(WithoutEnd, {}, 1, stuck_after=10.0)
    verdict = conducted(trial, judge_left_model(trial))
    assert verdict.outcome is Outcome.PASS, verdict.findings[:2]


class LeavesRunsToTheApp(AgentRegistryTarget):
    """A store of sessions and agents. Runs are the app's, which asks the model itself."""

    capabilities = AgentRegistryTarget.capabilities - RUNS

    async def run(self, handle: Handle, command: Command) -> Any:
        if command.action != "ask":
            return await super().run(handle, command)
        return (await self.llm.for_user(handle.user).complete(Prompt.of(command.arguments["text"]))).text


def test_a_question_that_the_end_leaves_to_the_app_is_cancelled_by_the_app() -> None:
    trial = Trial(LeavesRunsToTheApp, {}, 1, stuck_after=5.0)
    verdict = conducted(trial, judge_left_model(trial))
    assert verdict.outcome is Outcome.PASS, verdict.findings[:2]


class WithoutModel(AgentRegistryTarget):
    """Its model cannot be asked over HTTP."""

    def choose_model(self, over: str, plan: Any = None) -> str:
        return super().choose_model("scripted")


@pytest.mark.parametrize(
    ("module", "missing"),
    [(left_model, "_question"), (left_socket, "Observed"), (scene, "canary")],
    ids=["model", "socket", "scene"],
)
def test_a_mistake_of_the_check_itself_is_no_error_of_the_target(
    module: ModuleType, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(module, missing)
    result = run_check("interrupted_calls_leave_nothing_to_others", in_process=True)
    assert result.verdict.outcome is Outcome.UNKNOWN
    assert f"the check crashed: NameError: name '{missing}' is not defined" in result.verdict.reason
    assert f"{module.__name__.rpartition('.')[2]}.py" in result.traceback


def test_a_target_that_asks_no_model_over_http_has_that_part_left_out() -> None:
    trial = Trial(WithoutModel, {}, 1)
    conducted(trial, judge_left_model(trial))
    assert trial.left_out == ["a model that is left in the middle of its answer: the target asks none over HTTP"]


class Whole(AgentRegistryTarget):
    """The model's answers come whole, and not in pieces."""

    llm_options: Mapping[str, Any] = MappingProxyType({"stream": False})


def test_answers_that_come_whole_are_left_as_well() -> None:
    trial = Trial(Whole, {}, 3, stuck_after=10.0)
    verdict = conducted(trial, judge_left_model(trial))
    assert verdict.outcome is Outcome.PASS, verdict.findings[:2]
    assert {measured.metric: measured.value for measured in trial.measurements}[
        "questions after a model was left"
    ] == 32


class RefusesAfterManyAreLeft(AgentRegistryTarget):
    """A user who has left ten questions is refused more for a while."""

    left = refused = 0

    async def run(self, handle: Handle, command: Command) -> Any:
        if command.action == "ask" and self.left >= 10 and handle.user == users_of(1)[0]:
            type(self).refused += 1
            raise Refused(Refusal.CAPACITY, "ten questions were left")
        try:
            return await super().run(handle, command)
        except asyncio.CancelledError:
            self.left += 1
            raise


def test_a_user_may_be_refused_for_a_while_after_leaving_many_questions() -> None:
    trial = Trial(RefusesAfterManyAreLeft, {}, 1, stuck_after=5.0)
    verdict = conducted(trial, judge_left_model(trial))
    assert verdict.outcome is Outcome.PASS, verdict.findings[:2]
    # The last one came when all had been left.
    assert RefusesAfterManyAreLeft.refused > 1
