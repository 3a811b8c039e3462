"""Defects that only a schedule shows: each needs one caller to come, to end or to be cancelled at one moment."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

from lab_utils.target import Command, EndReport, Handle, Recipe, Refusal, Refused
from lab_utils.targets.planted.base import planted_by
from lab_utils.targets.planted.memory.capacity import Line, LostAtItsTurn
from lab_utils.targets.planted.registration.activation import TurnForEachAgent
from lab_utils.targets.reference import Agent, Context, Dispatcher, ReferenceTarget, Session

__all__ = ["PLANTED"]


class ForgottenBeforeInstalled(TurnForEachAgent):
    """The table of creates in flight forgets an agent a turn before it can be found: a caller then makes another."""

    def __init__(self) -> None:
        super().__init__()
        self.making: dict[tuple[str, str, str], asyncio.Future[Handle]] = {}

    async def get_or_create(
        self, user: str, agent_type: str, thread: str = "main", permissions: frozenset[str] = frozenset()
    ) -> Handle:
        recipe = self.check_allowed(user, agent_type, permissions, None)
        found = await self.get(user, agent_type, thread)
        if found is not None:
            return found
        key = (user, agent_type, thread)
        while key in self.making:
            with suppress(_Cancelled):
                return await asyncio.shield(self.making[key])
        made = self.making[key] = asyncio.get_running_loop().create_future()
        session, is_new = self.session_for_create(user)
        try:
            agent = await self.build(session, recipe, self.make_context(user, thread, {}, permissions), False)
            if session.closed:
                return await self.install(session, agent)
        except BaseException as error:
            self.undo(session, is_new)
            made.set_exception(_Cancelled() if isinstance(error, asyncio.CancelledError) else error)
            # Waiting callers are not known here, and asyncio would report an error that nobody retrieves.
            made.exception()
            raise
        finally:
            del self.making[key]
        made.set_result(self.handle(agent))
        asyncio.get_running_loop().call_soon(self._put, session, agent)
        return self.handle(agent)

    def _put(self, session: Session, agent: Agent) -> None:
        session.agents.append(agent)
        session.provisional = False


class _Cancelled(Exception):
    """The maker was cancelled: the waiting callers try anew."""


@dataclass
class _Making:
    told: asyncio.Future[Handle]
    task: asyncio.Task[None]
    waiters: int = 0


class UntoldWaiters(ReferenceTarget):
    """The coroutine that makes the agent wakes the waiting callers: if it is cancelled before its first step, it wakes
    none."""

    def __init__(self) -> None:
        super().__init__()
        self.making: dict[tuple[str, str, str], _Making] = {}

    async def get_or_create(
        self, user: str, agent_type: str, thread: str = "main", permissions: frozenset[str] = frozenset()
    ) -> Handle:
        self.check_user(user)
        found = await self.get(user, agent_type, thread)
        if found is not None:
            return found
        key = (user, agent_type, thread)
        making = self.making.get(key)
        if making is None:
            told = asyncio.get_running_loop().create_future()
            task = asyncio.ensure_future(self._make(key, told, permissions))
            making = self.making[key] = _Making(told, task)
        making.waiters += 1
        try:
            return await asyncio.shield(making.told)
        except asyncio.CancelledError:
            making.waiters -= 1
            if not making.waiters:
                making.task.cancel()
                self.making.pop(key, None)
            raise
        finally:
            # The result may be an error, whose traceback holds this frame.
            del making

    async def _make(self, key: tuple[str, str, str], told: asyncio.Future[Handle], permissions: frozenset[str]) -> None:
        try:
            told.set_result(await super().get_or_create(*key, permissions))
        except asyncio.CancelledError:
            told.set_exception(Refused(Refusal.CLOSED, f"the session of {key[0]!r} ended meanwhile"))
        except Exception as error:
            told.set_exception(error)
        finally:
            self.making.pop(key, None)
        # Callers that still wait are not known here, and asyncio would report an error that nobody retrieves.
        told.exception()

    async def end(self, user: str) -> EndReport:
        for (owner, _, _), making in self.making.items():
            if owner == user:
                making.task.cancel()
        return await super().end(user)


class EmptySessionStays(ReferenceTarget):
    """A create opens the next session while the last one is closing, and waits: a caller cancelled there leaves it."""

    def __init__(self) -> None:
        super().__init__()
        self.endings: dict[str, asyncio.Future[None]] = {}

    async def create(self, user: str, agent_type: str, **options: Any) -> Handle:
        if user in self.endings:
            self.session_for_create(user)[0].provisional = False
            await asyncio.wait({self.endings[user]})
        return await super().create(user, agent_type, **options)

    async def end(self, user: str) -> EndReport:
        if self.key(user) not in self.sessions:
            return await super().end(user)
        ending = self.endings[user] = asyncio.get_running_loop().create_future()
        try:
            return await super().end(user)
        finally:
            ending.set_result(None)
            if self.endings[user] is ending:
                del self.endings[user]


class LockKeptOnCancellation(ReferenceTarget):
    """One more await stands between taking the user's lock and the `try` that releases it."""

    async def create(self, user: str, agent_type: str, **options: Any) -> Handle:
        lock = self.lock_of(user)
        await lock.acquire()
        # The table of locks is weak: who holds one keeps it.
        self.held = lock
        if self.key(user) in self.sessions:
            await asyncio.sleep(0)
        lock.release()
        return await super().create(user, agent_type, **options)


class ResurrectedByLateInstall(ReferenceTarget):
    """The end of the session is checked, the agent is announced, and only then installed: an end between is missed."""

    async def install(self, session: Session, agent: Agent) -> Handle:
        if session.closed:
            return await super().install(session, agent)
        await asyncio.sleep(0)
        self.sessions.setdefault(self.key(session.user), session).agents.append(agent)
        session.provisional = False
        return self.handle(agent)


class ResetClearsAfterwards(ReferenceTarget):
    """A reset closes the agents that it found and then empties the list, with any agent made meanwhile."""

    async def reset(self, user: str) -> int:
        session = self.sessions.get(self.key(user))
        if session is None:
            return 0
        agents = list(session.agents)
        await self.close_agents(agents, [])
        session.agents.clear()
        return len(agents)


class RemovedTwice(ReferenceTarget):
    """A remove finds the agent, closes it, and only then takes it off the list: two at once close the same one."""

    async def remove(self, user: str, agent_type: str) -> bool:
        session = self.sessions.get(self.key(user))
        agent = None if session is None else self.find(session, agent_type, None)
        if session is None or agent is None:
            return False
        await self.to_the_end(self.close_agent(agent, []))
        if agent in session.agents:
            session.agents.remove(agent)
        return True


class EndCutShort(ReferenceTarget):
    """An end closes in its caller's own task: a caller who is cancelled leaves the rest unclosed for ever."""

    async def end(self, user: str) -> EndReport:
        session = self.sessions.pop(self.key(user), None)
        if session is None:
            return EndReport(False, 0)
        session.closed = True
        agents, session.agents = session.agents, []
        errors: list[str] = []
        await self.close_session(session, agents, errors)
        return EndReport(True, len(agents), tuple(errors))


class CreateTurnLost(ReferenceTarget):
    """A user's creates take turns. One that is cancelled as its turn comes keeps the turn, and no other ends."""

    line: ClassVar[type[Line]] = LostAtItsTurn

    def __init__(self) -> None:
        super().__init__()
        self.turns: dict[str, Line] = {}

    def lock_of(self, user: str) -> Any:
        return self.turns.setdefault(self.key(user), self.line(1))


class CreatesTakeTurns(CreateTurnLost):
    """The same; a cancelled create passes the turn on."""

    line = Line


class RunTurnLost(ReferenceTarget):
    """An agent's runs take turns. A run that is cancelled as its turn comes keeps the turn, and no other run ends."""

    line: ClassVar[type[Line]] = LostAtItsTurn

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        made: Any = super().make_agent(recipe, context, dispatcher, session)
        made.turn = self.line(1)
        return made  # type: ignore[no-any-return]


class RunsTakeTurns(RunTurnLost):
    """The same; a cancelled run passes the turn on."""

    line = Line


class ReadsInOneTask(ReferenceTarget):
    """A read of an agent that is under way answers all who ask for the same, and ends for all when one is cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: dict[tuple[str, str], asyncio.Task[Any]] = {}

    async def run(self, handle: Handle, command: Command) -> Any:
        if command.action != "read":
            return await super().run(handle, command)
        key = (handle.instance, command.arguments["key"])
        if key not in self.reads:
            read = self.reads[key] = asyncio.ensure_future(super().run(handle, command))
            read.add_done_callback(lambda _: self.reads.pop(key, None))
        return await self.reads[key]


PLANTED = (
    planted_by(ForgottenBeforeInstalled, "double-activation"),
    planted_by(UntoldWaiters, "never-ends"),
    planted_by(EmptySessionStays, "left-behind"),
    planted_by(LockKeptOnCancellation, "never-ends"),
    planted_by(CreateTurnLost, "never-ends", twin=CreatesTakeTurns),
    planted_by(RunTurnLost, "never-ends", twin=RunsTakeTurns),
    planted_by(ResurrectedByLateInstall, "failed-operation"),
    planted_by(ResetClearsAfterwards, "orphaned-agent"),
    planted_by(RemovedTwice, "not-sequential"),
    planted_by(ReadsInOneTask, "cancelled-others"),
    # An agent that nobody closes goes on working for every holder.
    planted_by(EndCutShort, "never-closed", "use-after-close"),
)
