"""Defects of sessions that are ended by time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from lab_utils.target import Command, Handle, Recipe
from lab_utils.targets.planted.base import planted_by
from lab_utils.targets.reference import Agent, Context, ReferenceTarget, Session

__all__ = ["PLANTED"]


class RunDoesNotRenew(ReferenceTarget):
    """A session is idle since its last create, even if its agents have run since."""

    def touch(self, user: str) -> None:
        return


class SweepEndsTheBusy(ReferenceTarget):
    """The sweep looks at times alone: a user who is idle by the clock is ended in the middle of a run."""

    def is_due(self, session: Session) -> bool:
        runs = [(agent, agent.runs) for agent in session.agents]
        for agent, _ in runs:
            agent.runs = set()
        try:
            return super().is_due(session)
        finally:
            for agent, its in runs:
                agent.runs = its


class OnlyTheNewestIsBusy(ReferenceTarget):
    """The sweep looks at the newest agent of each type: one that was superseded as it ran is not seen."""

    def is_due(self, session: Session) -> bool:
        everybody = session.agents
        session.agents = list({agent.recipe.agent_type: agent for agent in everybody}.values())
        try:
            return super().is_due(session)
        finally:
            session.agents = everybody


class SweepEndsWhoMakes(ReferenceTarget):
    """The sweep spares users with a run, but ends those for whom an agent is being made."""

    def is_due(self, session: Session) -> bool:
        lock = self.locks.pop(self.key(session.user), None)
        try:
            return super().is_due(session)
        finally:
            if lock is not None:
                self.locks[self.key(session.user)] = lock


class IdleFromStartOfRun(ReferenceTarget):
    """The idle time begins at the start of a run, so that a sweep ends the session right after a long run."""

    async def run(self, handle: Handle, command: Command) -> Any:
        session = self.sessions.get(self.key(handle.user))
        began = self.time
        try:
            return await super().run(handle, command)
        finally:
            if session is not None:
                session.used = began


class SweepInTurn(ReferenceTarget):
    """The sweep ends one session after the other: each waits until the one before is closed."""

    async def sweep(self) -> Sequence[str]:
        due = [session.user for session in self.sessions.values() if self.is_due(session)]
        for user in due:
            await self.end(user)
        return due


class SweepHoldsTheRegistry(ReferenceTarget):
    """A sweep has the registry to itself: calls that come meanwhile wait until everything due is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.free = asyncio.Event()
        self.free.set()

    async def sweep(self) -> Sequence[str]:
        self.free.clear()
        try:
            return await super().sweep()
        finally:
            self.free.set()

    async def create_with(self, recipe: Recipe, context: Context, connect: bool) -> Handle:
        await self.free.wait()
        return await super().create_with(recipe, context, connect)


class SweepStopsAtFirstError(ReferenceTarget):
    """The sweep stops at the first session that was ended with an error: the due sessions after it stay."""

    async def sweep(self) -> Sequence[str]:
        ended = []
        for session in list(self.sessions.values()):
            if self.is_due(session):
                ended.append(session.user)
                if (await self.end(session.user)).errors:
                    break
        return ended


class SweptUnclosed(ReferenceTarget):
    """The sweep drops sessions from the table, and leaves their agents to the collector."""

    async def sweep(self) -> Sequence[str]:
        due = [session for session in self.sessions.values() if self.is_due(session)]
        for session in due:
            del self.sessions[self.key(session.user)]
            for agent in session.agents:
                agent.closed = True
        return [session.user for session in due]


class SweepsCloseTwice(ReferenceTarget):
    """A session leaves the table when it is closed: a second sweep meanwhile closes it again."""

    async def sweep(self) -> Sequence[str]:
        due = [session for session in self.sessions.values() if self.is_due(session)]
        await asyncio.gather(*(self.close_again(session) for session in due))
        return [session.user for session in due]

    async def close_again(self, session: Session) -> None:
        """Close the agents of a session, closed already or not, and then forget it."""
        errors: list[str] = []
        for agent in session.agents:
            agent.closed = False
            await self.close_agent(agent, errors)
        self.sessions.pop(self.key(session.user), None)


class AgeRenewedByUse(ReferenceTarget):
    """Each use resets a session's age, so that a busy one never grows too old."""

    def touch(self, user: str) -> None:
        super().touch(user)
        session = self.sessions.get(self.key(user))
        if session is not None:
            session.began = self.time


class LookupsRenewAll(ReferenceTarget):
    """A lookup walks the table and renews every session that it passes: a monitor keeps all of them for ever."""

    async def get(self, user: str, agent_type: str, thread: str | None = None) -> Handle | None:
        for session in self.sessions.values():
            session.used = self.time
        return await super().get(user, agent_type, thread)


class AgeSinceLastCreate(ReferenceTarget):
    """A session is as old as its newest agent."""

    async def install(self, session: Session, agent: Agent) -> Handle:
        session.began = self.time
        return await super().install(session, agent)


class UseRenewsNamesakes(ReferenceTarget):
    """A use renews every session whose user's id begins with the user's."""

    def touch(self, user: str) -> None:
        for session in self.sessions.values():
            if session.user.startswith(user):
                session.used = self.time


class GetOrCreateDoesNotRenew(ReferenceTarget):
    """A get_or_create that finds its agent is no use: a sweep ends the session before the agent is run."""

    async def get_or_create(
        self, user: str, agent_type: str, thread: str = "main", permissions: frozenset[str] = frozenset()
    ) -> Handle:
        session = self.sessions.get(self.key(user))
        used, count = (session.used, len(session.agents)) if session is not None else (0.0, -1)
        handle = await super().get_or_create(user, agent_type, thread, permissions)
        if session is not None and len(session.agents) == count:
            session.used = used
        return handle


class FailedRunDoesNotRenew(ReferenceTarget):
    """Only a run that succeeds is a use: a user whose model is down for an hour loses the session."""

    async def run(self, handle: Handle, command: Command) -> Any:
        session = self.sessions.get(self.key(handle.user))
        used = session.used if session is not None else 0.0
        try:
            return await super().run(handle, command)
        except Exception:
            if session is not None:
                session.used = used
            raise


class AdoptedRunDoesNotRenew(ReferenceTarget):
    """An adopted agent knows no session: its runs are no use of the one that holds it."""

    def make_apart(self, user: str, agent_type: str, thread: str = "main") -> Handle:
        apart = super().make_apart(user, agent_type, thread)
        apart.native.is_apart = True
        return apart

    async def run(self, handle: Handle, command: Command) -> Any:
        session = self.sessions.get(self.key(handle.user))
        used = session.used if session is not None else 0.0
        try:
            return await super().run(handle, command)
        finally:
            if session is not None and getattr(handle.native, "is_apart", False):
                session.used = used


class SweepTakesTwenty(ReferenceTarget):
    """A sweep takes the first twenty sessions that are due, and leaves the others to the next one."""

    async def sweep(self) -> Sequence[str]:
        due = [session.user for session in self.sessions.values() if self.is_due(session)][:20]
        await asyncio.gather(*map(self.end, due))
        return due


class SweepEndsWhoWasDue(ReferenceTarget):
    """The sweep lists those who are due, awaits its store, and ends them all, whoever was used meanwhile."""

    async def sweep(self) -> Sequence[str]:
        due = [session.user for session in self.sessions.values() if self.is_due(session)]
        await asyncio.sleep(0)
        await asyncio.gather(*map(self.end, due))
        return due


class SweepsFewAtOnce(ReferenceTarget):
    """The sweep ends four of those who were due at its beginning at once: who waits in its line is used, and ended."""

    at_once = 4

    async def sweep(self) -> Sequence[str]:
        due = [session for session in self.sessions.values() if self.is_due(session)]
        places = asyncio.Semaphore(self.at_once)

        async def end(session: Session) -> None:
            async with places:
                await self.end(session.user)

        await asyncio.gather(*map(end, due))
        return [session.user for session in due]


class CancelledRunStaysBusy(ReferenceTarget):
    """A run whose caller is cancelled is never counted as over: its session is busy for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.stuck: set[str] = set()

    async def run(self, handle: Handle, command: Command) -> Any:
        try:
            return await super().run(handle, command)
        except asyncio.CancelledError:
            self.stuck.add(handle.user)
            raise

    def is_due(self, session: Session) -> bool:
        return session.user not in self.stuck and super().is_due(session)


class SweepEndsWhoFindsOrMakes(ReferenceTarget):
    """The sweep spares a user whose create is under way, and knows nothing of get_or_create: it ends the session in the
    middle of the making."""

    def __init__(self) -> None:
        super().__init__()
        self.finding: set[str] = set()

    async def get_or_create(
        self, user: str, agent_type: str, thread: str = "main", permissions: frozenset[str] = frozenset()
    ) -> Handle:
        self.finding.add(user)
        try:
            return await super().get_or_create(user, agent_type, thread, permissions)
        finally:
            self.finding.discard(user)

    def is_due(self, session: Session) -> bool:
        key = self.key(session.user)
        lock = self.locks.pop(key, None) if session.user in self.finding else None
        try:
            return super().is_due(session)
        finally:
            if lock is not None:
                self.locks[key] = lock


class SweepStopsAtWhoLeft(ReferenceTarget):
    """The sweep goes through its list in small steps, and takes a session that has gone since for the end of it."""

    async def sweep(self) -> Sequence[str]:
        due = [session for session in self.sessions.values() if self.is_due(session)]
        ending: list[asyncio.Task[bool]] = []
        for session in due:
            await asyncio.sleep(0)
            if session.closed:
                break
            ending.append(asyncio.ensure_future(self.end_if_due(session)))
        ended = await asyncio.gather(*ending)
        return [session.user for session, is_ended in zip(due, ended, strict=False) if is_ended]


class AgeRenewedByRemoval(ReferenceTarget):
    """The age of a session counts from the last time that one of its agents was removed."""

    async def remove(self, user: str, agent_type: str) -> bool:
        was_there = await super().remove(user, agent_type)
        if was_there:
            self.sessions[self.key(user)].began = self.time
        return was_there


class AgeOfTheUser(ReferenceTarget):
    """A session is as old as the first one that its user ever had: one who comes again is ended at once."""

    def __init__(self) -> None:
        super().__init__()
        self.came: dict[str, float] = {}

    def is_due(self, session: Session) -> bool:
        session.began = self.came.setdefault(session.user, session.began)
        return super().is_due(session)


PLANTED = (
    planted_by(RunDoesNotRenew, "ended-early"),
    planted_by(SweepEndsTheBusy, "busy-ended"),
    planted_by(SweepEndsWhoMakes, "busy-ended"),
    planted_by(IdleFromStartOfRun, "ended-early"),
    planted_by(SweepInTurn, "waits-for-other"),
    planted_by(SweepHoldsTheRegistry, "waits-for-other"),
    planted_by(SweepStopsAtFirstError, "overdue"),
    planted_by(SweptUnclosed, "never-closed"),
    planted_by(SweepsCloseTwice, "closed-twice"),
    planted_by(AgeRenewedByUse, "overdue"),
    planted_by(LookupsRenewAll, "overdue"),
    planted_by(AgeSinceLastCreate, "overdue"),
    planted_by(UseRenewsNamesakes, "overdue"),
    planted_by(GetOrCreateDoesNotRenew, "ended-early"),
    planted_by(FailedRunDoesNotRenew, "ended-early"),
    planted_by(AdoptedRunDoesNotRenew, "ended-early"),
    planted_by(SweepTakesTwenty, "overdue"),
    planted_by(SweepEndsWhoWasDue, "ended-early"),
    planted_by(SweepsFewAtOnce, "ended-early"),
    planted_by(CancelledRunStaysBusy, "overdue"),
    planted_by(AgeRenewedByRemoval, "overdue"),
    planted_by(AgeOfTheUser, "ended-early"),
    planted_by(OnlyTheNewestIsBusy, "busy-ended"),
    planted_by(SweepEndsWhoFindsOrMakes, "busy-ended"),
    planted_by(SweepStopsAtWhoLeft, "overdue"),
)
