"""Defects of a model's prompts, of the user in whose name they go, and of its answers and failures."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from lab_utils.targets.agent_registry import AgentRegistryTarget
from lab_utils.targets.planted.base import Planted
from registry import Completion, LLMFailed, Message, Prompt

__all__ = ["PLANTED"]


class _Between:
    """Stands between all agents and the model, as a team's own module for its prompts does."""

    def __init__(self, llm: Any) -> None:
        self.llm = llm

    def for_user(self, user_id: str) -> _Call:
        return _Call(self, user_id)

    async def ask(self, user_id: str, prompt: Prompt) -> Completion:
        """Ask in this user's name."""
        completion: Completion = await self.llm.for_user(user_id).complete(prompt)
        return completion


class _Call:
    def __init__(self, between: _Between, user_id: str) -> None:
        self.between = between
        self.user_id = user_id

    async def complete(self, prompt: Prompt) -> Completion:
        return await self.between.ask(self.user_id, prompt)


class _OverHTTP(AgentRegistryTarget):
    """Always asks over HTTP: the defect is in the messages."""

    llm_over = "http"
    between: type[_Between]

    def choose_model(self, over: str, plan: Any = None) -> str:
        return super().choose_model("http", plan)

    def make_llm(self) -> Any:
        return self.between(super().make_llm())


class _Remembering(_Between):
    """Sends the model the last prompts again, so that it can follow a conversation: everybody's."""

    def __init__(self, llm: Any) -> None:
        super().__init__(llm)
        self.history: deque[Message] = deque(maxlen=4)

    async def ask(self, user_id: str, prompt: Prompt) -> Completion:
        told = Prompt((*self.history, *prompt.messages))
        self.history.extend(message for message in prompt.messages if message.role == "user")
        return await super().ask(user_id, told)


class PromptHistoryShared(_OverHTTP):
    """The model's history of prompts is one list for all users."""

    between = _Remembering


class _Naming(_Between):
    first = ""

    async def ask(self, user_id: str, prompt: Prompt) -> Completion:
        self.first = self.first or user_id
        return await super().ask(self.first, prompt)


class FirstUsersName(_OverHTTP):
    """The client of the model is made for the first user, and asks in that user's name for all."""

    between = _Naming


class _Caching(_Between):
    def __init__(self, llm: Any) -> None:
        super().__init__(llm)
        self.answers: dict[str, Completion] = {}

    async def ask(self, user_id: str, prompt: Prompt) -> Completion:
        head = prompt.messages[-1].content[:40]
        if head not in self.answers:
            self.answers[head] = await super().ask(user_id, prompt)
        return self.answers[head]


class AnswersCachedByHead(_OverHTTP):
    """The model's answers are cached by the first 40 letters of the prompt."""

    between = _Caching


class _Retrying(_Between):
    prompt: Prompt

    async def ask(self, user_id: str, prompt: Prompt) -> Completion:
        self.prompt = prompt
        for _ in range(3):
            try:
                return await super().ask(user_id, self.prompt)
            except LLMFailed:
                await asyncio.sleep(0.001)
        return await super().ask(user_id, self.prompt)


class RetriesLastPrompt(_OverHTTP):
    """A call is tried again with the prompt that was sent last, by any user."""

    between = _Retrying
    llm_options: Mapping[str, Any] = MappingProxyType({"max_retries": 0})


class _Keeping(_Between):
    def __init__(self, llm: Any) -> None:
        super().__init__(llm)
        self.unanswered: list[Message] = []

    async def ask(self, user_id: str, prompt: Prompt) -> Completion:
        told = Prompt((*self.unanswered, *prompt.messages))
        self.unanswered.clear()
        try:
            return await super().ask(user_id, told)
        except LLMFailed:
            self.unanswered += [message for message in prompt.messages if message.role == "user"]
            raise


class FailedPromptKept(_OverHTTP):
    """The messages of a call that failed stay in the buffer, and go out with the next call of any user."""

    between = _Keeping


class _Tracing(_Between):
    """Sends the prompt before along, so that who reads the provider's log can follow a conversation: everybody's."""

    previous = ""

    async def ask(self, user_id: str, prompt: Prompt) -> Completion:
        if self.previous:
            self.llm._options = {"metadata": {"previous_prompt": self.previous[-512:]}}
        self.previous = prompt.text
        return await super().ask(user_id, prompt)


class PreviousPromptInMetadata(_OverHTTP):
    """A call carries the previous call's prompt, of any user, in a field beside the messages."""

    between = _Tracing


class _Hiding(_Between):
    async def ask(self, user_id: str, prompt: Prompt) -> Completion:
        try:
            return await super().ask(user_id, prompt)
        except LLMFailed:
            return Completion("")


class FailureAnswersNothing(_OverHTTP):
    """A failed call answers with an empty text, and the run goes on as if it had succeeded."""

    between = _Hiding


class _Hasty(_Between):
    """Speaks with the endpoint by the client library's own stream."""

    async def ask(self, user_id: str, prompt: Prompt) -> Completion:
        client: Any = self.llm._client.with_options(max_retries=3)
        asked = [{"role": message.role, "content": message.content} for message in prompt.messages]
        text = ""
        try:
            stream = await client.chat.completions.create(
                model=self.llm.model, messages=asked, stream=True, user=user_id
            )
            async with stream:
                async for chunk in stream:
                    text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
        except Exception as error:
            if not text:
                raise LLMFailed(str(error)) from None
        return Completion(text)


class PartTakenForWhole(_OverHTTP):
    """The part of an answer that arrived before it broke off is taken for the whole."""

    between = _Hasty


def _planted(make: type[AgentRegistryTarget], *anomalies: str) -> Planted:
    return Planted(make.__name__, (make.__doc__ or "").strip(), frozenset(anomalies), make, "agent_registry")


PLANTED = (
    _planted(PromptHistoryShared, "cross-user-prompt"),
    _planted(FirstUsersName, "cross-user-prompt"),
    _planted(RetriesLastPrompt, "cross-user-prompt"),
    _planted(FailedPromptKept, "cross-user-prompt"),
    _planted(PreviousPromptInMetadata, "cross-user-prompt"),
    _planted(AnswersCachedByHead, "cross-user-data"),
    _planted(FailureAnswersNothing, "failure-hidden"),
    _planted(PartTakenForWhole, "differs-by-model"),
)
