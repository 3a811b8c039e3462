"""The targets of LangGraph: conversations kept by its checkpointer, and memories kept by its store.

A graph is compiled once and serves everybody, as in the documentation. A conversation is a `thread_id`, which the app
makes from the user and the conversation; the user stands in the run's metadata. A run is `graph.ainvoke`. These are no
capabilities here, because LangGraph does not have them: permissions, tools over a user's rows, a clean-up of agents,
counts.
"""

from __future__ import annotations

import operator
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.store.memory import InMemoryStore

from lab_utils.target import BaseTarget, Capability, Command, EndReport, Handle, Recipe
from lab_utils.targets.conversation import key_of
from lab_utils.targets.lab_agent import obey

__all__ = ["LangGraphSaverClientIdsTarget", "LangGraphSaverTarget", "LangGraphStoreTarget"]

_MOST_KEYS = 1_000


class State(TypedDict, total=False):
    """The checkpointer's state of a conversation. `memory` is merged key by key, as a reducer does."""

    order: tuple[str, Mapping[str, Any]]
    memory: Annotated[dict[str, Any], operator.or_]
    answer: Any


class LangGraphSaverTarget(BaseTarget):
    """LangGraph with `InMemorySaver`: the state of each conversation is loaded before a run and stored after it."""

    name = "langgraph_saver"
    # Not ANY_VALUES: its serializer makes a list of a tuple.
    also = frozenset({Capability.THREADS})

    async def start(self, recipes: Any, rows: Any, close_timeout: float) -> None:
        await super().start(recipes, rows, close_timeout)
        self.saver = InMemorySaver()
        self.graphs = {recipe.agent_type: self._graph(recipe) for recipe in recipes}

    def _graph(self, recipe: Recipe) -> Any:
        async def agent(state: State, config: RunnableConfig) -> State:
            if recipe.on_run is not None:
                await recipe.on_run(config["metadata"]["user_id"])
            memory = dict(state.get("memory", {}))
            answer = await obey(*state["order"], memory)
            return {"memory": memory, "answer": answer}

        builder = StateGraph(State)
        builder.add_node("agent", agent)
        builder.add_edge(START, "agent")
        return builder.compile(checkpointer=self.saver)

    def _config(self, user: str, agent_type: str, thread: str) -> dict[str, Any]:
        about = {"user_id": user, "agent_type": agent_type, "thread": thread}
        return {"configurable": {"thread_id": self.thread_id(user, agent_type, thread)}, "metadata": about}

    def thread_id(self, user: str, agent_type: str, thread: str) -> str:
        return key_of(user, agent_type, thread)

    async def create(self, user: str, agent_type: str, *, thread: str = "main", **_: Any) -> Handle:
        recipe, config = self.recipe(agent_type), self._config(user, agent_type, thread)
        if await self.saver.aget_tuple(config) is None:
            if recipe.on_create is not None:
                await recipe.on_create(user)
            await self.graphs[agent_type].aupdate_state(config, {"memory": {}})
        return self._handle(user, agent_type, thread)

    def _handle(self, user: str, agent_type: str, thread: str) -> Handle:
        # Nothing of a conversation is alive between two runs.
        return self.handle(user, agent_type, None, thread=thread, instance=self.thread_id(user, agent_type, thread))

    async def get(self, user: str, agent_type: str, thread: str | None = None) -> Handle | None:
        of_type = [one async for one in self._of(user) if one.metadata["agent_type"] == agent_type]
        found = [one for one in of_type if thread in (None, one.metadata["thread"])]
        if not found:
            return None
        newest = max(found, key=lambda one: one.checkpoint["ts"])
        return self._handle(user, agent_type, newest.metadata["thread"])

    async def _of(self, user: str) -> AsyncIterator[Any]:
        """Every checkpoint that LangGraph has of a user."""
        async for one in self.saver.alist(None, filter={"user_id": user}):
            yield one

    async def run(self, handle: Handle, command: Command) -> Any:
        config = self._config(handle.user, handle.agent_type, handle.thread)
        order = (command.action, dict(command.arguments))
        state = await self.graphs[handle.agent_type].ainvoke({"order": order}, config)
        return state["answer"]

    async def end(self, user: str) -> EndReport:
        threads = {one.config["configurable"]["thread_id"] async for one in self._of(user)}
        for thread in threads:
            await self.saver.adelete_thread(thread)
        return EndReport(bool(threads), len(threads))

    async def end_all(self) -> EndReport:
        threads = {one.config["configurable"]["thread_id"] async for one in self.saver.alist(None)}
        for thread in threads:
            await self.saver.adelete_thread(thread)
        return EndReport(bool(threads), len(threads))


class LangGraphSaverClientIdsTarget(LangGraphSaverTarget):
    """The same where the client chooses the thread id, as it may in a web app: the saver is given it as it comes, and
    the user in the run's metadata."""

    name = "langgraph_saver_client_ids"

    def thread_id(self, user: str, agent_type: str, thread: str) -> str:
        return f"{agent_type}/{thread}"


class LangGraphStoreTarget(BaseTarget):
    """LangGraph's `InMemoryStore`: memories by namespace, the user first, as the documentation has it."""

    name = "langgraph_store"
    also = frozenset({Capability.THREADS, Capability.ANY_VALUES})

    async def start(self, recipes: Any, rows: Any, close_timeout: float) -> None:
        await super().start(recipes, rows, close_timeout)
        self.store = InMemoryStore()

    def _namespace(self, user: str, *others: str) -> tuple[str, ...]:
        return tuple(map(key_of, (user, *others)))

    async def create(self, user: str, agent_type: str, *, thread: str = "main", **_: Any) -> Handle:
        recipe, namespace = self.recipe(agent_type), self._namespace(user, agent_type, thread)
        if recipe.on_create is not None and not await self.store.asearch(namespace, limit=1):
            await recipe.on_create(user)
        return self.handle(user, agent_type, None, thread=thread, instance="/".join(namespace))

    async def run(self, handle: Handle, command: Command) -> Any:
        recipe = self.recipe(handle.agent_type)
        if recipe.on_run is not None:
            await recipe.on_run(handle.user)
        namespace = self._namespace(handle.user, handle.agent_type, handle.thread)
        found = await self.store.asearch(namespace, limit=_MOST_KEYS)
        memory = {item.key: item.value["value"] for item in found}
        answer = await obey(command.action, command.arguments, memory)
        if command.action in ("write", "add"):
            key = command.arguments["key"]
            await self.store.aput(namespace, key, {"value": memory[key]})
        return answer
