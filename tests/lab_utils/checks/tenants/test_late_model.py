"""A model that answers one customer late: what a target that gives up may keep, and who is not blamed."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from lab_utils.checks.tenants import late_model
from lab_utils.checks.tenants.late_model import _Comparison
from lab_utils.target import Command, Handle
from lab_utils.targets.agent_registry import AgentRegistryTarget
from lab_utils.targets.planted.golden_path.prompts import Asking, Between
from lab_utils.targets.planted.tenants.late_answers import ModelTimeLimit
from registry import Completion, LLMTimedOut, Prompt, ScriptedLLM


def compared(make: Callable[[], Any]) -> _Comparison:
    comparison = _Comparison(make, lambda _: None)
    assert comparison.whole() == ""
    return comparison


def found(make: Callable[[], Any]) -> list[str]:
    return [finding.anomaly for finding in compared(make).findings]


def test_a_target_that_gives_up_and_keeps_nothing_passes() -> None:
    comparison = compared(ModelTimeLimit)
    assert not comparison.findings
    assert not comparison.left_out
    assert comparison.given_up == 1 + late_model._TIMES


def test_a_target_without_a_time_limit_waits_for_the_late_answer_and_passes() -> None:
    comparison = compared(AgentRegistryTarget)
    assert not comparison.findings
    assert not comparison.left_out
    assert comparison.observations > 0
    assert comparison.given_up == 0


class _Refusing(Between):
    """Once a user's question was given up, that user is refused for a while."""

    seconds: float

    def __init__(self, llm: Any) -> None:
        super().__init__(llm)
        self.refused_until: dict[str, float] = {}

    async def ask(self, user_id: str, prompt: Prompt) -> Completion:
        now = asyncio.get_running_loop().time
        if now() < self.refused_until.get(user_id, 0.0):
            raise LLMTimedOut("the model was too slow for you")
        try:
            async with asyncio.timeout(30.0):
                return await super().ask(user_id, prompt)
        except TimeoutError as error:
            self.refused_until[user_id] = now() + self.seconds
            raise LLMTimedOut("the model is too slow") from error


@pytest.mark.parametrize(("seconds", "expected"), [(3_000.0, []), (1e9, ["next-call-fails"])])
def test_a_user_may_be_refused_for_a_while_and_not_for_ever(seconds: float, expected: list[str]) -> None:
    class RefusingForAWhile(_Refusing):
        pass

    RefusingForAWhile.seconds = seconds

    class Target(Asking):
        between = RefusingForAWhile

    assert found(Target) == expected


def test_an_answer_that_wakes_nobody_is_a_question_that_never_ends() -> None:
    class Losing(Between):
        async def ask(self, user_id: str, prompt: Prompt) -> Completion:
            answering = asyncio.ensure_future(super().ask(user_id, prompt))
            done, _ = await asyncio.wait({answering}, timeout=30.0)
            if not done:
                await asyncio.Event().wait()
            return answering.result()

    class Target(Asking):
        between = Losing

    assert found(Target) == ["never-ends"]


def test_a_model_that_does_not_go_by_the_plan_is_left_out() -> None:
    class OwnModel(AgentRegistryTarget):
        def make_llm(self) -> Any:
            return ScriptedLLM()

    class NeverSlow(AgentRegistryTarget):
        def choose_model(self, over: str, plan: Any = None) -> str:
            return super().choose_model(over, lambda asked: plan(asked) and None)

    for make in (OwnModel, NeverSlow):
        comparison = compared(make)
        assert comparison.findings == []
        assert comparison.observations == 0
        (text,) = comparison.left_out
        assert "does not go by the lab's plan, or the target answers in its place" in text


def test_a_target_that_never_answers_twice_the_same_is_not_blamed_for_it() -> None:
    class Dated(AgentRegistryTarget):
        numbers = itertools.count()

        async def run(self, handle: Handle, command: Command) -> Any:
            return f"answer {next(self.numbers)}: {await super().run(handle, command)}"

    comparison = compared(Dated)
    assert comparison.findings == []
    assert any("from history to history" in text for text in comparison.left_out)


def test_a_slow_target_is_left_out_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late_model, "seconds_a_call", lambda *_: 0.5)
    comparison = compared(ModelTimeLimit)
    assert comparison.observations == 0
    assert "a call takes 0.5 s" in comparison.left_out[0]
