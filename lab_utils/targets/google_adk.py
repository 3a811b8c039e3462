"""The targets of Google's Agent Development Kit: sessions kept by its `InMemorySessionService`, runs by its `Runner`.

Each agent type is an app with one agent, whose runner serves everybody; a session belongs to an app and a user, and the
service makes its id. The thread stands in the session's state, where the target looks it up. These are no capabilities
here, because the framework does not have them: permissions, counts, a cleanup of agents.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import AsyncGenerator
from typing import Any

from google.adk.agents import LlmAgent
from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.models import BaseLlm, LlmRequest, LlmResponse
from google.adk.runners import Runner
from google.adk.sessions import InMemorySessionService, Session
from google.genai.types import Content, Part

from lab_utils.target import BaseTarget, Capability, Command, EndReport, Handle, Recipe, Refusal, Refused
from lab_utils.targets.conversation import answer_of, known, order_of, reply

__all__ = ["GoogleADKClientIdsTarget", "GoogleADKTarget"]

# A library's warnings go to stderr while nobody has configured logging; the lab's own output stands there.
logging.getLogger("google_adk").addHandler(logging.NullHandler())


class _Scripted(BaseLlm):  # type: ignore[misc]
    """A model that does the last command of the conversation."""

    model: str = "scripted"
    recipe: Recipe

    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        texts = [part.text for content in llm_request.contents for part in content.parts or () if part.text]
        text = await reply(self.recipe, texts)
        yield LlmResponse(content=Content(role="model", parts=[Part(text=text)]))


class GoogleADKTarget(BaseTarget):
    """The ADK with a session for each user, agent type and thread; the service makes the session's id."""

    name = "google_adk"
    also = frozenset({Capability.THREADS})

    async def start(self, recipes: Any, rows: Any, close_timeout: float) -> None:
        await super().start(recipes, rows, close_timeout)
        self.service = InMemorySessionService()
        self.runners = {one.agent_type: self._runner(one) for one in recipes}
        self._numbers = itertools.count(1)

    def _runner(self, recipe: Recipe) -> Runner:
        agent = LlmAgent(name="agent", model=_Scripted(recipe=recipe))
        return Runner(app_name=recipe.agent_type, agent=agent, session_service=self.service)

    async def _sessions(self, user: str | None, agent_type: str) -> list[Session]:
        """The sessions that the service has, of a user or of all, those made last first."""
        listed = await self.service.list_sessions(app_name=agent_type, user_id=user)
        return sorted(listed.sessions, key=lambda session: -session.state["number"])

    async def create(self, user: str, agent_type: str, *, thread: str = "main", **_: Any) -> Handle:
        user = known(user)
        recipe, found = self.recipe(agent_type), await self.get(user, agent_type, thread)
        if found is not None:
            return found
        if recipe.on_create is not None:
            await recipe.on_create(user)
        return self._handle(await self._make(user, agent_type, thread))

    async def _make(self, user: str, agent_type: str, thread: str) -> Session:
        state = {"thread": thread, "number": next(self._numbers)}
        return await self.service.create_session(app_name=agent_type, user_id=user, state=state)

    def _handle(self, session: Session) -> Handle:
        # Nothing of a conversation is alive between two runs. An id alone names no session: it is unique within its app
        # and user only, and the session that follows a deleted one may have it again.
        thread: str = session.state["thread"]
        name = f"{session.state['number']} {session.id}"
        return self.handle(session.user_id, session.app_name, None, thread=thread, instance=name)

    async def get(self, user: str, agent_type: str, thread: str | None = None) -> Handle | None:
        user = known(user)
        found = await self._sessions(user, agent_type)
        return next((self._handle(one) for one in found if thread in (None, one.state["thread"])), None)

    async def run(self, handle: Handle, command: Command) -> Any:
        _, _, session_id = handle.instance.partition(" ")
        message = Content(role="user", parts=[Part(text=order_of(handle.user, command))])
        answer = ""
        try:
            async for event in self.runners[handle.agent_type].run_async(
                user_id=handle.user, session_id=session_id, new_message=message
            ):
                if event.is_final_response() and event.content and event.content.parts:
                    answer = event.content.parts[0].text or ""
        except SessionNotFoundError as error:
            raise Refused(Refusal.CLOSED, str(error)) from error
        return answer_of(answer)

    async def end(self, user: str) -> EndReport:
        user = known(user)
        return await self._end(user)

    async def end_all(self) -> EndReport:
        return await self._end(None)

    async def _end(self, user: str | None) -> EndReport:
        found = [one for agent_type in self.recipes for one in await self._sessions(user, agent_type)]
        for one in found:
            await self.service.delete_session(app_name=one.app_name, user_id=one.user_id, session_id=one.id)
        return EndReport(bool(found), len(found))


class GoogleADKClientIdsTarget(GoogleADKTarget):
    """The same where the client chooses the session id, as it may in a web app: the service is given it as it comes."""

    name = "google_adk_client_ids"

    async def _make(self, user: str, agent_type: str, thread: str) -> Session:
        state = {"thread": thread, "number": next(self._numbers)}
        try:
            return await self.service.create_session(app_name=agent_type, user_id=user, state=state, session_id=thread)
        except AlreadyExistsError as error:
            there = await self.service.get_session(app_name=agent_type, user_id=user, session_id=thread)
            if there is None:
                raise Refused(Refusal.CONFLICT, str(error)) from error
            return there
