"""The target of the OpenAI Agents SDK: conversations kept by its `SQLiteSession`, runs by its `Runner`.

One session for each user and conversation, in one database file, as the documentation shows it. The model is scripted
through the SDK's own interface: it receives the conversation and answers the last command, so that an agent remembers
exactly the data that the session brings back. An ability that the SDK does not have is no capability here: permissions,
counts, lookups that make nothing, a clean-up of agents.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agents import Agent, Model, ModelResponse, RunConfig, Runner, SQLiteSession, Usage
from openai.types.responses import ResponseOutputMessage, ResponseOutputText

from lab_utils.target import BaseTarget, Capability, Command, Handle, Recipe
from lab_utils.targets.lab_agent import obey

__all__ = ["OpenAIAgentsTarget", "session_id"]


def session_id(user: str, agent_type: str, thread: str) -> str:
    """The id of a conversation: no two of them have the same, whatever users call themselves."""
    return json.dumps([user, agent_type, thread])


class _Scripted(Model):  # type: ignore[misc]
    """A model that reads the conversation and does the last command."""

    def __init__(self, recipe: Recipe, user: str) -> None:
        self._recipe, self._user = recipe, user

    async def get_response(self, system_instructions: str | None, input: Any, *_: Any, **__: Any) -> ModelResponse:
        if self._recipe.on_run is not None:
            await self._recipe.on_run(self._user)
        said = [json.loads(_text(item)) for item in input if item.get("role") in ("user", "assistant")]
        memory: dict[str, Any] = {}
        for one in said:
            memory.update(one.get("noted", {}))
        order = said[-1]
        before = dict(memory)
        answer = await obey(order["action"], order["arguments"], memory)
        noted = {key: value for key, value in memory.items() if key not in before or before[key] != value}
        text = ResponseOutputText(
            text=json.dumps({"answer": answer, "noted": noted}), type="output_text", annotations=[], logprobs=[]
        )
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
        self.agents = {recipe.agent_type: Agent(name=recipe.agent_type) for recipe in recipes}

    async def stop(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _session(self, user: str, agent_type: str, thread: str) -> Any:
        return SQLiteSession(session_id(user, agent_type, thread), self._path)

    async def create(self, user: str, agent_type: str, *, thread: str = "main", **_: Any) -> Handle:
        recipe = self.recipe(agent_type)
        session = self._session(user, agent_type, thread)
        try:
            if recipe.on_create is not None and not await session.get_items(limit=1):
                await recipe.on_create(user)
        finally:
            session.close()
        # Nothing of a conversation is alive between two runs.
        return self.handle(user, agent_type, None, thread=thread, instance=session_id(user, agent_type, thread))

    async def run(self, handle: Handle, command: Command) -> Any:
        session = self._session(handle.user, handle.agent_type, handle.thread)
        order = json.dumps({"action": command.action, "arguments": dict(command.arguments)})
        model = _Scripted(self.recipe(handle.agent_type), handle.user)
        config = RunConfig(model=model, tracing_disabled=True)
        try:
            result = await Runner.run(self.agents[handle.agent_type], order, session=session, run_config=config)
        finally:
            session.close()
        return json.loads(result.final_output)["answer"]
