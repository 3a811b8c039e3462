"""The targets of CrewAI: a conversation as the state of a `Flow`, kept by `SQLiteFlowPersistence`.

A flow object serves one run, as the documentation has it: it is made, kicked off with the `id` of the state that an
earlier run left, and persisted after its method. All flows are passed one memory, which none of them uses: else each
opens a vector database of its own, below the home folder. Telemetry and tracing are off. These are no capabilities
here, because the framework does not have them: permissions, counts, lookups by user, the end of a user, a cleanup of
agents.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

# Before the import that reads them.
os.environ.update(CREWAI_DISABLE_TELEMETRY="true", CREWAI_TRACING_ENABLED="false", OTEL_SDK_DISABLED="true")

from crewai import BaseLLM
from crewai.flow.flow import Flow, FlowState, start
from crewai.flow.persistence import SQLiteFlowPersistence, persist
from crewai.memory import Memory
from pydantic import Field, PrivateAttr

from lab_utils.target import BaseTarget, Capability, Command, Handle, Recipe
from lab_utils.targets.conversation import answer_of, key_of, known, order_of, reply

__all__ = ["CrewAIClientIdsTarget", "CrewAITarget"]

_QUIET = {
    name: os.environ[name] for name in ("CREWAI_DISABLE_TELEMETRY", "CREWAI_TRACING_ENABLED", "OTEL_SDK_DISABLED")
}


class _Scripted(BaseLLM):  # type: ignore[misc]
    """A model that does the last command of the conversation."""

    _recipe: Recipe = PrivateAttr()

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(model="scripted")
        self._recipe = recipe

    def call(self, *_: Any, **__: Any) -> str:
        raise NotImplementedError("the lab's runs are asynchronous")

    async def acall(self, messages: Any, *_: Any, **__: Any) -> str:
        return await reply(self._recipe, [message["content"] for message in messages])


class Conversation(FlowState):  # type: ignore[misc]
    """The state of a flow: the order of this run, and all messages of this and of earlier runs."""

    order: str = ""
    messages: list[dict[str, str]] = Field(default_factory=list)


def _flow(recipe: Recipe, persistence: SQLiteFlowPersistence) -> Any:
    model = _Scripted(recipe)

    @persist(persistence)
    class Chat(Flow[Conversation]):  # type: ignore[misc]
        @start()  # type: ignore[untyped-decorator]
        async def answer(self) -> str:
            self.state.messages.append({"role": "user", "content": self.state.order})
            text = await model.acall(list(self.state.messages))
            self.state.messages.append({"role": "assistant", "content": text})
            return text

    return Chat


class CrewAITarget(BaseTarget):
    """CrewAI with a flow state for each user, agent type and thread, whose id the app makes of the three."""

    name = "crewai"
    also = frozenset({Capability.THREADS})

    async def start(self, recipes: Any, rows: Any, close_timeout: float) -> None:
        await super().start(recipes, rows, close_timeout)
        # Again, for runs read them too: a process forked after the import has the environment of who asked for it.
        os.environ.update(_QUIET)
        self._folder = tempfile.mkdtemp(prefix="lab-crewai-")
        self.persistence = SQLiteFlowPersistence(str(Path(self._folder) / "flows.db"))
        self.memory = Memory(storage=str(Path(self._folder) / "memory"))
        self.flows = {one.agent_type: _flow(one, self.persistence) for one in recipes}

    async def stop(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def state_id(self, user: str, agent_type: str, thread: str) -> str:
        return key_of(user, agent_type, thread)

    async def create(self, user: str, agent_type: str, *, thread: str = "main", **_: Any) -> Handle:
        user = known(user)
        recipe, name = self.recipe(agent_type), self.state_id(user, agent_type, thread)
        if recipe.on_create is not None and self.persistence.load_state(name) is None:
            await recipe.on_create(user)
        # Nothing of a conversation is alive between two runs.
        return self.handle(user, agent_type, None, thread=thread, instance=name)

    async def run(self, handle: Handle, command: Command) -> Any:
        flow = self.flows[handle.agent_type](suppress_flow_events=True, memory=self.memory, tracing=False)
        text = await flow.kickoff_async(inputs={"id": handle.instance, "order": order_of(handle.user, command)})
        return answer_of(text)


class CrewAIClientIdsTarget(CrewAITarget):
    """The same where the client chooses the state's id, as it may in a web app: the flow is given it as it comes, and
    has no other parameter for the user."""

    name = "crewai_client_ids"

    def state_id(self, user: str, agent_type: str, thread: str) -> str:
        return f"{agent_type}/{thread}"
