"""Defects of registries that count calls or failures to protect themselves, and count other users' with them."""

from __future__ import annotations

import asyncio
import time
import unicodedata
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, ClassVar

from lab_utils.target import Command, Delivered, EndReport, Handle, Recipe, Refusal, Refused, Subscription
from lab_utils.targets.planted.base import planted_by
from lab_utils.targets.planted.golden_path.prompts import Asking, Between
from lab_utils.targets.reference import Agent, Bridge, Context, ReferenceTarget, Session
from registry import Completion, LLMFailed, Prompt

__all__ = ["PLANTED", "BreakerOfAModelOfAll", "BreakerOfEachUser", "LimitOfEachUser"]


@dataclass
class _Circuit:
    """Open for half a minute after forty failures in a row, and then half open: one call at a time is let in to try."""

    failures: int = 0
    opened_at: float | None = None


class BreakerOfEachUser(ReferenceTarget):
    """Each user's calls of a kind have a circuit breaker of their own."""

    most = 40

    def __init__(self) -> None:
        super().__init__()
        self.circuits: defaultdict[Hashable, _Circuit] = defaultdict(_Circuit)
        self.probes: defaultdict[Hashable, list[Hashable]] = defaultdict(list)

    def circuit_of(self, user: str, kind: str, agent_type: str, tool: str) -> Hashable:
        """The name of the circuit that a call belongs to."""
        return user, kind

    def probes_of(self, circuit: Hashable) -> Hashable:
        """The name of the place that a call on trial takes in a half open circuit."""
        return circuit

    def is_failure(self, error: BaseException) -> bool:
        """Whether an error counts."""
        return isinstance(error, Exception) and not isinstance(error, Refused)

    @contextmanager
    def guarded(self, user: str, kind: str, agent_type: str, tool: str = "") -> Iterator[None]:
        """Refuse a call whose circuit is open; count how it ends."""
        name = self.circuit_of(user, kind, agent_type, tool)
        circuit, probes = self.circuits[name], self.probes[self.probes_of(name)]
        is_probe = circuit.failures >= self.most
        if is_probe and (probes or time.monotonic() < (circuit.opened_at or 0.0) + 30.0):
            raise Refused(Refusal.CAPACITY, "too many failures; try again later")
        if is_probe:
            probes.append(name)
        try:
            yield
        except BaseException as error:
            if self.is_failure(error):
                circuit.failures += 1
                circuit.opened_at = time.monotonic()
            raise
        else:
            circuit.failures = 0
        finally:
            if is_probe:
                probes.remove(name)

    async def run(self, handle: Handle, command: Command) -> Any:
        tool = str(command.arguments.get("name", "")) if command.action == "tool" else ""
        user = handle.native.context.user
        with self.guarded(user, "run", handle.agent_type, tool):
            return await super().run(handle, command)

    async def build(self, session: Session, recipe: Recipe, context: Context, connect: bool) -> Agent:
        with self.guarded(context.user, "create", recipe.agent_type):
            return await super().build(session, recipe, context, connect)


class BreakerOfTool(BreakerOfEachUser):
    """A tool that fails on one user's parameters is closed to all users for a while."""

    def circuit_of(self, user: str, kind: str, agent_type: str, tool: str) -> Hashable:
        return ("tool", tool) if tool else (user, kind)

    def is_failure(self, error: BaseException) -> bool:
        return isinstance(error, LookupError)


class BreakerOfAlikeIds(BreakerOfEachUser):
    """A circuit breaker has the user's id in small letters as its name."""

    def circuit_of(self, user: str, kind: str, agent_type: str, tool: str) -> Hashable:
        return user.lower(), kind


class OneProbeForAll(BreakerOfEachUser):
    """Each user has a circuit breaker, but half open they let in one call on trial for all users together."""

    def probes_of(self, circuit: Hashable) -> Hashable:
        return "everybody's"


class OneAtATimeAfterFailures(ReferenceTarget):
    """After some failed runs, one run at a time is let in on trial until one succeeds, and all others are refused."""

    failures = 0
    probing = False

    async def run(self, handle: Handle, command: Command) -> Any:
        is_probe = self.failures >= 40
        if is_probe and self.probing:
            raise Refused(Refusal.CAPACITY, "the circuit is half open")
        self.probing = self.probing or is_probe
        try:
            answer = await super().run(handle, command)
        except Exception:
            self.failures += 1
            raise
        else:
            self.failures = 0
            return answer
        finally:
            self.probing = self.probing and not is_probe


class WaitersCounted(ReferenceTarget):
    """At most a hundred creates may wait for earlier ones of their users; one that is cancelled in line stays
    counted."""

    waiting = 0

    async def create_with(self, recipe: Recipe, context: Context, connect: bool) -> Handle:
        if self.waiting >= 100:
            raise Refused(Refusal.CAPACITY, "too many creates wait")
        self.waiting += 1
        async with self.lock_of(context.user):
            self.waiting -= 1
        return await super().create_with(recipe, context, connect)


class WaitersCountedOff(WaitersCounted):
    """The same, where each is counted off, whatever becomes of it."""

    async def create_with(self, recipe: Recipe, context: Context, connect: bool) -> Handle:
        if self.waiting >= 100:
            raise Refused(Refusal.CAPACITY, "too many creates wait")
        self.waiting += 1
        try:
            async with self.lock_of(context.user):
                pass
        finally:
            self.waiting -= 1
        return await ReferenceTarget.create_with(self, recipe, context, connect)


class LockOfAlikeIds(ReferenceTarget):
    """Creates of users whose ids differ in case alone wait for each other."""

    def lock_of(self, user: str) -> Any:
        return super().lock_of(user.lower())


class _CountsTheCancelled(Between):
    """Takes the model for broken when five questions in a row were given up."""

    given_up = 0

    def counted(self, user_id: str) -> bool:
        """Whether a question that is given up counts."""
        return True

    async def ask(self, user_id: str, prompt: Prompt) -> Completion:
        if self.given_up >= 5:
            raise LLMFailed("the model is not asked any more")
        try:
            answer = await super().ask(user_id, prompt)
        except asyncio.CancelledError:
            self.given_up += self.counted(user_id)
            raise
        self.given_up = 0
        return answer


class _CountsNoneOfThem(_CountsTheCancelled):
    def counted(self, user_id: str) -> bool:
        return False


class CancelledQuestionsCounted(Asking):
    """Five questions in a row whose callers went away close the model to everybody, as five failures would."""

    between = _CountsTheCancelled


class CancelledQuestionsForgotten(Asking):
    """The same, where they do not count."""

    between = _CountsNoneOfThem


class ClosedForManyFailures(ReferenceTarget):
    """When the factories of five users fail, the registry takes itself for broken: nobody may create for a while."""

    def __init__(self) -> None:
        super().__init__()
        self.failing: set[str] = set()
        self.opened_at = 0.0

    async def build(self, session: Session, recipe: Recipe, context: Context, connect: bool) -> Agent:
        if len(self.failing) >= 5 and time.monotonic() < self.opened_at + 30.0:
            raise Refused(Refusal.CAPACITY, "out of order; try again later")
        try:
            agent = await super().build(session, recipe, context, connect)
        except Refused:
            raise
        except Exception:
            self.failing.add(context.user)
            self.opened_at = time.monotonic()
            raise
        self.failing.discard(context.user)
        return agent


class _ModelOfAll(Between):
    """Takes the model for broken when it fails for five users, and asks it on trial half a minute later."""

    def __init__(self, llm: Any) -> None:
        super().__init__(llm)
        self.failing: set[str] = set()
        self.opened_at = 0.0

    @property
    def is_open(self) -> bool:
        """Whether nobody may ask."""
        return len(self.failing) >= 5 and time.monotonic() < self.opened_at + 30.0

    async def ask(self, user_id: str, prompt: Prompt) -> Completion:
        if self.is_open:
            raise LLMFailed("the model is asked again in half a minute")
        try:
            answer = await super().ask(user_id, prompt)
        except LLMFailed:
            self.failing.add(user_id)
            self.opened_at = time.monotonic()
            raise
        self.failing.clear()
        return answer


class BreakerOfAModelOfAll(Asking):
    """Right: a model that fails for several users is closed to everybody for a while."""

    between = _ModelOfAll


class RunsClosedWithTheModel(BreakerOfAModelOfAll):
    """A model that fails for several users is closed to everybody for a while, and every run with it."""

    async def run(self, handle: Handle, command: Command) -> Any:
        if self.llm.is_open:
            raise Refused(Refusal.CAPACITY, "the model is out of order")
        return await super().run(handle, command)


class _NeverOnTrial(_ModelOfAll):
    @property
    def is_open(self) -> bool:
        return len(self.failing) >= 5


class ModelClosedForGood(BreakerOfAModelOfAll):
    """A model that fails for several users is closed to everybody until an operator comes."""

    between = _NeverOnTrial


class LimitOfEachUser(ReferenceTarget):
    """A user may make eighty calls of a kind a minute."""

    most = 80
    counted: ClassVar[tuple[str, ...]] = ("run", "create")

    def __init__(self) -> None:
        super().__init__()
        self.minute = 0
        self.calls: Counter[Hashable] = Counter()

    def counted_as(self, user: str) -> Hashable:
        """The name under which a user's calls are counted."""
        return user

    def count(self, user: str, kind: str) -> None:
        """Count a call, or refuse it."""
        if kind not in self.counted:
            return
        if (minute := int(time.monotonic() // 60)) != self.minute:
            self.minute = minute
            self.calls.clear()
        self.calls[self.counted_as(user), kind] += 1
        if self.calls[self.counted_as(user), kind] > self.most:
            raise Refused(Refusal.CAPACITY, "too many calls; try again in a minute")

    async def run(self, handle: Handle, command: Command) -> Any:
        self.count(handle.native.context.user, "run")
        return await super().run(handle, command)

    async def create(self, user: str, agent_type: str, **given: Any) -> Handle:
        self.check_user(user)
        self.count(user, "create")
        return await super().create(user, agent_type, **given)


class LimitOfAlikeIds(LimitOfEachUser):
    """Calls are counted under the id without regard to case."""

    def counted_as(self, user: str) -> Hashable:
        return user.casefold()


class LimitOfNormalisedIds(LimitOfEachUser):
    """Calls are counted under the id in its normal form, in which other letters are the same."""

    def counted_as(self, user: str) -> Hashable:
        return unicodedata.normalize("NFKC", user)


class LimitOfTheTenant(LimitOfEachUser):
    """Calls are counted under the part of the id before a colon."""

    def counted_as(self, user: str) -> Hashable:
        return user.partition(":")[0]


class LimitOfTheMailServer(LimitOfEachUser):
    """Calls are counted under the part of the id after an at sign."""

    def counted_as(self, user: str) -> Hashable:
        return user.rpartition("@")[2]


class LimitOfTheBeginning(LimitOfEachUser):
    """Calls are counted under the first sixteen letters of the id."""

    def counted_as(self, user: str) -> Hashable:
        return user[:16]


class LimitOfABucket(LimitOfEachUser):
    """Calls are counted in one of thirty-two numbers, by the user's hash."""

    def counted_as(self, user: str) -> Hashable:
        return zlib.crc32(user.encode()) % 32


class LookupsOfEachUser(LimitOfEachUser):
    """A user may look for agents eighty times a minute."""

    counted = ("get",)

    async def get(self, user: str, agent_type: str, thread: str | None = None) -> Handle | None:
        self.check_user(user)
        self.count(user, "get")
        return await super().get(user, agent_type, thread)


class LookupsOfTheTenant(LookupsOfEachUser):
    """Lookups are counted under the part of the id before a colon."""

    def counted_as(self, user: str) -> Hashable:
        return user.partition(":")[0]


class ConnectionsOfEachUser(LimitOfEachUser):
    """A user may connect eighty times a minute."""

    counted = ("subscribe",)

    def subscribe(self, user: str) -> Subscription:
        self.check_user(user)
        self.count(user, "subscribe")
        return super().subscribe(user)


class ConnectionsOfTheTenant(ConnectionsOfEachUser):
    """Connections are counted under the part of the id before a colon."""

    def counted_as(self, user: str) -> Hashable:
        return user.partition(":")[0]


class EventsOfEachUser(LimitOfEachUser):
    """A user is sent eighty thoughts a minute, and not the rest."""

    counted = ("event",)

    def make_bridge(self, user: str) -> Bridge:
        bridge = _Sparing(user, self.clients_of(user))
        bridge.count = self.count
        return bridge


class _Sparing(Bridge):
    count: Callable[[str, str], None]

    def send(self, event: Delivered) -> None:
        with suppress(Refused):
            if event.type == "agent_thinking":
                self.count(self.user, "event")
            super().send(event)


class EventsOfTheTenant(EventsOfEachUser):
    """Events are counted under the part of the id before a colon."""

    def counted_as(self, user: str) -> Hashable:
        return user.partition(":")[0]


class UnfinishedOfEachUser(ReferenceTarget):
    """A user of whose cleanups thirty ignore their cancellation is refused more agents until some have ended."""

    most = 30

    def __init__(self) -> None:
        super().__init__()
        self.unfinished: Counter[str] = Counter()

    def counted_as(self, user: str) -> str:
        """Whose cleanups are counted together."""
        return user

    def on_ended(self, user: str, cleanup: asyncio.Task[None]) -> None:
        """A cleanup that had ignored its cancellation has ended."""
        self.unfinished[self.counted_as(user)] -= 1

    async def end(self, user: str) -> EndReport:
        known = set(self.abandoned)
        report = await super().end(user)
        for cleanup in self.abandoned - known:
            self.unfinished[self.counted_as(user)] += 1
            cleanup.add_done_callback(lambda cleanup: self.on_ended(user, cleanup))
        return report

    def check_room(self, session: Session) -> None:
        super().check_room(session)
        if self.unfinished[self.counted_as(session.user)] >= self.most:
            raise Refused(Refusal.CAPACITY, f"{self.most} cleanups ignore their cancellation")


class UnfinishedOfAll(UnfinishedOfEachUser):
    """Cleanups that ignore their cancellation are counted together: after thirty of one user nobody gets an agent."""

    def counted_as(self, user: str) -> str:
        return "everybody"


class UnfinishedKeptCounted(UnfinishedOfEachUser):
    """A user of whose cleanups thirty ignored their cancellation is refused for ever, though all have ended since."""

    def on_ended(self, user: str, cleanup: asyncio.Task[None]) -> None:
        pass


class UnfinishedKeptIfFailed(UnfinishedOfEachUser):
    """A cleanup that had ignored its cancellation and ends with an error is counted for ever: the error leaves the code
    that counts it off."""

    def on_ended(self, user: str, cleanup: asyncio.Task[None]) -> None:
        if cleanup.exception() is None:
            super().on_ended(user, cleanup)


PLANTED = (
    planted_by(BreakerOfTool, "interference", twin=BreakerOfEachUser),
    planted_by(BreakerOfAlikeIds, "interference", twin=BreakerOfEachUser),
    planted_by(OneProbeForAll, "interference", twin=BreakerOfEachUser),
    planted_by(OneAtATimeAfterFailures, "interference"),
    planted_by(ClosedForManyFailures, "interference"),
    planted_by(RunsClosedWithTheModel, "interference", twin=BreakerOfAModelOfAll),
    planted_by(ModelClosedForGood, "interference", twin=BreakerOfAModelOfAll),
    planted_by(LimitOfAlikeIds, "interference", twin=LimitOfEachUser),
    planted_by(LimitOfNormalisedIds, "interference", twin=LimitOfEachUser),
    planted_by(LimitOfTheTenant, "interference", twin=LimitOfEachUser),
    planted_by(LimitOfTheMailServer, "interference", twin=LimitOfEachUser),
    planted_by(LimitOfTheBeginning, "interference", twin=LimitOfEachUser),
    planted_by(LimitOfABucket, "interference", twin=LimitOfEachUser),
    planted_by(LookupsOfTheTenant, "interference", twin=LookupsOfEachUser),
    planted_by(ConnectionsOfTheTenant, "interference", twin=ConnectionsOfEachUser),
    planted_by(EventsOfTheTenant, "interference", twin=EventsOfEachUser),
    planted_by(UnfinishedOfAll, "interference", twin=UnfinishedOfEachUser),
    planted_by(UnfinishedKeptCounted, "place-lost", twin=UnfinishedOfEachUser),
    planted_by(UnfinishedKeptIfFailed, "place-lost", twin=UnfinishedOfEachUser),
    planted_by(LockOfAlikeIds, "interference"),
    planted_by(WaitersCounted, "interference", twin=WaitersCountedOff),
    planted_by(CancelledQuestionsCounted, "interference", twin=CancelledQuestionsForgotten),
)
