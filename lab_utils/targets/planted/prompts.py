"""Defects of what a model is told."""

from __future__ import annotations

from collections import deque
from typing import Any

from lab_utils.targets.agent_registry import AgentRegistryTarget
from lab_utils.targets.planted.base import Planted
from registry import Completion, Message, Prompt

__all__ = ["PLANTED"]


class _Remembering:
    """A model that is told the last prompts again, so that it can follow a conversation: everybody's."""

    def __init__(self, llm: Any) -> None:
        self.llm = llm
        self.history: deque[Message] = deque(maxlen=4)

    def for_user(self, user_id: str) -> _Conversation:
        return _Conversation(self.llm.for_user(user_id), self.history)


class _Conversation:
    def __init__(self, llm: Any, history: deque[Message]) -> None:
        self.llm = llm
        self.history = history

    async def complete(self, prompt: Prompt) -> Completion:
        told = Prompt((*self.history, *prompt.messages))
        self.history.extend(message for message in prompt.messages if message.role == "user")
        completion: Completion = await self.llm.complete(told)
        return completion


class PromptHistoryShared(AgentRegistryTarget):
    """The model's history of prompts is one list for all users."""

    llm_over = "http"

    def make_llm(self) -> Any:
        return _Remembering(super().make_llm())


def _planted(make: type[AgentRegistryTarget], *anomalies: str) -> Planted:
    return Planted(make.__name__, (make.__doc__ or "").strip(), frozenset(anomalies), make, "agent_registry")


PLANTED = (_planted(PromptHistoryShared, "cross-user-prompt"),)
