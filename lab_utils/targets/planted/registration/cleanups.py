"""Defects of cleanups: that reach too far, stop too early, take too long, or keep their errors to themselves."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from lab_utils.target import EndReport, Handle
from lab_utils.targets.agent_registry import AgentRegistryTarget
from lab_utils.targets.planted.base import planted_by
from lab_utils.targets.planted.registration.activation import OnlyCreates
from lab_utils.targets.reference import Agent, ReferenceTarget

__all__ = ["PLANTED"]


class CleanupUnderGlobalLock(AgentRegistryTarget):
    """One lock guards the registry, and it is held while agents are made and while they are cleaned up."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = asyncio.Lock()

    async def create(self, user: str, agent_type: str, **options: Any) -> Handle:
        async with self.lock:
            return await super().create(user, agent_type, **options)

    async def end(self, user: str) -> EndReport:
        async with self.lock:
            return await super().end(user)


class EndsOneByOne(ReferenceTarget):
    """Sessions are ended by one worker, one after another."""

    def __init__(self) -> None:
        super().__init__()
        self.worker = asyncio.Lock()

    async def end(self, user: str) -> EndReport:
        async with self.worker:
            return await super().end(user)


class OneLeftOver(ReferenceTarget):
    """The end of all begins with a list that is one short."""

    async def end_all(self) -> EndReport:
        ended = [await self.end(user) for user in list(self.sessions)[: max(1, len(self.sessions) - 1)]]
        return EndReport(bool(ended), sum(report.closed for report in ended), ())


class EndOfAllStopsAtError(ReferenceTarget):
    """The end of all ends one session after another, and stops at the first one with an error."""

    async def end_all(self) -> EndReport:
        closed, errors = 0, tuple[str, ...]()
        for user in list(self.sessions):
            report = await self.end(user)
            closed, errors = closed + report.closed, errors + report.errors
            if errors:
                break
        return EndReport(closed > 0, closed, errors)


class ResetLosesClients(ReferenceTarget):
    """A reset forgets the connections of the user, whose session goes on."""

    async def reset(self, user: str) -> int:
        count = await super().reset(user)
        for client in self.clients.get(user, ()):
            client.open = False
        return count


class StopsAtFirstError(ReferenceTarget):
    """The loop that closes a user's agents ends with the first one that fails."""

    async def close_agents(self, agents: list[Agent], errors: list[str]) -> None:
        for agent in reversed(agents):
            await self.close_agent(agent, errors)
            if errors:
                return


class EndsByPrefix(ReferenceTarget):
    """A user's objects are found by keys that begin with the user id."""

    async def end(self, user: str) -> EndReport:
        for neighbour in [other for other in self.sessions if other.startswith(user) and other != user]:
            await super().end(neighbour)
        return await super().end(user)


class EndsOneByOneUnheard(OnlyCreates, EndsOneByOne):
    """Sessions are ended by one worker, one after another, in a registry that has no clients."""


class NeverCutOff(ReferenceTarget):
    """A cleanup may take as long as it likes."""

    async def close_agent(self, agent: Agent, errors: list[str]) -> None:
        self.close_timeout = 1e6
        await super().close_agent(agent, errors)


class ClosesTwice(ReferenceTarget):
    """An agent is closed with its session and once more by its own finaliser."""

    async def close_agent(self, agent: Agent, errors: list[str]) -> None:
        await super().close_agent(agent, errors)
        agent.closed = False
        await super().close_agent(agent, errors)


class HidesCleanupErrors(ReferenceTarget):
    """Errors of cleanups are caught, so that one does not stop the others, and never reported."""

    async def end(self, user: str) -> EndReport:
        return replace(await super().end(user), errors=())


class ReportsTheFirstError(ReferenceTarget):
    """An end reports the first error alone: of three cleanups that failed nobody hears of two."""

    async def end(self, user: str) -> EndReport:
        report = await super().end(user)
        return replace(report, errors=report.errors[:1])


class FailedCleanupKeepsSession(ReferenceTarget):
    """A session is taken out of the map only when all its cleanups went well."""

    async def end(self, user: str) -> EndReport:
        session = self.sessions.get(user)
        report = await super().end(user)
        if report.errors and session is not None:
            self.sessions.setdefault(user, session)
        return report


PLANTED = (
    planted_by(CleanupUnderGlobalLock, "delayed-by-neighbour"),
    planted_by(EndsOneByOne, "delayed-by-neighbour"),
    planted_by(OneLeftOver, "wrong-count", "never-closed"),
    planted_by(StopsAtFirstError, "agent-not-closed"),
    planted_by(EndOfAllStopsAtError, "never-closed", "agent-not-closed"),
    planted_by(ResetLosesClients, "connection-lost"),
    planted_by(EndsByPrefix, "neighbour-touched"),
    planted_by(EndsOneByOneUnheard, "delayed-by-neighbour", twin=OnlyCreates),
    planted_by(NeverCutOff, "never-ends"),
    planted_by(ClosesTwice, "closed-twice"),
    planted_by(HidesCleanupErrors, "error-not-reported"),
    planted_by(ReportsTheFirstError, "error-not-reported"),
    planted_by(FailedCleanupKeepsSession, "session-left"),
)
