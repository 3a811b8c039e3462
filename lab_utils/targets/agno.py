"""The targets of agno: sessions kept by its `InMemoryDb`, runs by its `Agent`.

An agent serves everybody; a run names its user and its session, and the conversation comes from the database
(`add_history_to_context`), all of it. Telemetry is off. These are no capabilities here, because the framework does not
have them: permissions, counts, a cleanup of agents.
"""

from __future__ import annotations

import itertools
import logging
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

from agno.agent import Agent
from agno.db.base import SessionType
from agno.db.in_memory import InMemoryDb
from agno.models.base import Model
from agno.models.message import Message
from agno.models.response import ModelResponse
from agno.run.base import RunStatus
from agno.session import AgentSession

from lab_utils.target import BaseTarget, Capability, Command, EndReport, Handle, Recipe, Refusal, Refused
from lab_utils.targets.conversation import answer_of, known, order_of, reply

__all__ = ["AgnoClientIdsTarget", "AgnoTarget"]

# Its own handler writes each failed run to standard output, where the lab's own output stands.
logging.getLogger("agno").handlers[:] = [logging.NullHandler()]


class _Scripted(Model):  # type: ignore[misc]
    """A model that does the last command of the conversation."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(id="scripted")
        self._recipe = recipe

    async def ainvoke(self, messages: list[Message], *_: Any, **__: Any) -> ModelResponse:
        said = [str(message.content) for message in messages if message.role in ("user", "assistant")]
        return ModelResponse(role="assistant", content=await reply(self._recipe, said))

    def invoke(self, *_: Any, **__: Any) -> ModelResponse:
        raise NotImplementedError("the lab's runs are asynchronous")

    def invoke_stream(self, *_: Any, **__: Any) -> Iterator[ModelResponse]:
        raise NotImplementedError("the lab's runs are not streamed")

    def ainvoke_stream(self, *_: Any, **__: Any) -> AsyncIterator[ModelResponse]:
        raise NotImplementedError("the lab's runs are not streamed")

    def _parse_provider_response(self, response: Any, **_: Any) -> ModelResponse:
        raise NotImplementedError("there is no provider")

    def _parse_provider_response_delta(self, response: Any) -> ModelResponse:
        raise NotImplementedError("there is no provider")


class AgnoTarget(BaseTarget):
    """agno with a session for each user, agent type and thread, whose id is new for each session. The thread stands in
    its metadata. The app looks the session up before each run, since a run would begin one that is not there."""

    name = "agno"
    also = frozenset({Capability.THREADS})

    async def start(self, recipes: Any, rows: Any, close_timeout: float) -> None:
        await super().start(recipes, rows, close_timeout)
        self.db = InMemoryDb()
        self._numbers = itertools.count(1)
        self.agents = {one.agent_type: self._agent(one) for one in recipes}

    def _agent(self, recipe: Recipe) -> Agent:
        return Agent(
            id=recipe.agent_type,
            model=_Scripted(recipe),
            db=self.db,
            add_history_to_context=True,
            num_history_runs=sys.maxsize,
            telemetry=False,
        )

    async def get(self, user: str, agent_type: str, thread: str | None = None) -> Handle | None:
        user = known(user)
        listed: Any = self.db.get_sessions(SessionType.AGENT, user_id=user, component_id=agent_type)
        found = [one for one in listed if thread in (None, one.metadata["thread"])]
        return self._handle(max(found, key=lambda one: one.metadata["number"])) if found else None

    def _handle(self, session: Any) -> Handle:
        # Nothing of a conversation is alive between two runs.
        thread, user = session.metadata["thread"], session.user_id
        return self.handle(user, session.agent_id, None, thread=thread, instance=session.session_id)

    async def create(self, user: str, agent_type: str, *, thread: str = "main", **_: Any) -> Handle:
        user = known(user)
        recipe, found = self.recipe(agent_type), await self.get(user, agent_type, thread)
        if found is not None:
            return found
        if recipe.on_create is not None:
            await recipe.on_create(user)
        about = {"thread": thread, "number": next(self._numbers)}
        session = AgentSession(str(uuid4()), agent_id=agent_type, user_id=user, metadata=about)
        self.db.upsert_session(session)
        return self._handle(session)

    async def run(self, handle: Handle, command: Command) -> Any:
        if self.db.get_session(handle.instance, SessionType.AGENT, user_id=handle.user) is None:
            raise Refused(Refusal.CLOSED, f"the database has no session {handle.instance!r}")
        return await self._run(handle, command)

    async def _run(self, handle: Handle, command: Command) -> Any:
        output = await self.agents[handle.agent_type].arun(
            order_of(handle.user, command), user_id=handle.user, session_id=handle.instance
        )
        if output.status == RunStatus.error:
            raise RuntimeError(str(output.content))
        return answer_of(str(output.content))

    async def end(self, user: str) -> EndReport:
        user = known(user)
        return self._end(user)

    async def end_all(self) -> EndReport:
        return self._end(None)

    def _end(self, user: str | None) -> EndReport:
        found: Any = self.db.get_sessions(SessionType.AGENT, user_id=user)
        self.db.delete_sessions([one.session_id for one in found], user_id=user)
        return EndReport(bool(found), len(found))


class AgnoClientIdsTarget(AgnoTarget):
    """The same where the client chooses the session id, as it may in a web app, and the app follows the documentation:
    it hands the id and the user to the run, which begins the session."""

    name = "agno_client_ids"

    async def get(self, user: str, agent_type: str, thread: str | None = None) -> Handle | None:
        user = known(user)
        listed: Any = self.db.get_sessions(SessionType.AGENT, user_id=user, component_id=agent_type)
        threads = [one.session_id.removeprefix(f"{agent_type}/") for one in listed]
        found = [one for one in threads if thread in (None, one)]
        return self._named(user, agent_type, found[-1]) if found else None

    def _named(self, user: str, agent_type: str, thread: str) -> Handle:
        return self.handle(user, agent_type, None, thread=thread, instance=f"{agent_type}/{thread}")

    async def create(self, user: str, agent_type: str, *, thread: str = "main", **_: Any) -> Handle:
        user = known(user)
        recipe = self.recipe(agent_type)
        if recipe.on_create is not None and await self.get(user, agent_type, thread) is None:
            await recipe.on_create(user)
        return self._named(user, agent_type, thread)

    async def run(self, handle: Handle, command: Command) -> Any:
        return await self._run(handle, command)
