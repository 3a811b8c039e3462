"""Defects of sessions that follow one another under one id: the old one acts in the new one, or is read from it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any
from weakref import WeakSet, WeakValueDictionary

from lab_utils.target import Command, EndReport, Handle, Recipe
from lab_utils.targets.planted.base import planted_by
from lab_utils.targets.reference import Agent, Bridge, Context, Dispatcher, ReferenceTarget, Session

__all__ = ["PLANTED"]


class BridgeByName(ReferenceTarget):
    """An agent looks its bridge up by its user's id, each time it speaks."""

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        sessions = self.sessions

        class Looking(Agent):
            def _emit(self, run: str) -> Any:
                def emit(event: str, payload: Mapping[str, Any]) -> None:
                    session = sessions.get(self.context.user)
                    if session is not None and session.bridge is not None:
                        session.bridge.emit(event, payload, self.origin(run))

                return emit

        return Looking(recipe, context, dispatcher, session)


class MemoryOutlivesSession(ReferenceTarget):
    """An agent's memory is kept under its user's and its type's name, and an end forgets the agents only."""

    def __init__(self) -> None:
        super().__init__()
        self.memories: dict[tuple[str, str], dict[str, Any]] = {}

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        agent = super().make_agent(recipe, context, dispatcher, session)
        agent.memory = self.memories.setdefault((context.user, recipe.agent_type), {})
        return agent


class WrittenBackByName(ReferenceTarget):
    """An agent's memory is fetched and written under its user's and its type's name: an end empties it for the next."""

    def __init__(self) -> None:
        super().__init__()
        self.memories: dict[tuple[str, str, str], dict[str, Any]] = {}

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        memories, key = self.memories, (context.user, recipe.agent_type, context.thread)

        class Fetching(Agent):
            @property
            def memory(self) -> dict[str, Any]:
                return memories.setdefault(key, {})

            @memory.setter
            def memory(self, _: dict[str, Any]) -> None:
                memories[key] = {}

        return Fetching(recipe, context, dispatcher, session)

    async def end(self, user: str) -> EndReport:
        for key in [key for key in self.memories if key[0] == user]:
            del self.memories[key]
        return await super().end(user)


class StaleHandleForgiven(ReferenceTarget):
    """A run of a closed agent goes to the agent that now has its name."""

    async def run(self, handle: Handle, command: Any) -> Any:
        if handle.native.closed:
            handle = await self.get(handle.user, handle.agent_type, handle.thread) or handle
        return await super().run(handle, command)


class RunsNumberedBySession(ReferenceTarget):
    """Runs are numbered from 1 in each session, and a session that follows begins again."""

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        numbers = self.__dict__.setdefault("numbers", {}).setdefault(id(session), itertools.count(1))
        user = context.user

        class Numbering(Agent):
            async def run(self, action: str, arguments: Mapping[str, Any], run: str) -> Any:
                return await super().run(action, arguments, f"{user}/{next(numbers)}")

        return Numbering(recipe, context, dispatcher, session)


class AgentNumbersGivenAgain(ReferenceTarget):
    """An agent's id is the smallest number that no living agent has."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers: WeakValueDictionary[int, Agent] = WeakValueDictionary()

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        agent = super().make_agent(recipe, context, dispatcher, session)
        number = next(number for number in itertools.count(1) if number not in self.numbers)
        self.numbers[number] = agent
        agent.agent_id = f"agent-{number}"
        return agent


class ContextOfLastTime(ReferenceTarget):
    """A request without data receives its user's data of the last request."""

    def __init__(self) -> None:
        super().__init__()
        self.last: dict[str, Mapping[str, Any]] = {}

    def make_context(self, user: str, thread: str, data: Mapping[str, Any], permissions: frozenset[str]) -> Context:
        known = self.last.setdefault(user, data)
        return super().make_context(user, thread, data or known, permissions)


class PermissionsOutliveSession(ReferenceTarget):
    """A user's tool permissions are kept under the user's name at an end, and found there by the next session's."""

    def __init__(self) -> None:
        super().__init__()
        self.now: dict[str, frozenset[str]] = {}
        self.before: dict[str, frozenset[str]] = {}

    def make_context(self, user: str, thread: str, data: Mapping[str, Any], permissions: frozenset[str]) -> Context:
        self.now[user] = self.now.get(user, frozenset()) | permissions
        return super().make_context(user, thread, data, permissions | self.before.get(user, frozenset()))

    async def end(self, user: str) -> EndReport:
        self.before[user] = self.now.get(user, frozenset())
        return await super().end(user)


class TypesOutliveSession(ReferenceTarget):
    """The types that a user was permitted to make are kept under the user's name at an end, and not checked again."""

    def __init__(self) -> None:
        super().__init__()
        self.now: set[tuple[str, str]] = set()
        self.before: set[tuple[str, str]] = set()

    def check_allowed(
        self, user: str, agent_type: str, permissions: frozenset[str], context_user: str | None
    ) -> Recipe:
        recipe = self.recipes.get(agent_type)
        if recipe is not None and (user, agent_type) in self.before:
            permissions |= recipe.requires
        recipe = super().check_allowed(user, agent_type, permissions, context_user)
        self.now.add((user, agent_type))
        return recipe

    async def end(self, user: str) -> EndReport:
        self.before |= {one for one in self.now if one[0] == user}
        return await super().end(user)


class SessionReopened(ReferenceTarget):
    """A session that has ended is kept, and opened again with its bridge when its user comes back."""

    def __init__(self) -> None:
        super().__init__()
        self.ended: dict[str, Session] = {}

    async def end(self, user: str) -> EndReport:
        session = self.sessions.get(user)
        report = await super().end(user)
        if session is not None:
            self.ended[user] = session
        return report

    def session_for_create(self, user: str) -> tuple[Session, bool]:
        session = self.ended.pop(user, None)
        if session is not None and user not in self.sessions:
            self.sessions[user] = session
            session.closed = False
            session.provisional = True
            if session.bridge is not None:
                session.bridge.closed, session.bridge.clients = False, self.clients_of(user)
        return super().session_for_create(user)


class MemoryByAddress(ReferenceTarget):
    """Memories are found by `id(agent)` and outlive it: a later agent in the place of a freed one finds them."""

    def __init__(self) -> None:
        super().__init__()
        self.memories: dict[int, dict[str, Any]] = {}

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        agent = super().make_agent(recipe, context, dispatcher, session)
        agent.memory = self.memories.setdefault(id(agent), {})
        return agent


class _Pool(ReferenceTarget):
    """A new agent takes its memory from a pool, if there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.pool: list[dict[str, Any]] = []

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        agent = super().make_agent(recipe, context, dispatcher, session)
        if self.pool:
            agent.memory = self.pool.pop()
        return agent


class _Pooling(_Pool):
    """The memory of a closed agent is emptied and given to the next one."""

    async def close_agent(self, agent: Agent, errors: list[str]) -> None:
        was_closed = agent.closed
        await super().close_agent(agent, errors)
        if not was_closed:
            self.empty(agent)
            self.pool.append(agent.memory)
            agent.memory = {}

    def empty(self, agent: Agent) -> None:
        """Take a past user's data out of an agent's memory."""
        agent.memory.clear()


class MemoryPooledAfterFailure(_Pooling):
    """Memories are used again, and that of an agent whose last run failed is not emptied before."""

    def __init__(self) -> None:
        super().__init__()
        self.failed: WeakSet[Agent] = WeakSet()

    async def run(self, handle: Handle, command: Command) -> Any:
        self.failed.add(handle.native)
        answer = await super().run(handle, command)
        self.failed.discard(handle.native)
        return answer

    def empty(self, agent: Agent) -> None:
        if agent not in self.failed:
            agent.memory.clear()


class MemoryPooledInMidRun(_Pool):
    """A run that the end of its session cuts off puts its agent's memory, as it is, where new agents take theirs."""

    async def run(self, handle: Handle, command: Command) -> Any:
        agent: Agent = handle.native
        was_open = not agent.closed
        try:
            return await super().run(handle, command)
        except BaseException:
            if was_open and agent.closed:
                self.pool.append(agent.memory)
            raise


class MemoryPartlyEmptied(_Pooling):
    """Memories are used again, and their first entry stays: an agent of another version kept its settings there."""

    def empty(self, agent: Agent) -> None:
        while len(agent.memory) > 1:
            agent.memory.popitem()


class MemoryGivenBackTwice(_Pooling):
    """Memories are used again, and one that is given back while a run is under way is given back once more after it:
    two users of the next ones have it."""

    running = 0

    async def run(self, handle: Handle, command: Command) -> Any:
        self.running += 1
        try:
            return await super().run(handle, command)
        finally:
            self.running -= 1

    def empty(self, agent: Agent) -> None:
        super().empty(agent)
        if self.running:
            self.pool.append(agent.memory)


class RowsUsedAgain(ReferenceTarget):
    """The rows of a past user's tools are given to the tools of a new user who has none."""

    def __init__(self) -> None:
        super().__init__()
        self.past: list[Any] = []

    def make_dispatcher(self, context: Context, bridge: Bridge | None) -> Dispatcher:
        made = super().make_dispatcher(context, bridge)
        made.rows = made.rows or self.past
        return made

    async def close_agent(self, agent: Agent, errors: list[str]) -> None:
        await super().close_agent(agent, errors)
        self.past = agent.dispatcher.rows or self.past


class LateRunErasesByName(ReferenceTarget):
    """A run that outlives its session erases the memories of its user when it is over: by now those of the next one."""

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        sessions = self.sessions

        class Erasing(Agent):
            async def run(self, action: str, arguments: Mapping[str, Any], run: str) -> Any:
                self.check_open()
                try:
                    return await super().run(action, arguments, run)
                finally:
                    if self.closed and self.context.user in sessions:
                        for agent in sessions[self.context.user].agents:
                            agent.memory.clear()

        return Erasing(recipe, context, dispatcher, session)


class ScansAllAtEnd(ReferenceTarget):
    """A leaving user's objects are found by going through all objects."""

    async def end(self, user: str) -> EndReport:
        left = [session for session in self.sessions.values() if session.user == user and session.closed]
        return await super().end(user) if not left else EndReport(False, 0)


PLANTED = (
    planted_by(BridgeByName, "old-life-event"),
    planted_by(MemoryOutlivesSession, "old-life-read"),
    planted_by(WrittenBackByName, "old-life-wrote"),
    planted_by(LateRunErasesByName, "lost-write"),
    planted_by(StaleHandleForgiven, "old-handle-works"),
    planted_by(RunsNumberedBySession, "run-id-reused"),
    planted_by(AgentNumbersGivenAgain, "agent-id-reused"),
    planted_by(ContextOfLastTime, "old-life-read"),
    planted_by(PermissionsOutliveSession, "old-permission-works"),
    planted_by(TypesOutliveSession, "old-permission-works"),
    planted_by(SessionReopened, "old-life-event"),
    planted_by(MemoryByAddress, "cross-user-data"),
    planted_by(MemoryPooledAfterFailure, "cross-user-data"),
    planted_by(MemoryPooledInMidRun, "cross-user-data"),
    planted_by(MemoryPartlyEmptied, "cross-user-data"),
    planted_by(MemoryGivenBackTwice, "cross-user-data"),
    planted_by(RowsUsedAgain, "cross-user-data"),
    planted_by(ScansAllAtEnd, "cost-grows"),
)
