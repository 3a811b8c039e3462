"""The target of the OpenAI Agents SDK: conversations kept by its `SQLiteSession`, runs by its `Runner`.

One session for each user and conversation, in one database file, as the documentation shows it. The model is scripted
through the SDK's own interface: it receives the conversation and answers the last command, so that an agent remembers
exactly the data that the session brings back. These are no capabilities here, because the SDK does not have them:
permissions, counts, lookups that make nothing, a cleanup of agents.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agents import Agent, Model, ModelResponse, RunConfig, Runner, SQLiteSession, Usage
from openai.types.responses import ResponseOutputMessage, ResponseOutputText

from lab_utils.target import BaseTarget, Capability, Command, Handle, Recipe
from lab_utils.targets.conversation import answer_of, key_of, known, order_of, reply

__all__ = ["OpenAIAgentsClientIdsTarget", "OpenAIAgentsTarget"]


class _Scripted(Model):  # type: ignore[misc]
    """A model that reads the conversation and does the last command."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe

    async def get_response(self, system_instructions: str | None, input: Any, *_: Any, **__: Any) -> ModelResponse:
        said = [_text(item) for item in input if item.get("role") in ("user", "assistant")]
        text = ResponseOutputText(text=await reply(self._recipe, said), type="output_text", annotations=[], logprobs=[])
        message = ResponseOutputMessage(
            id="message", content=[text], role="assistant", status="completed", type="message"
        )
        return ModelResponse(output=[message], usage=Usage(), response_id=None)

    def stream_response(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError("the lab's runs are not streamed")


def _text(item: Mapping[str, Any]) -> str:
    content = item["content"]
    return content if isinstance(content, str) else str(content[0]["text"])


class OpenAIAgentsTarget(BaseTarget):
    """The OpenAI Agents SDK with a `SQLiteSession` for each conversation."""

    name = "openai_agents"
    also = frozenset({Capability.THREADS})

    async def start(self, recipes: Any, rows: Any, close_timeout: float) -> None:
        await super().start(recipes, rows, close_timeout)
        self._folder = tempfile.mkdtemp(prefix="lab-openai-agents-")
        self._path = Path(self._folder) / "conversations.db"
        self.agents = {one.agent_type: Agent(name=one.agent_type, model=_Scripted(one)) for one in recipes}

    async def stop(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def session_id(self, user: str, agent_type: str, thread: str) -> str:
        return key_of(user, agent_type, thread)

    def _session(self, user: str, agent_type: str, thread: str) -> Any:
        return SQLiteSession(self.session_id(user, agent_type, thread), self._path)

    async def create(self, user: str, agent_type: str, *, thread: str = "main", **_: Any) -> Handle:
        user = known(user)
        recipe = self.recipe(agent_type)
        session = self._session(user, agent_type, thread)
        try:
            if recipe.on_create is not None and not await session.get_items(limit=1):
                await recipe.on_create(user)
        finally:
            session.close()
        # Nothing of a conversation is alive between two runs.
        return self.handle(user, agent_type, None, thread=thread, instance=self.session_id(user, agent_type, thread))

    async def run(self, handle: Handle, command: Command) -> Any:
        session = self._session(handle.user, handle.agent_type, handle.thread)
        order = order_of(handle.user, command)
        config = RunConfig(tracing_disabled=True)
        try:
            result = await Runner.run(self.agents[handle.agent_type], order, session=session, run_config=config)
        finally:
            session.close()
        return answer_of(result.final_output)


class OpenAIAgentsClientIdsTarget(OpenAIAgentsTarget):
    """The same where the client chooses the session id, as it may in a web app: `SQLiteSession` is given it as it
    comes, and has no other parameter for the user."""

    name = "openai_agents_client_ids"

    def session_id(self, user: str, agent_type: str, thread: str) -> str:
        return f"{agent_type}/{thread}"
