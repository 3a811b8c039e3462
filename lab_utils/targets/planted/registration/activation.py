"""Defects of activations that race, fail or are cancelled."""

from __future__ import annotations

import asyncio
import zlib
from collections import Counter
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from lab_utils.target import Capability, Command, EndReport, Handle, Recipe, Refusal, Refused
from lab_utils.targets.agent_registry import AgentRegistryTarget
from lab_utils.targets.planted.base import planted_by
from lab_utils.targets.reference import Agent, Context, ReferenceTarget, Session

__all__ = ["PLANTED"]


class CheckThenAwait(AgentRegistryTarget):
    """Get or create is a lookup, an await and a create, without a lock around them."""

    async def get_or_create(
        self, user: str, agent_type: str, thread: str = "main", permissions: frozenset[str] = frozenset()
    ) -> Handle:
        found = await self.get(user, agent_type, thread)
        if found is not None:
            return found
        return await self.create(user, agent_type, thread=thread, permissions=permissions)


class _SharedActivation(ReferenceTarget):
    """Callers await one task for each (user, type, thread), kept while it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.activations: dict[tuple[str, str, str], asyncio.Task[Handle]] = {}

    async def get_or_create(
        self, user: str, agent_type: str, thread: str = "main", permissions: frozenset[str] = frozenset()
    ) -> Handle:
        key = (user, agent_type, thread)
        task = self.activations.get(key)
        if task is None:
            made = super().get_or_create(user, agent_type, thread, permissions)
            task = self.activations[key] = asyncio.ensure_future(made)
            task.add_done_callback(lambda done: self.forget(key, done))
        return await self.joined(task)

    async def joined(self, task: asyncio.Task[Handle]) -> Handle:
        return await asyncio.shield(task)

    def forget(self, key: tuple[str, str, str], task: asyncio.Task[Handle]) -> None:
        self.activations.pop(key, None)


class ActivationSharedByThreads(ReferenceTarget):
    """Who asks while an agent of this type is being made waits for it, and gets it: in whichever thread it was made."""

    def __init__(self) -> None:
        super().__init__()
        self.under_way: dict[tuple[str, str], list[Handle]] = {}

    async def get_or_create(
        self, user: str, agent_type: str, thread: str = "main", permissions: frozenset[str] = frozenset()
    ) -> Handle:
        key, made = (user, agent_type), self.under_way.get((user, agent_type))
        if made is not None:
            async with self.lock_of(user):
                if made:
                    return made[0]
            return await super().get_or_create(user, agent_type, thread, permissions)
        made = self.under_way[key] = []
        try:
            made.append(await super().get_or_create(user, agent_type, thread, permissions))
        finally:
            del self.under_way[key]
        return made[0]


class TurnForEachAgent(ReferenceTarget):
    """Right: who makes an agent has the turn for that type and thread alone, so that two of a user's agents can be made
    at once."""

    def __init__(self) -> None:
        super().__init__()
        self.turns: WeakValueDictionary[tuple[str, str, str], asyncio.Lock] = WeakValueDictionary()
        self.building: Counter[Session] = Counter()

    def lock_of(self, user: str) -> Any:
        return asyncio.Lock()

    def turn(self, user: str, agent_type: str, thread: str) -> asyncio.Lock:
        """The turn, as long as somebody has it or waits for it."""
        key = (user, agent_type, thread)
        lock = self.turns.get(key)
        if lock is None:
            lock = self.turns[key] = asyncio.Lock()
        return lock

    async def create_with(self, recipe: Recipe, context: Context, connect: bool) -> Handle:
        async with self.turn(context.user, recipe.agent_type, context.thread):
            return await super().create_with(recipe, context, connect)

    async def get_or_create(
        self, user: str, agent_type: str, thread: str = "main", permissions: frozenset[str] = frozenset()
    ) -> Handle:
        self.check_user(user)
        async with self.turn(user, agent_type, thread):
            return await super().get_or_create(user, agent_type, thread, permissions)

    async def build(self, session: Session, recipe: Recipe, context: Context, connect: bool) -> Agent:
        self.building[session] += 1
        try:
            return await super().build(session, recipe, context, connect)
        finally:
            self.building[session] -= 1
            if not self.building[session]:
                del self.building[session]

    def undo(self, session: Session, is_new: bool) -> None:
        # The last of those that came to nothing takes the session along.
        super().undo(session, session.provisional and session not in self.building)

    async def install(self, session: Session, agent: Agent) -> Handle:
        if not session.closed:
            try:
                # Another agent may have taken the last place meanwhile.
                self.check_room(session)
            except Refused:
                await self.close_agent(agent, [])
                raise
        return await super().install(session, agent)

    def is_due(self, session: Session) -> bool:
        return session not in self.building and super().is_due(session)


class ActivationsForgottenTogether(TurnForEachAgent):
    """When the making of one agent ends, the others that are being made for the user are forgotten: who asks for one of
    them then has a second one made."""

    async def get_or_create(
        self, user: str, agent_type: str, thread: str = "main", permissions: frozenset[str] = frozenset()
    ) -> Handle:
        try:
            return await super().get_or_create(user, agent_type, thread, permissions)
        finally:
            for key in list(self.turns):
                if key[0] == user and key != (user, agent_type, thread):
                    del self.turns[key]


class CachedFailure(_SharedActivation):
    """A failed activation stays in the table, with its error."""

    def forget(self, key: tuple[str, str, str], task: asyncio.Task[Handle]) -> None:
        if task.cancelled() or task.exception() is None:
            super().forget(key, task)


class FailureKeptWithSession(ReferenceTarget):
    """A session keeps the error with which an agent could not be made: it is gone with a session, and no sooner."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: WeakKeyDictionary[Session, dict[str, Exception]] = WeakKeyDictionary()

    async def build(self, session: Session, recipe: Recipe, context: Context, connect: bool) -> Agent:
        kept = self.kept.setdefault(session, {})
        if recipe.agent_type in kept:
            raise kept[recipe.agent_type]
        try:
            return await super().build(session, recipe, context, connect)
        except Exception as error:
            kept[recipe.agent_type] = error
            raise


class CancelledCallerCancelsOthers(_SharedActivation):
    """Callers await the shared task itself, so a cancelled caller cancels it for everybody."""

    async def joined(self, task: asyncio.Task[Handle]) -> Handle:
        return await task


class ActivationOutlivesCallers(_SharedActivation):
    """The shared task is shielded from everybody: it goes on when the last caller has been cancelled."""


class ActivationOfItsCallers(_SharedActivation):
    """Right: the shared task is cancelled with the last of its callers, and who asks then starts another."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: Counter[asyncio.Task[Handle]] = Counter()

    async def joined(self, task: asyncio.Task[Handle]) -> Handle:
        self.waiting[task] += 1
        try:
            return await super().joined(task)
        finally:
            self.waiting[task] -= 1
            if not self.waiting[task]:
                del self.waiting[task]
                if not task.done():
                    self.forsake(task)

    def forsake(self, task: asyncio.Task[Handle]) -> None:
        """Nobody waits for it any more."""
        task.cancel()
        self.activations = {key: known for key, known in self.activations.items() if known is not task}

    def forget(self, key: tuple[str, str, str], task: asyncio.Task[Handle]) -> None:
        if self.activations.get(key) is task:
            super().forget(key, task)


class StoppingActivationJoined(ActivationOfItsCallers):
    """An activation that was cancelled with its last caller stays in the table until it has stopped: who asks meanwhile
    waits for it, and is cancelled with it."""

    def forsake(self, task: asyncio.Task[Handle]) -> None:
        task.cancel()


class ClosedInPlaceOfCancelled(ReferenceTarget):
    """A create whose session ends meanwhile is refused as such, also where its own caller has cancelled it."""

    async def create_with(self, recipe: Recipe, context: Context, connect: bool) -> Handle:
        session = self.sessions.get(context.user)
        try:
            return await super().create_with(recipe, context, connect)
        except asyncio.CancelledError:
            if session is not None and session.closed:
                raise Refused(Refusal.CLOSED, "the session ended meanwhile") from None
            raise


class InstalledAfterEnd(ReferenceTarget):
    """An agent that was being made when its session ended is handed out, in a session that nobody finds."""

    async def install(self, session: Session, agent: Agent) -> Handle:
        session.agents.append(agent)
        session.provisional = False
        return self.handle(agent)


class EndTrustsItsCancellations(ReferenceTarget):
    """The end of a session cancels the creates in flight, and does not look at them again: an agent whose factory
    answers all the same is handed out, in a session that nobody finds."""

    def __init__(self) -> None:
        super().__init__()
        self.building: set[tuple[str, asyncio.Task[Agent]]] = set()
        self.cancelled: set[asyncio.Task[Agent]] = set()

    async def build(self, session: Session, recipe: Recipe, context: Context, connect: bool) -> Agent:
        task = asyncio.ensure_future(super().build(session, recipe, context, connect))
        entry = (context.user, task)
        self.building.add(entry)
        try:
            return await task
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if task.done() and not task.cancelled() and task.exception() is None:
                await self.close_agent(task.result(), [])
            if caller is not None and not caller.cancelling():
                raise Refused(Refusal.CLOSED, f"the session of {context.user!r} ended meanwhile") from None
            raise
        finally:
            self.building.discard(entry)

    async def end(self, user: str) -> EndReport:
        for owner, task in self.building:
            if owner == user and task.cancel():
                self.cancelled.add(task)
        return await super().end(user)

    async def install(self, session: Session, agent: Agent) -> Handle:
        if not any(agent is task.result() for task in self.cancelled if task.done() and not task.cancelled()):
            return await super().install(session, agent)
        session.agents.append(agent)
        session.provisional = False
        return self.handle(agent)


class EndCancelsItsCallers(ReferenceTarget):
    """The end of a session cancels the tasks in which agents are being made, and takes no cancellation back."""

    def __init__(self) -> None:
        super().__init__()
        self.callers: set[tuple[str, asyncio.Task[Any]]] = set()

    async def build(self, session: Session, recipe: Recipe, context: Context, connect: bool) -> Agent:
        caller = asyncio.current_task()
        assert caller is not None
        entry = (context.user, caller)
        self.callers.add(entry)
        try:
            return await super().build(session, recipe, context, connect)
        except asyncio.CancelledError:
            if session.closed and caller.cancelling() == 1:
                raise Refused(Refusal.CLOSED, f"the session of {context.user!r} ended meanwhile") from None
            raise
        finally:
            self.callers.discard(entry)

    async def end(self, user: str) -> EndReport:
        for owner, caller in self.callers:
            if owner == user:
                caller.cancel()
        return await super().end(user)


class SessionOverwritten(ReferenceTarget):
    """A session is put into the map when its first agent is ready, over one that was quicker."""

    def lock_of(self, user: str) -> asyncio.Lock:
        return asyncio.Lock()

    def session_for_create(self, user: str) -> tuple[Session, bool]:
        return self.sessions.get(user) or Session(user), True

    async def install(self, session: Session, agent: Agent) -> Handle:
        self.sessions[session.user] = session
        return await super().install(session, agent)


class CancelledCreateLeavesOrphan(ReferenceTarget):
    """A create is shielded from its caller's cancellation and installs an agent that no caller receives."""

    async def create(self, user: str, agent_type: str, **options: Any) -> Handle:
        return await asyncio.shield(asyncio.ensure_future(super().create(user, agent_type, **options)))


class CancelledCreateLeavesGhost(ReferenceTarget):
    """A failing create cleans up in `except Exception`, which a cancellation is not: its session stays."""

    async def create(self, user: str, agent_type: str, **options: Any) -> Handle:
        try:
            return await super().create(user, agent_type, **options)
        except asyncio.CancelledError:
            self.session_for_create(user)[0].provisional = False
            raise


class OnlyCreates(ReferenceTarget):
    """Right: no call finds an agent or makes it, and nobody listens."""

    capabilities = ReferenceTarget.capabilities - {Capability.GET_OR_CREATE, Capability.EVENTS}


class OneLockForCreates(OnlyCreates):
    """All creates take one lock, and nothing else is offered than creates: a slow factory holds everybody who comes."""

    def __init__(self) -> None:
        super().__init__()
        self.only = asyncio.Lock()

    def lock_of(self, user: str) -> Any:
        return self.only


class CancelledCreateGoesOn(OnlyCreates):
    """Where agents can only be created, a create goes on without its caller, and the next one makes another agent."""

    async def create(self, user: str, agent_type: str, **options: Any) -> Handle:
        return await asyncio.shield(asyncio.ensure_future(super().create(user, agent_type, **options)))


class StopForgetsCallers(ReferenceTarget):
    """Answers are delivered by a dispatcher that stops first, so that callers still waiting then wait for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.delivering = True

    async def run(self, handle: Handle, command: Command) -> Any:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        work = asyncio.ensure_future(super().run(handle, command))
        work.add_done_callback(lambda done: self.deliver(done, answer))
        try:
            return await answer
        except asyncio.CancelledError:
            work.cancel()
            raise

    def deliver(self, done: asyncio.Future[Any], answer: asyncio.Future[Any]) -> None:
        """Pass on how a run went."""
        error = None if done.cancelled() else done.exception()
        if answer.done() or not self.delivering:
            return
        if done.cancelled():
            answer.cancel()
        elif error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(done.result())

    async def stop(self) -> None:
        self.delivering = False
        await super().stop()


class LocksOf64(ReferenceTarget):
    """A user's creates take one of 64 locks, by the hash of the user: one slow factory holds a 64th of all users."""

    def __init__(self) -> None:
        super().__init__()
        self.stripes = [asyncio.Lock() for _ in range(64)]

    def lock_of(self, user: str) -> Any:
        return self.stripes[zlib.crc32(user.encode()) % 64]


class LockForgottenAtEnd(ReferenceTarget):
    """The end of a session forgets its lock, in whose line callers may wait: those who come next have another one."""

    async def end(self, user: str) -> EndReport:
        self.locks.pop(self.key(user), None)
        return await super().end(user)


class LockForgottenUnderWaiters(ReferenceTarget):
    """Who gives back a user's lock removes it from the table, also while others wait for it: the next comer makes a new
    one."""

    def __init__(self) -> None:
        super().__init__()
        self.table: dict[str, asyncio.Lock] = {}

    def lock_of(self, user: str) -> Any:
        return self.table.setdefault(self.key(user), _Removed(self.table, self.key(user)))


class _Removed(asyncio.Lock):
    """A lock that leaves its table as it is released."""

    def __init__(self, table: dict[str, asyncio.Lock], key: str) -> None:
        super().__init__()
        self._table, self._key = table, key

    def release(self) -> None:
        super().release()
        self._table.pop(self._key, None)


class EarlierCancellationCounts(ReferenceTarget):
    """A create that finds its session ended looks whether its caller was cancelled, ever, and cancels one that was
    cancelled in something else long before."""

    async def install(self, session: Session, agent: Agent) -> Handle:
        try:
            return await super().install(session, agent)
        except Refused:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise asyncio.CancelledError from None
            raise


PLANTED = (
    planted_by(CheckThenAwait, "double-activation"),
    planted_by(ActivationSharedByThreads, "cross-thread-data"),
    planted_by(ActivationsForgottenTogether, "double-activation", twin=TurnForEachAgent),
    planted_by(CachedFailure, "cached-failure"),
    planted_by(FailureKeptWithSession, "cached-failure"),
    planted_by(CancelledCallerCancelsOthers, "cancelled-others"),
    planted_by(ActivationOutlivesCallers, "left-behind"),
    planted_by(StoppingActivationJoined, "cancelled-others", twin=ActivationOfItsCallers),
    planted_by(InstalledAfterEnd, "orphaned-agent"),
    planted_by(EndTrustsItsCancellations, "orphaned-agent"),
    planted_by(EndCancelsItsCallers, "cancellation-left"),
    planted_by(EarlierCancellationCounts, "cancelled-others"),
    planted_by(ClosedInPlaceOfCancelled, "cancellation-lost"),
    planted_by(SessionOverwritten, "wrong-count"),
    planted_by(CancelledCreateLeavesOrphan, "left-behind"),
    planted_by(CancelledCreateLeavesGhost, "left-behind"),
    planted_by(OneLockForCreates, "waits-for-other", twin=OnlyCreates),
    planted_by(CancelledCreateGoesOn, "left-behind", twin=OnlyCreates),
    planted_by(StopForgetsCallers, "left-waiting"),
    planted_by(LocksOf64, "waits-for-other"),
    planted_by(LockForgottenAtEnd, "double-activation"),
    planted_by(LockForgottenUnderWaiters, "double-activation"),
)
