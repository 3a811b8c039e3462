"""Defects of how many agents and users there may be."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from dataclasses import replace
from typing import Any

from lab_utils.target import EndReport, Handle, Recipe, Refusal, Refused
from lab_utils.targets.planted.base import planted_by
from lab_utils.targets.reference import Context, ReferenceTarget, Session

__all__ = ["PLANTED"]


class CapCheckedBeforeTheFactory(ReferenceTarget):
    """The limit is checked before the agent's factory runs, without a lock."""

    async def create_with(self, recipe: Recipe, context: Context, connect: bool) -> Handle:
        session, is_new = self.session_for_create(context.user)
        try:
            self.check_room(session)
            agent = await self.build(session, recipe, context, connect)
        except BaseException:
            self.undo(session, is_new)
            raise
        return await self.install(session, agent)


class RefusedStillCounted(ReferenceTarget):
    """Each attempt is counted, and a refused one is not taken back: a user who asks too often is shut out."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: Counter[str] = Counter()

    def check_room(self, session: Session) -> None:
        most = self.bounds.agents_per_user
        if most is not None and len(session.agents) + self.refused[session.user] >= most:
            self.refused[session.user] += 1
            raise Refused(Refusal.CAPACITY, f"{session.user!r} has {most} agents, the limit")


class PlaceKeptByFailure(ReferenceTarget):
    """A place is reserved before the factory runs, and released only by the closing of an agent."""

    def __init__(self) -> None:
        super().__init__()
        self.lost: Counter[str] = Counter()

    def check_room(self, session: Session) -> None:
        most = self.bounds.agents_per_user
        if most is not None and len(session.agents) + self.lost[session.user] >= most:
            raise Refused(Refusal.CAPACITY, f"{session.user!r} has {most} agents, the limit")

    async def create_with(self, recipe: Recipe, context: Context, connect: bool) -> Handle:
        try:
            return await super().create_with(recipe, context, connect)
        except Refused:
            raise
        except BaseException:
            self.lost[context.user] += 1
            raise


class PlaceKeptByExit(PlaceKeptByFailure):
    """A reserved place is given back for each Exception and each cancellation, and not for another BaseException."""

    async def create_with(self, recipe: Recipe, context: Context, connect: bool) -> Handle:
        try:
            return await ReferenceTarget.create_with(self, recipe, context, connect)
        except (Exception, asyncio.CancelledError):
            raise
        except BaseException:
            self.lost[context.user] += 1
            raise


class PlaceKeptInLine(PlaceKeptByFailure):
    """A place is reserved before the user's turn comes, and a create that is cancelled in line keeps it."""

    async def create_with(self, recipe: Recipe, context: Context, connect: bool) -> Handle:
        try:
            async with self.lock_of(context.user):
                pass  # Its turn has come.
        except asyncio.CancelledError:
            self.lost[context.user] += 1
            raise
        return await ReferenceTarget.create_with(self, recipe, context, connect)


class PlaceKeptByRefusal(PlaceKeptByFailure):
    """A place is reserved before the permissions are looked at, and stays reserved when they are refused."""

    async def create(self, user: str, agent_type: str, **given: Any) -> Handle:
        try:
            return await ReferenceTarget.create(self, user, agent_type, **given)
        except Refused as refusal:
            if refusal.kind is Refusal.PERMISSION:
                self.lost[user] += 1
            raise

    async def create_with(self, recipe: Recipe, context: Context, connect: bool) -> Handle:
        return await ReferenceTarget.create_with(self, recipe, context, connect)


class PlaceKeptByRefusedAdoption(PlaceKeptByRefusal):
    """A place is reserved for an agent that is adopted, and kept when the agent turns out to be another user's."""

    async def create(self, user: str, agent_type: str, **given: Any) -> Handle:
        return await ReferenceTarget.create(self, user, agent_type, **given)

    async def adopt(self, user: str, handle: Handle) -> None:
        try:
            await super().adopt(user, handle)
        except Refused as refusal:
            self.lost[user] += refusal.kind is Refusal.BOUNDARY
            raise


class CapSharedByHash(ReferenceTarget):
    """Agents are counted in sixteen buckets, by the hash of their user: each bucket has the limit of one user."""

    def check_room(self, session: Session) -> None:
        bucket = hash(session.user) % 16
        count = sum(len(one.agents) for one in self.sessions.values() if hash(one.user) % 16 == bucket)
        most = self.bounds.agents_per_user
        if most is not None and count >= most:
            raise Refused(Refusal.CAPACITY, f"{session.user!r} has {most} agents, the limit")


class CapOfEachThread(ReferenceTarget):
    """Agents are counted in each thread of a user, and each thread has the user's limit."""

    async def create_with(self, recipe: Recipe, context: Context, connect: bool) -> Handle:
        self.thread = context.thread
        return await super().create_with(recipe, context, connect)

    def check_room(self, session: Session) -> None:
        count = sum(agent.context.thread == self.thread for agent in session.agents)
        most = self.bounds.agents_per_user
        if most is not None and count >= most:
            raise Refused(Refusal.CAPACITY, f"{session.user!r} has {most} agents in {self.thread!r}, the limit")


class BusyMakesRoom(ReferenceTarget):
    """In a full house the oldest agent is evicted, even while it runs."""

    def check_room(self, session: Session) -> None:
        most = self.bounds.agents_per_user
        if most is not None and len(session.agents) >= most:
            agent = session.agents.pop(0)
            agent.closed = True
            for run in agent.runs:
                run.cancel()
            if agent.recipe.on_cleanup is not None:
                self.to_close(agent.recipe.on_cleanup(session.user))

    def to_close(self, cleanup: object) -> None:
        """Call a cleanup that ends at once."""
        try:
            cleanup.send(None)  # type: ignore[attr-defined]  # A coroutine.
        except StopIteration:
            return


class EvictedUnclosed(ReferenceTarget):
    """In a full house the oldest idle agent is evicted, without its cleanup."""

    def check_room(self, session: Session) -> None:
        most = self.bounds.agents_per_user
        if most is None or len(session.agents) < most:
            return
        idle = next((agent for agent in session.agents if not agent.runs), None)
        if idle is None:
            raise Refused(Refusal.CAPACITY, f"{session.user!r} has {most} agents, the limit")
        session.agents.remove(idle)
        idle.closed = True


class CapForgottenByGetOrCreate(ReferenceTarget):
    """The limit is checked by `create`; `get_or_create` makes an agent beyond it."""

    async def get_or_create(
        self, user: str, agent_type: str, thread: str = "main", permissions: frozenset[str] = frozenset()
    ) -> Handle:
        bounds, self.bounds = self.bounds, type(self.bounds)()
        try:
            return await super().get_or_create(user, agent_type, thread, permissions)
        finally:
            self.bounds = bounds


class InsidersRefused(ReferenceTarget):
    """A full house refuses every create, even for users who are in it."""

    async def create_with(self, recipe: Recipe, context: Context, connect: bool) -> Handle:
        if self.bounds.users is not None and len(self.sessions) >= self.bounds.users:
            raise Refused(Refusal.CAPACITY, f"{self.bounds.users} users are here, the limit")
        return await super().create_with(recipe, context, connect)


class UserCapForgottenByAdoption(ReferenceTarget):
    """An adoption is let in, however many users are there."""

    async def adopt(self, user: str, handle: Handle) -> None:
        bounds, self.bounds = self.bounds, type(self.bounds)(agents_per_user=self.bounds.agents_per_user)
        try:
            await super().adopt(user, handle)
        finally:
            self.bounds = bounds


class UserCapCheckedBeforeTheFactory(ReferenceTarget):
    """A new user's session is kept once the first agent is made; the limit is checked before that, without a lock."""

    def session_for_create(self, user: str) -> tuple[Session, bool]:
        known = {session.user for session in self.sessions.values() if not session.provisional}
        bounds = self.bounds
        if bounds.users is not None and len(known) < bounds.users:
            # Those whose agent is being made are not there yet.
            self.bounds = type(bounds)(agents_per_user=bounds.agents_per_user)
        try:
            return super().session_for_create(user)
        finally:
            self.bounds = bounds


class RefusedNewcomerRemembered(ReferenceTarget):
    """A new user is entered in the list that counts users before the limit is checked; a refused one stays on it."""

    def __init__(self) -> None:
        super().__init__()
        self.entered: set[str] = set()

    def session_for_create(self, user: str) -> tuple[Session, bool]:
        most = self.bounds.users
        if most is not None:
            self.entered.add(user)
            if user not in self.sessions and len(self.entered) > most:
                raise Refused(Refusal.CAPACITY, f"{most} users are here, the limit")
        return super().session_for_create(user)

    def undo(self, session: Session, is_new: bool) -> None:
        super().undo(session, is_new)
        self.entered.discard(session.user)

    async def end(self, user: str) -> EndReport:
        self.entered.discard(user)
        return await super().end(user)


class PlaceKeptByFailedCleanup(ReferenceTarget):
    """A user whose agent's cleanup fails is gone, but still counts against the limit."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = 0

    def session_for_create(self, user: str) -> tuple[Session, bool]:
        most = self.bounds.users
        if most is not None and user not in self.sessions and len(self.sessions) + self.kept >= most:
            raise Refused(Refusal.CAPACITY, f"{most} users are here, the limit")
        return super().session_for_create(user)

    async def end(self, user: str) -> EndReport:
        report = await super().end(user)
        self.kept += bool(report.errors)
        return report


class PlaceGivenBackTwice(ReferenceTarget):
    """A cancelled create gives back a place that it had not taken yet: later one agent more is let in."""

    def __init__(self) -> None:
        super().__init__()
        self.given_back: Counter[str] = Counter()

    def check_room(self, session: Session) -> None:
        most = self.bounds.agents_per_user
        if most is not None and len(session.agents) - self.given_back[session.user] >= most:
            raise Refused(Refusal.CAPACITY, f"{session.user!r} has {most} agents, the limit")

    async def create_with(self, recipe: Recipe, context: Context, connect: bool) -> Handle:
        try:
            return await super().create_with(recipe, context, connect)
        except asyncio.CancelledError:
            self.given_back[context.user] += 1
            raise


class EveryEndMakesRoom(ReferenceTarget):
    """Each end gives back a user's place, also one of a user who has no session: later one user more is let in."""

    def __init__(self) -> None:
        super().__init__()
        self.given_back = 0

    def session_for_create(self, user: str) -> tuple[Session, bool]:
        bounds = self.bounds
        if bounds.users is not None:
            self.bounds = replace(bounds, users=bounds.users + self.given_back)
        try:
            return super().session_for_create(user)
        finally:
            self.bounds = bounds

    async def end(self, user: str) -> EndReport:
        report = await super().end(user)
        self.given_back += not report.found
        return report


class SessionBeforePermission(ReferenceTarget):
    """A new user's session is opened before type and permissions are looked at, and stays when they are refused: no
    count names it, but it has a place."""

    async def create(self, user: str, agent_type: str, **options: Any) -> Handle:
        self.check_user(user)
        self.session_for_create(user)
        return await super().create(user, agent_type, **options)


class NewcomerKeptByExit(ReferenceTarget):
    """A new user's session that comes to nothing is forgotten after an Exception and a cancellation, and after no other
    BaseException."""

    def undo(self, session: Session, is_new: bool) -> None:
        if isinstance(sys.exception(), (Exception, asyncio.CancelledError)):
            super().undo(session, is_new)


class NewcomerKeptByRefusedAdoption(ReferenceTarget):
    """A new user's session is opened before it is looked at whose the adopted agent is, and stays with its place."""

    async def adopt(self, user: str, handle: Handle) -> None:
        self.session_for_create(user)
        await super().adopt(user, handle)


class CancelledBeforeItsTurn(ReferenceTarget):
    """A create opens the new user's session and then takes a turn: one that is cancelled there leaves it behind."""

    async def create_with(self, recipe: Recipe, context: Context, connect: bool) -> Handle:
        self.session_for_create(context.user)
        await asyncio.sleep(0)
        return await super().create_with(recipe, context, connect)


PLANTED = (
    planted_by(CapCheckedBeforeTheFactory, "over-limit"),
    planted_by(RefusedStillCounted, "place-lost"),
    planted_by(PlaceKeptByFailure, "place-lost"),
    planted_by(PlaceKeptByExit, "place-lost"),
    planted_by(PlaceKeptInLine, "place-lost"),
    planted_by(PlaceKeptByRefusal, "place-lost"),
    planted_by(PlaceKeptByRefusedAdoption, "place-lost"),
    planted_by(CapSharedByHash, "limit-shared"),
    planted_by(CapOfEachThread, "over-limit"),
    planted_by(BusyMakesRoom, "busy-ended"),
    planted_by(EvictedUnclosed, "never-closed"),
    planted_by(CapForgottenByGetOrCreate, "over-limit"),
    planted_by(InsidersRefused, "insider-refused"),
    planted_by(UserCapForgottenByAdoption, "over-limit"),
    planted_by(UserCapCheckedBeforeTheFactory, "over-limit"),
    planted_by(RefusedNewcomerRemembered, "place-lost"),
    planted_by(PlaceKeptByFailedCleanup, "place-lost"),
    planted_by(PlaceGivenBackTwice, "over-limit"),
    planted_by(EveryEndMakesRoom, "over-limit"),
    planted_by(SessionBeforePermission, "place-lost"),
    planted_by(NewcomerKeptByExit, "place-lost"),
    planted_by(NewcomerKeptByRefusedAdoption, "place-lost"),
    planted_by(CancelledBeforeItsTurn, "place-lost"),
)
