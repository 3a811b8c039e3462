"""The targets of Microsoft's Agent Framework: conversations as `AgentSession`s, kept by its `SessionStore`.

An agent is stateless and serves everybody; all state is in the session, as the documentation has it. An app loads the
session from the store, runs the agent with it, and stores it again. The store has no list of its sessions, so that the
app must know the ids: one for each user and agent type, and no threads. These are no capabilities here, because the
framework does not have them: permissions, the end of a user, counts, a cleanup of agents.

The documentation leaves concurrent writers to the app ("callers that need [...] distributed coordination should provide
another implementation"), and names no lock for one process; the target has none.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from agent_framework import Agent, BaseChatClient, ChatResponse, Message

from lab_utils.target import BaseTarget, Capability, Command, Handle, Recipe, Refusal, Refused
from lab_utils.targets.conversation import answer_of, key_of, known, order_of, reply

with warnings.catch_warnings():
    # That its session store is experimental.
    warnings.simplefilter("ignore")
    from agent_framework import SessionStore

__all__ = ["AgentFrameworkClientIdsTarget", "AgentFrameworkTarget"]

# A library's warnings go to stderr while nobody has configured logging; the lab's own output stands there.
logging.getLogger("agent_framework").addHandler(logging.NullHandler())


class _Scripted(BaseChatClient[Any]):
    """A chat client that does the last command of the conversation."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self._recipe = recipe

    async def _inner_get_response(
        self, *, messages: Sequence[Message], stream: bool, options: Mapping[str, Any], **_: Any
    ) -> ChatResponse[Any]:
        text = await reply(self._recipe, [message.text for message in messages])
        return ChatResponse(messages=[Message(role="assistant", contents=[text])])


class _AgentFramework(BaseTarget):
    """Agent Framework with a `SessionStore`: a session is loaded, run with, and stored."""

    async def start(self, recipes: Any, rows: Any, close_timeout: float) -> None:
        await super().start(recipes, rows, close_timeout)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.store = SessionStore()
        self.agents = {one.agent_type: Agent(_Scripted(one), name=one.agent_type) for one in recipes}

    def session_id(self, user: str, agent_type: str, thread: str) -> str:
        raise NotImplementedError

    async def create(self, user: str, agent_type: str, *, thread: str = "main", **_: Any) -> Handle:
        user = known(user)
        recipe, session_id = self.recipe(agent_type), self.session_id(user, agent_type, thread)
        if await self.store.get(session_id) is None:
            if recipe.on_create is not None:
                await recipe.on_create(user)
            await self.store.set(session_id, self.agents[agent_type].create_session(session_id=session_id))
        return self._handle(user, agent_type, thread)

    def _handle(self, user: str, agent_type: str, thread: str) -> Handle:
        # Nothing of a conversation is alive between two runs.
        return self.handle(user, agent_type, None, thread=thread, instance=self.session_id(user, agent_type, thread))

    async def run(self, handle: Handle, command: Command) -> Any:
        session = await self.store.get(handle.instance)
        if session is None:
            raise Refused(Refusal.CLOSED, f"the store has no session {handle.instance!r}")
        response = await self.agents[handle.agent_type].run(order_of(handle.user, command), session=session)
        await self.store.set(handle.instance, session)
        return answer_of(response.text)


class AgentFrameworkTarget(_AgentFramework):
    """One session for each user and agent type, whose id the app makes of both."""

    name = "agent_framework"

    def session_id(self, user: str, agent_type: str, thread: str) -> str:
        return key_of(user, agent_type)

    async def get(self, user: str, agent_type: str, thread: str | None = None) -> Handle | None:
        user = known(user)
        found = await self.store.get(self.session_id(user, agent_type, "main"))
        return None if found is None else self._handle(user, agent_type, "main")

    async def remove(self, user: str, agent_type: str) -> bool:
        user = known(user)
        found = await self.get(user, agent_type)
        await self.store.delete(self.session_id(user, agent_type, "main"))
        return found is not None

    async def reset(self, user: str) -> int:
        user = known(user)
        return sum([await self.remove(user, agent_type) for agent_type in self.recipes])


class AgentFrameworkClientIdsTarget(_AgentFramework):
    """The same where the client chooses the session id, as it may in a web app: the store is given it as it comes."""

    name = "agent_framework_client_ids"
    also = frozenset({Capability.THREADS})

    def session_id(self, user: str, agent_type: str, thread: str) -> str:
        return f"{agent_type}/{thread}"
