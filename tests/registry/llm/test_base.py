"""The model behind its protocol, its manager, and the handle that is all an agent gets of it."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
from typing import Any

import pytest
from inline_snapshot import snapshot

from registry.context import UserExecutionContext, managed_user_context
from registry.errors import SessionClosed
from registry.llm.base import Completion, LLMHandle, LLMManager, Message, Prompt, ScriptedLLM
from tests.registry.refusing import Refusals


class RecordingLLM:
    """Answers with its question, and waits at a gate if it has one."""

    def __init__(self, gate: asyncio.Event | None = None) -> None:
        self.asked: list[Prompt] = []
        self.reached = asyncio.Event()
        self.gate = gate

    async def complete(self, prompt: Prompt) -> Completion:
        self.asked.append(prompt)
        self.reached.set()
        if self.gate is not None:
            await self.gate.wait()
        return Completion(prompt.messages[-1].content, tokens_in=7, tokens_out=3, model="recording")


def user(content: str) -> Message:
    return Message("user", content)


def scripted(*messages: Message) -> str:
    return asyncio.run(ScriptedLLM().complete(Prompt(messages))).text


async def test_the_same_prompt_gives_the_same_completion_whoever_asked_before() -> None:
    prompt = Prompt.of("Usage:\n- calls: 12\n- cost: 3.50 USD", system="Word the figures.")
    shared = ScriptedLLM()
    first = await shared.complete(prompt)
    await shared.complete(Prompt.of("Usage:\n- calls: 99", system="Word the figures."))
    assert first == await shared.complete(prompt) == await ScriptedLLM().complete(prompt)
    assert first == Completion("Usage: calls is 12; cost is 3.50 USD.", 11, 8, "scripted")
    assert not hasattr(shared, "__dict__"), "it has no place to keep anything"
    assert gc.get_referents(shared) in ([], [ScriptedLLM])


SYSTEM, ASSISTANT = Message("system", "- a: 0"), Message("assistant", "- b: 0")


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ((user("- ft:large:v2: 4 calls"),), "ft:large:v2 is 4 calls."),
        ((user("- model x\u2028- cost: 0"),), "model x\u2028- cost is 0."),
        (
            (SYSTEM, user("  One.: \n  -  x : 1 \n- y: 2\n\n- z: 3"), ASSISTANT, user("- w: 4")),
            "One: x is 1; y is 2. z is 3. w is 4.",
        ),
        ((SYSTEM, user("  how much\n did I spend? ")), 'You asked: "how much did I spend?"'),
        ((user("   "),), "Noted."),
        ((Message("system", "only rules"),), 'You asked: "only rules"'),
        ((user("x" * 200),), f'You asked: "{"x" * 200}"'),
        ((user("x" * 201),), f'You asked: "{"x" * 197}..."'),
        ((user("first"), user("last")), 'You asked: "last"'),
        ((Message("system", "rules"), Message("assistant", "me")), 'You asked: "me"'),
    ],
)
def test_figures_of_users_are_worded_and_a_prompt_without_any_is_acknowledged(
    messages: tuple[Message, ...], text: str
) -> None:
    assert scripted(*messages) == text


async def test_a_handle_counts_its_own_calls_and_tokens() -> None:
    manager = LLMManager(RecordingLLM())
    ada = manager.create_handle(UserExecutionContext("ada"))
    bob = manager.create_handle(UserExecutionContext("bob"))
    for _ in range(3):
        await ada.complete(Prompt.of("hello"))
    await bob.complete(Prompt.of("hello"))
    assert (ada.calls, ada.tokens_in, ada.tokens_out) == (3, 21, 9)
    assert (bob.calls, bob.tokens_in, bob.tokens_out) == (1, 7, 3)
    assert ada.user_context.user_id == "ada"
    assert repr(ada) == "<LLMHandle user='ada' calls=3>"


async def test_a_model_is_told_the_prompt_and_nothing_about_the_user() -> None:
    llm = RecordingLLM()
    context = UserExecutionContext("ada", agent_context={"secret": "canary"})
    prompt = Prompt.of("hello")
    await LLMManager(llm).create_handle(context).complete(prompt)
    assert llm.asked == [prompt]


async def test_a_closed_context_refuses_the_call_before_the_model_hears_of_it() -> None:
    llm = RecordingLLM()
    async with managed_user_context("ada") as context:
        handle = LLMManager(llm).create_handle(context)
        await handle.complete(Prompt.of("in time"))
    with pytest.raises(SessionClosed):
        await handle.complete(Prompt.of("too late"))
    with pytest.raises(SessionClosed):
        LLMManager(llm).create_handle(context)
    assert [prompt.text for prompt in llm.asked] == ["in time"]


async def test_an_answer_that_arrives_after_the_end_is_not_delivered() -> None:
    llm = RecordingLLM(gate=asyncio.Event())
    async with managed_user_context("ada") as context:
        handle = LLMManager(llm).create_handle(context)
        asked = asyncio.create_task(handle.complete(Prompt.of("slow")))
        await llm.reached.wait()
    assert llm.gate is not None
    llm.gate.set()
    with pytest.raises(SessionClosed):
        await asked
    assert (handle.calls, handle.tokens_in) == (1, 0)


def test_prompts_are_checked_frozen_values() -> None:
    prompt = Prompt.of("question", system="rules")
    assert prompt.messages == (Message("system", "rules"), Message("user", "question"))
    assert prompt == Prompt([Message("system", "rules"), Message("user", "question")])  # type: ignore[arg-type]
    assert prompt.text == "rules\nquestion"
    assert len(Prompt.of("alone").messages) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        prompt.messages = ()  # type: ignore[misc]


async def test_what_is_no_message_no_prompt_and_no_answer() -> None:
    class Mute:
        async def complete(self, prompt: Prompt) -> Any:
            return 7

    refused, handle = Refusals(), LLMManager(Mute()).create_handle(UserExecutionContext("ada"))
    robot: Any = "robot"
    three: Any = 3
    refused.by(ValueError, lambda: Message(robot, "x"), lambda: Prompt(()))
    refused.by(TypeError, lambda: Message("system", three), lambda: Prompt((robot,)))
    await refused.awaited(TypeError, handle.complete(robot))
    assert handle.calls == 0
    await refused.awaited(TypeError, handle.complete(Prompt.of("hello")))
    assert (handle.calls, handle.tokens_in, handle.tokens_out) == (1, 0, 0)
    assert refused.texts == snapshot(
        [
            "role 'robot' is unknown; use one of system, user, assistant",
            "a prompt without messages asks nothing; pass at least one Message",
            "the content of a system message is an int; pass a str",
            "a prompt's messages are Message values, not str",
            "complete() takes a Prompt, not a str; Prompt.of(text) makes one",
            "Mute answered with an int, no Completion",
        ]
    )
    assert [repr(LLMManager(Mute())), repr(LLMManager())] == snapshot(["<LLMManager Mute>", "<LLMManager ScriptedLLM>"])
    assert [Message(role, "").role for role in ("system", "user", "assistant")] == ["system", "user", "assistant"]


async def test_a_model_that_tells_users_apart_is_told_whose_call_it_is_at_each_call() -> None:
    class Fair:
        def __init__(self) -> None:
            self.asked: list[str] = []

        def for_user(self, user_id: str) -> ScriptedLLM:
            self.asked.append(user_id)
            return ScriptedLLM()

        async def complete(self, prompt: Prompt) -> Completion:
            raise AssertionError("nobody's call")

    llm = Fair()
    handle = LLMHandle(llm, UserExecutionContext("ada"))
    for _ in range(2):
        assert (await handle.complete(Prompt.of("- a: 1"))).text == "a is 1."
    assert llm.asked == ["ada", "ada"]


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
        (0, r"an int without `async def complete"),
        (LLMManager(), r"a LLMManager without `async def complete.*an AgentRegistry takes it as it is"),
        (ScriptedLLM, r"the class ScriptedLLM; pass an object of it, as ScriptedLLM\(...\)"),
        (WithoutTurns(), r"WithoutTurns.for_user cannot be called; make it a method"),
    ],
)
def test_what_is_no_model_is_refused_when_the_manager_is_made(llm: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        LLMManager(llm)
