"""The objects that `LLMManager` takes for a model."""

from __future__ import annotations

from typing import Any

import pytest

from registry import Completion, LLMManager, Prompt, ScriptedLLM


class Without:
    pass


class WithAnAttribute:
    complete = "yes"


class WithoutTurns(ScriptedLLM):
    for_user = "ada"


@pytest.mark.parametrize(
    ("llm", "words"),
    [
        (Without(), r"a Without without `async def complete\(prompt\)`$"),
        (WithAnAttribute(), r"a WithAnAttribute without `async def complete"),
        ("gpt", r"a str without `async def complete"),
        (0, r"a int without `async def complete"),
        (LLMManager(), r"a LLMManager without `async def complete.*an AgentRegistry takes it as it is"),
        (ScriptedLLM, r"the class ScriptedLLM; pass an object of it, as ScriptedLLM\(...\)"),
        (WithoutTurns(), r"WithoutTurns.for_user cannot be called; make it a method"),
    ],
)
def test_what_is_no_model_is_refused_when_the_manager_is_made(llm: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        LLMManager(llm)


def test_whatever_completes_is_a_model() -> None:
    class Lambda:
        complete = staticmethod(lambda prompt: Completion(prompt.text))

    class Turns(ScriptedLLM):
        def for_user(self, _: str) -> ScriptedLLM:
            return self

    for llm in (None, ScriptedLLM(), Turns(), Lambda()):
        assert "LLMManager" in repr(LLMManager(llm))  # type: ignore[arg-type]
    assert Lambda.complete(Prompt.of("a")).text == "a"
