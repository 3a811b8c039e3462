"""Defects of making, finding and closing agents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lab_utils.target import EndReport, Handle, Population, Recipe
from lab_utils.targets.agent_registry import AgentRegistryTarget
from lab_utils.targets.planted.base import planted_by
from lab_utils.targets.reference import Agent, Bridge, Context, Dispatcher, Origin, ReferenceTarget, Session

__all__ = ["PLANTED"]


class LookupCreates(AgentRegistryTarget):
    """A lookup goes through "get or create the session", so a lookup of an unknown user makes one."""

    async def get(self, user: str, agent_type: str, thread: str | None = None) -> Handle | None:
        await self.registry.get_user_session(user)
        return await super().get(user, agent_type, thread)


class DriftingCounter(ReferenceTarget):
    """The population is a counter kept beside the data; a reset subtracts one, even if it closed more."""

    def __init__(self) -> None:
        super().__init__()
        self.counted = 0

    async def install(self, session: Session, agent: Agent) -> Handle:
        self.counted += 1
        return await super().install(session, agent)

    async def remove(self, user: str, agent_type: str) -> bool:
        removed = await super().remove(user, agent_type)
        self.counted -= removed
        return removed

    async def reset(self, user: str) -> int:
        self.counted -= 1
        return await super().reset(user)

    async def end(self, user: str) -> EndReport:
        report = await super().end(user)
        self.counted -= report.closed
        return report

    def population(self) -> Population:
        return Population(super().population().sessions, self.counted)


class GhostSession(ReferenceTarget):
    """A session is counted from the first attempt on, even if the create fails."""

    def undo(self, session: Session, is_new: bool) -> None:
        session.provisional = False


class ThreadIgnored(ReferenceTarget):
    """Agents are found by type; the thread is accepted and ignored."""

    def find(self, session: Session, agent_type: str, thread: str | None) -> Agent | None:
        return super().find(session, agent_type, None)


class CaseFoldedThreads(ReferenceTarget):
    """Threads are compared in lower case."""

    def find(self, session: Session, agent_type: str, thread: str | None) -> Agent | None:
        for agent in reversed(session.agents):
            if agent.recipe.agent_type == agent_type and (
                thread is None or agent.context.thread.lower() == thread.lower()
            ):
                return agent
        return None


class DefaultThreadOnly(ReferenceTarget):
    """A lookup without a thread looks into the thread "main" only."""

    def find(self, session: Session, agent_type: str, thread: str | None) -> Agent | None:
        return super().find(session, agent_type, "main" if thread is None else thread)


class OldestFound(ReferenceTarget):
    """A lookup returns the first agent of a type ever made, not the newest."""

    def find(self, session: Session, agent_type: str, thread: str | None) -> Agent | None:
        for agent in session.agents:
            if agent.recipe.agent_type == agent_type and (thread is None or agent.context.thread == thread):
                return agent
        return None


class RemoveTakesOldest(ReferenceTarget):
    """Removing an agent closes the oldest of its type."""

    async def remove(self, user: str, agent_type: str) -> bool:
        session = self.sessions.get(self.key(user))
        for agent in [] if session is None else session.agents:
            if agent.recipe.agent_type == agent_type:
                assert session is not None
                session.agents.remove(agent)
                await self.close_agent(agent, [])
                return True
        return False


class DoubleClose(ReferenceTarget):
    """Removed agents stay on the list of agents that the end has to clean up."""

    def __init__(self) -> None:
        super().__init__()
        self.removed: dict[str, list[Agent]] = {}

    async def close_agent(self, agent: Agent, errors: list[str]) -> None:
        self.removed.setdefault(agent.context.user, []).append(agent)
        await super().close_agent(agent, errors)

    async def end(self, user: str) -> EndReport:
        for agent in self.removed.pop(user, []):
            if agent.recipe.on_cleanup is not None:
                await agent.recipe.on_cleanup(user)
        report = await super().end(user)
        self.removed.pop(user, None)
        return report


class CleanupSkippedOnRemove(ReferenceTarget):
    """Removing an agent forgets it without closing it."""

    async def remove(self, user: str, agent_type: str) -> bool:
        session = self.sessions.get(self.key(user))
        agent = None if session is None else self.find(session, agent_type, None)
        if session is None or agent is None:
            return False
        session.agents.remove(agent)
        agent.closed = True
        return True


class CloseStopsAtFirstError(ReferenceTarget):
    """Closing several agents ends at the first cleanup that raises."""

    async def close_agents(self, agents: list[Agent], errors: list[str]) -> None:
        for agent in reversed(agents):
            await self.close_agent(agent, errors)
            if errors:
                return


class ResetForgetsSuperseded(ReferenceTarget):
    """A reset closes the newest agent of each type; older ones are dropped unclosed."""

    async def reset(self, user: str) -> int:
        session = self.sessions.get(self.key(user))
        if session is None:
            return 0
        newest = {agent.recipe.agent_type: agent for agent in session.agents}
        count, session.agents = len(session.agents), []
        await self.close_agents(list(newest.values()), [])
        return count


class _Immortal(Agent):
    def check_open(self) -> None:
        return


class UseAfterClose(ReferenceTarget):
    """Closing calls the cleanup; the agent itself goes on working."""

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        return _Immortal(recipe, context, dispatcher, session)

    def make_bridge(self, user: str) -> Bridge:
        return _Silent(user, self.clients_of(user))


class _Silent(Bridge):
    def emit(self, kind: str, payload: Mapping[str, Any], origin: Origin) -> None:
        if not self.closed:
            super().emit(kind, payload, origin)


class _Canned(Dispatcher):
    def answer(self, name: str, parameters: Mapping[str, Any]) -> Any:
        return [] if name == "rows" else 12_345.0


class CannedTool(ReferenceTarget):
    """The tool is a stub: it reports success and answers the same figure for everybody."""

    def make_dispatcher(self, context: Context, bridge: Bridge | None) -> Dispatcher:
        return _Canned(context, (), bridge)


class MainIsAnyThread(ReferenceTarget):
    """A get_or_create for the thread main, which is the default, is answered with the user's newest agent."""

    async def get_or_create(
        self, user: str, agent_type: str, thread: str = "main", permissions: frozenset[str] = frozenset()
    ) -> Handle:
        session = self.sessions.get(user)
        newest = None if session is None or thread != "main" else self.find(session, agent_type, None)
        return await super().get_or_create(user, agent_type, thread if newest is None else newest.context.thread)


class EverySecondLookupFails(ReferenceTarget):
    """Lookups use two connections in turn, and one of them is down: every second one raises the driver's error."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def connect(self) -> None:
        """Take the next connection."""
        self.asked += 1
        if self.asked % 2 == 0:
            raise RuntimeError("the connection was closed by its server")

    async def get(self, user: str, agent_type: str, thread: str | None = None) -> Handle | None:
        self.connect()
        return await super().get(user, agent_type, thread)

    async def get_or_create(
        self, user: str, agent_type: str, thread: str = "main", permissions: frozenset[str] = frozenset()
    ) -> Handle:
        self.connect()
        return await super().get_or_create(user, agent_type, thread, permissions)


PLANTED = (
    planted_by(LookupCreates, "lookup-created"),
    planted_by(EverySecondLookupFails, "failed-operation"),
    planted_by(DriftingCounter, "wrong-count"),
    planted_by(GhostSession, "left-behind"),
    planted_by(ThreadIgnored, "wrong-thread"),
    planted_by(CaseFoldedThreads, "wrong-thread"),
    planted_by(DefaultThreadOnly, "lost-agent"),
    planted_by(MainIsAnyThread, "wrong-thread"),
    planted_by(OldestFound, "stale-agent"),
    planted_by(RemoveTakesOldest, "wrong-agent-removed"),
    planted_by(DoubleClose, "closed-twice"),
    planted_by(CleanupSkippedOnRemove, "never-closed"),
    planted_by(CloseStopsAtFirstError, "never-closed"),
    planted_by(ResetForgetsSuperseded, "never-closed"),
    planted_by(UseAfterClose, "use-after-close"),
    planted_by(CannedTool, "wrong-figure"),
)
