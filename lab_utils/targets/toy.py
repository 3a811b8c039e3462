"""A toy backend of thirty lines with a leak, the adapter that shows it, and the same without the leak."""

from __future__ import annotations

import copy
from typing import Any

from lab_utils.target import BaseTarget, Command, Handle, Refusal, Refused
from lab_utils.targets.lab_agent import obey

__all__ = ["Backend", "Chat", "ChatTarget", "FixedChat", "FixedChatTarget"]


class Chat:
    """One user's chat, with its messages."""

    def __init__(self, user: str, notes: dict[str, Any] = {}) -> None:  # noqa: B006, the leak: one dict for all chats
        self.user = user
        self.notes = notes


class FixedChat(Chat):
    """A chat whose notes are its own."""

    def __init__(self, user: str) -> None:
        super().__init__(user, {})


class Backend:
    """The chats of all users."""

    def __init__(self, chat: type[Chat] = Chat) -> None:
        self.chat = chat
        self.chats: dict[str, Chat] = {}

    def open(self, user: str) -> Chat:
        """Find the user's chat, or begin it."""
        if user not in self.chats:
            self.chats[user] = self.chat(user)
        return self.chats[user]

    def tell(self, user: str, key: str, value: Any) -> None:
        """Note something."""
        self.chats[user].notes[key] = copy.deepcopy(value)

    def recall(self, user: str) -> dict[str, Any]:
        """All that the chat knows."""
        return copy.deepcopy(self.chats[user].notes)


class ChatTarget(BaseTarget):
    """The lab's door to the backend: a chat stands for an agent."""

    chat: type[Chat] = Chat

    def __init__(self) -> None:
        # The backend knows no types of agents: it is opened once for each.
        self.backends: dict[str, Backend] = {}

    async def create(self, user: str, agent_type: str, **_: Any) -> Handle:
        self.user_id(user)
        recipe = self.recipe(agent_type)
        if recipe.on_create is not None:
            await recipe.on_create(user)
        backend = self.backends.setdefault(agent_type, Backend(self.chat))
        return self.handle(user, agent_type, backend.open(user))

    async def run(self, handle: Handle, command: Command) -> Any:
        backend = self.backends[handle.agent_type]
        if backend.chats.get(handle.user) is not handle.native:
            raise Refused(Refusal.CLOSED, f"{handle.user!r} has another chat now")
        recipe = self.recipe(handle.agent_type)
        if recipe.on_run is not None:
            await recipe.on_run(handle.user)
        # The commands that the backend has a call for; the rest is arithmetic on its memory.
        notes = backend.recall(handle.user)
        if command.action == "write":
            return backend.tell(handle.user, command.arguments["key"], command.arguments["value"])
        answer = await obey(command.action, command.arguments, notes)
        if command.action == "add":
            backend.tell(handle.user, command.arguments["key"], answer)
        return answer


class FixedChatTarget(ChatTarget):
    """The backend without the leak."""

    chat = FixedChat
