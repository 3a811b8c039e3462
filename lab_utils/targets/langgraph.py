"""The targets of LangGraph: conversations kept by its checkpointer, and memories kept by its store.

A graph is compiled once and serves everybody, as in the documentation. A conversation is a `thread_id`, new for each;
the user, the agent type and the lab's thread stand in the run's metadata, by which the checkpointer lists them. A run
is `graph.ainvoke`; it would begin a thread that is not there, so the app looks the thread up before. These are no
capabilities here, because LangGraph does not have them: permissions, tools over a user's rows, a cleanup of agents,
counts.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Annotated, Any, TypedDict
from uuid import uuid4

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.store.memory import InMemoryStore

from lab_utils.target import BaseTarget, Capability, Command, EndReport, Handle, Recipe, Refusal, Refused
from lab_utils.targets.conversation import key_of, known
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

    async def get(self, user: str, agent_type: str, thread: str | None = None) -> Handle | None:
        user = known(user)
        # The first checkpoint of each conversation: to load all of them takes long where one has had many runs.
        about = {"user_id": user, "agent_type": agent_type, "source": "update"}
        about |= {} if thread is None else {"thread": thread}
        found = [one async for one in self.saver.alist(None, filter=about, limit=None if thread is None else 1)]
        if not found:
            return None
        newest = max(found, key=lambda one: one.checkpoint["ts"])
        return self._handle(user, agent_type, newest.metadata["thread"], newest.config["configurable"]["thread_id"])

    def _handle(self, user: str, agent_type: str, thread: str, thread_id: str) -> Handle:
        # Nothing of a conversation is alive between two runs.
        return self.handle(user, agent_type, None, thread=thread, instance=thread_id)

    def new_id(self, agent_type: str, thread: str) -> str:
        return str(uuid4())

    async def create(self, user: str, agent_type: str, *, thread: str = "main", **_: Any) -> Handle:
        user = known(user)
        recipe, found = self.recipe(agent_type), await self.get(user, agent_type, thread)
        if found is not None:
            return found
        if recipe.on_create is not None:
            await recipe.on_create(user)
        made = self._handle(user, agent_type, thread, self.new_id(agent_type, thread))
        await self.graphs[agent_type].aupdate_state(_config(made), {"memory": {}})
        return made

    async def run(self, handle: Handle, command: Command) -> Any:
        config = _config(handle)
        if await self.saver.aget_tuple(config) is None:
            raise Refused(Refusal.CLOSED, f"the checkpointer has no thread {handle.instance!r}")
        order = (command.action, dict(command.arguments))
        state = await self.graphs[handle.agent_type].ainvoke({"order": order}, config)
        return state["answer"]

    async def end(self, user: str) -> EndReport:
        user = known(user)
        return await self._end({"user_id": user})

    async def end_all(self) -> EndReport:
        return await self._end(None)

    async def _end(self, about: dict[str, Any] | None) -> EndReport:
        found = {one.config["configurable"]["thread_id"] async for one in self.saver.alist(None, filter=about)}
        for thread_id in found:
            await self.saver.adelete_thread(thread_id)
        return EndReport(bool(found), len(found))


def _config(handle: Handle) -> RunnableConfig:
    about = {"user_id": handle.user, "agent_type": handle.agent_type, "thread": handle.thread}
    return {"configurable": {"thread_id": handle.instance}, "metadata": about}


class LangGraphSaverClientIdsTarget(LangGraphSaverTarget):
    """The same where the client chooses the thread id, as it may in a web app: the saver is given it as it comes, and
    the user in the run's metadata."""

    name = "langgraph_saver_client_ids"

    def new_id(self, agent_type: str, thread: str) -> str:
        return f"{agent_type}/{thread}"


class LangGraphStoreTarget(BaseTarget):
    """LangGraph's `InMemoryStore`: memories by namespace, the user first, as the documentation has it.

    A store has no sessions, so the app keeps them in it: an item names the session, and the session's memories are in a
    namespace with its name. An ending deletes all items of the user.
    """

    name = "langgraph_store"
    also = frozenset({Capability.THREADS, Capability.ANY_VALUES})

    async def start(self, recipes: Any, rows: Any, close_timeout: float) -> None:
        await super().start(recipes, rows, close_timeout)
        self.store = InMemoryStore()

    async def _session(self, user: str, agent_type: str, thread: str) -> str | None:
        """The name of the session, as the store has it."""
        item = await self.store.aget(_namespace(user, "sessions", agent_type), key_of(thread))
        return None if item is None else item.value["session"]

    async def get(self, user: str, agent_type: str, thread: str | None = None) -> Handle | None:
        user = known(user)
        found = await self.store.asearch(_namespace(user, "sessions", agent_type), limit=_MOST_KEYS)
        of_thread = [item.value for item in found if thread in (None, item.value["thread"])]
        return self._handle(user, agent_type, **of_thread[-1]) if of_thread else None

    def _handle(self, user: str, agent_type: str, thread: str, session: str) -> Handle:
        # Nothing of a session is alive between two runs.
        return self.handle(user, agent_type, None, thread=thread, instance=session)

    async def create(self, user: str, agent_type: str, *, thread: str = "main", **_: Any) -> Handle:
        user = known(user)
        recipe, session = self.recipe(agent_type), await self._session(user, agent_type, thread)
        if session is None:
            if recipe.on_create is not None:
                await recipe.on_create(user)
            session = str(uuid4())
            about = {"thread": thread, "session": session}
            await self.store.aput(_namespace(user, "sessions", agent_type), key_of(thread), about)
        return self._handle(user, agent_type, thread, session)

    async def run(self, handle: Handle, command: Command) -> Any:
        if handle.instance != await self._session(handle.user, handle.agent_type, handle.thread):
            raise Refused(Refusal.CLOSED, f"the store has no session {handle.instance!r}")
        recipe = self.recipe(handle.agent_type)
        if recipe.on_run is not None:
            await recipe.on_run(handle.user)
        namespace = _namespace(handle.user, "memories", handle.instance)
        found = await self.store.asearch(namespace, limit=_MOST_KEYS)
        memory = {item.key: item.value["value"] for item in found}
        answer = await obey(command.action, command.arguments, memory)
        if command.action in ("write", "add"):
            key = command.arguments["key"]
            await self.store.aput(namespace, key, {"value": memory[key]})
        return answer

    async def end(self, user: str) -> EndReport:
        user = known(user)
        return await self._end(*_namespace(user))

    async def end_all(self) -> EndReport:
        return await self._end()

    async def _end(self, *prefix: str) -> EndReport:
        closed = 0
        while found := await self.store.asearch(prefix, limit=_MOST_KEYS):
            for item in found:
                await self.store.adelete(item.namespace, item.key)
            closed += sum("session" in item.value for item in found)
        return EndReport(closed > 0, closed)


def _namespace(user: str, *others: str) -> tuple[str, ...]:
    return tuple(map(key_of, (user, *others)))
