"""Defects that lose a part of a shared resource with each interrupted call; one interruption alone shows nothing."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar

from lab_utils.target import EndReport, Handle, PlannedStep, Recipe, Refusal, Refused, SupervisionReport
from lab_utils.targets.agent_registry import AgentRegistryTarget
from lab_utils.targets.planted.base import planted_by
from lab_utils.targets.planted.isolation.interrupted import ReplyLeftOnTheWire
from lab_utils.targets.reference import Agent, Bridge, Context, Dispatcher, ReferenceTarget, Session

__all__ = ["PLANTED", "Line", "LostAtItsTurn"]


class _Pooled(Agent):
    pool: Any = None

    async def run(self, action: str, arguments: Mapping[str, Any], run: str) -> Any:
        await self.pool.acquire()
        await asyncio.sleep(0)  # The connection is opened.
        try:
            return await super().run(action, arguments, run)
        finally:
            self.pool.release()


class _PooledRightly(_Pooled):
    async def run(self, action: str, arguments: Mapping[str, Any], run: str) -> Any:
        async with self.pool:
            await asyncio.sleep(0)
            return await Agent.run(self, action, arguments, run)


class _OverAPool(ReferenceTarget):
    """Every run has a place of a pool that all share."""

    agent: ClassVar[type[_Pooled]] = _Pooled
    pool: ClassVar[Callable[[], Any]]

    def __init__(self) -> None:
        super().__init__()
        self.shared = type(self).pool()

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        made = self.agent(recipe, context, dispatcher, session)
        made.pool = self.shared
        return made

    def trusted(self) -> Any:
        return [*super().trusted(), self.shared]


class SlotLostOnCancellation(_OverAPool):
    """One of ten connections is opened between taking it and the `try` that gives it back."""

    pool = staticmethod(lambda: asyncio.Semaphore(10))


class HundredthSlotLost(_OverAPool):
    """The same with a hundred connections: no test ever uses up the last."""

    pool = staticmethod(lambda: asyncio.Semaphore(100))


class _Shrinking(asyncio.Semaphore):
    """Ten places, of which three are never given up."""

    def __init__(self) -> None:
        super().__init__(10)
        self.places = 10


class _LosesAPlace(_Pooled):
    async def run(self, action: str, arguments: Mapping[str, Any], run: str) -> Any:
        await self.pool.acquire()
        try:
            answer = await Agent.run(self, action, arguments, run)
        except asyncio.CancelledError:
            if self.pool.places > 3:
                self.pool.places -= 1
            else:
                self.pool.release()
            raise
        except BaseException:
            self.pool.release()
            raise
        self.pool.release()
        return answer


class _GivesBackTooMuch(_Pooled):
    async def run(self, action: str, arguments: Mapping[str, Any], run: str) -> Any:
        try:
            await asyncio.sleep(0)  # The connection is opened.
            await self.pool.acquire()
            return await Agent.run(self, action, arguments, run)
        finally:
            self.pool.release()


class PoolThatShrinks(_OverAPool):
    """A connection whose caller is cancelled is closed and not replaced, down to three of ten: everybody is served."""

    agent = _LosesAPlace
    pool = _Shrinking


class PoolThatGrows(_OverAPool):
    """One of ten places is also given back by a caller who was cancelled on the way to it: the limit grows."""

    agent = _GivesBackTooMuch
    pool = staticmethod(lambda: asyncio.Semaphore(10))


class PoolOfTen(_OverAPool):
    """Ten connections, each given back whatever comes."""

    agent = _PooledRightly
    pool = staticmethod(lambda: asyncio.Semaphore(10))


class _ConnectingPool(asyncio.Semaphore):
    """Two connections. A cancelled caller throws one away, and a new one takes more than a second."""

    def __init__(self) -> None:
        super().__init__(2)
        self.thrown_away = 0


class _Reconnecting(_Pooled):
    async def run(self, action: str, arguments: Mapping[str, Any], run: str) -> Any:
        async with self.pool:
            if self.pool.thrown_away:
                self.pool.thrown_away -= 1
                await asyncio.sleep(1.2)
            try:
                await asyncio.sleep(0)
                return await Agent.run(self, action, arguments, run)
            except asyncio.CancelledError:
                self.pool.thrown_away = min(2, self.pool.thrown_away + 1)
                raise


class PoolThatReconnects(_OverAPool):
    """A lost connection is replaced for the next caller, who waits for that."""

    agent = _Reconnecting
    pool = _ConnectingPool


class _Turns:
    """A semaphore made at home, over a queue of waiting callers."""

    forgets = False

    def __init__(self, size: int = 4) -> None:
        self.free = size
        self.queue: deque[asyncio.Future[None]] = deque()

    async def acquire(self) -> None:
        if not self.free:
            mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.queue.append(mine)
            try:
                await mine
            except asyncio.CancelledError:
                if self.forgets:
                    self._forget(mine)
                raise
            return
        self.free -= 1
        # The bookkeeping, during which a caller may be cancelled.
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            if self.forgets:
                self.release()
            raise

    def _forget(self, mine: asyncio.Future[None]) -> None:
        if mine in self.queue:
            self.queue.remove(mine)
        elif not mine.cancelled():
            self.release()

    def release(self) -> None:
        while self.queue:
            first = self.queue.popleft()
            if not first.done():
                first.set_result(None)
                return
        self.free += 1

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *_: object) -> None:
        self.release()


class _TurnsForgotten(_Turns):
    forgets = True


class TurnTakenByTheCancelled(_OverAPool):
    """A semaphore made at home counts a place as taken before its caller has it."""

    agent = _PooledRightly
    pool = _Turns


class TurnGivenOn(_OverAPool):
    """The same semaphore, which gives the place on."""

    agent = _PooledRightly
    pool = _TurnsForgotten


class Line:
    """A semaphore made at home; a place that is given back is handed to the first in line."""

    def __init__(self, places: int = 20) -> None:
        self.free = places
        self.waiting: deque[asyncio.Future[None]] = deque()

    async def __aenter__(self) -> None:
        if self.free:
            self.free -= 1
            return
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            self.left(mine)
            raise

    async def __aexit__(self, *_: object) -> None:
        self.give_back()

    def left(self, mine: asyncio.Future[None]) -> None:
        """A caller was cancelled in line, or when the place had been handed to it."""
        if mine in self.waiting:
            self.waiting.remove(mine)
        elif not mine.cancelled():
            self.give_back()

    def give_back(self) -> None:
        while self.waiting:
            first = self.waiting.popleft()
            if not first.done():
                first.set_result(None)
                return
        self.free += 1


class LostAtItsTurn(Line):
    def left(self, mine: asyncio.Future[None]) -> None:
        if mine in self.waiting:
            self.waiting.remove(mine)


class _StaysInLine(Line):
    def left(self, mine: asyncio.Future[None]) -> None:
        if mine not in self.waiting and not mine.cancelled():
            self.give_back()

    def give_back(self) -> None:
        if not self.waiting:
            self.free += 1
        elif not (first := self.waiting.popleft()).done():
            first.set_result(None)


class _WakesTheCancelled(Line):
    def give_back(self) -> None:
        if self.waiting and not (first := self.waiting.popleft()).done():
            first.set_result(None)
        else:
            self.free += 1


class _GivesBackInLine(Line):
    def left(self, mine: asyncio.Future[None]) -> None:
        if mine in self.waiting:
            self.waiting.remove(mine)
        self.give_back()


class PlaceLostAtItsTurn(_OverAPool):
    """A place is lost if it is handed to the first in line and they are cancelled before they go on."""

    agent = _PooledRightly
    pool = LostAtItsTurn


class CancelledStayInLine(_OverAPool):
    """A caller who is cancelled in line stays in the queue, and a place that is handed to them is lost."""

    agent = _PooledRightly
    pool = _StaysInLine


class NobodyWokenBehind(_OverAPool):
    """If a place is given back while the first in line is being cancelled, the next in line is not woken."""

    agent = _PooledRightly
    pool = _WakesTheCancelled


class PlaceNeverHeld(_OverAPool):
    """A caller who is cancelled in line gives back a place that they never had."""

    agent = _PooledRightly
    pool = _GivesBackInLine


class LineLeftRightly(_OverAPool):
    """The same line: a cancelled caller leaves it, and passes on a place that was handed to them."""

    agent = _PooledRightly
    pool = Line


class FactoryLostAtItsTurn(ReferenceTarget):
    """At most twenty factories are at work; one that is cancelled as its turn comes loses its place."""

    line: ClassVar[type[Line]] = LostAtItsTurn

    def __init__(self) -> None:
        super().__init__()
        self.places = self.line()

    async def build(self, session: Session, recipe: Recipe, context: Context, connect: bool) -> Agent:
        async with self.places:
            return await super().build(session, recipe, context, connect)

    def trusted(self) -> Any:
        return [*super().trusted(), self.places]


class FactoriesInLine(FactoryLostAtItsTurn):
    """At most twenty factories are at work, and no place is lost."""

    line = Line


class LostInALongFarewell(ReferenceTarget):
    """At most twenty factories are at work; a cancelled one gives its place back after some turns, in the third of
    which a second cancellation keeps it."""

    def __init__(self) -> None:
        super().__init__()
        self.places = asyncio.Semaphore(20)

    async def build(self, session: Session, recipe: Recipe, context: Context, connect: bool) -> Agent:
        await self.places.acquire()
        try:
            made = await super().build(session, recipe, context, connect)
        except BaseException:
            await self.give_back()
            raise
        self.places.release()
        return made

    async def give_back(self) -> None:
        for _ in range(2):
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        await asyncio.sleep(0)
        self.places.release()

    def trusted(self) -> Any:
        return [*super().trusted(), self.places]


class KeptInNoFarewell(LostInALongFarewell):
    """The same, and the place is given back whatever comes."""

    async def give_back(self) -> None:
        try:
            for _ in range(3):
                await asyncio.sleep(0)
        finally:
            self.places.release()


class _Leases(asyncio.Semaphore):
    """Places that a watchman takes back half a minute after they were given."""

    def __init__(self) -> None:
        super().__init__(20)
        self.leases: dict[object, asyncio.TimerHandle] = {}

    async def acquire(self) -> Any:
        await super().acquire()
        task = asyncio.current_task()
        self.leases[task] = asyncio.get_running_loop().call_later(30, self._expired, task)
        return True

    def release(self) -> None:
        lease = self.leases.pop(asyncio.current_task(), None)
        if lease is not None:
            lease.cancel()
            super().release()

    def _expired(self, task: object) -> None:
        del self.leases[task]
        super().release()


class LostUntilTheLeaseEnds(_OverAPool):
    """A lost place comes back when its lease ends, and until then everybody waits."""

    pool = _Leases


class FactoriesCounted(ReferenceTarget):
    """At most forty factories are at work at once; one that raises a BaseException, not an Exception, is counted for
    ever."""

    def __init__(self) -> None:
        super().__init__()
        self.at_work = 0

    async def build(self, session: Session, recipe: Recipe, context: Context, connect: bool) -> Agent:
        if self.at_work >= 40:
            raise Refused(Refusal.CAPACITY, "forty factories are at work")
        self.at_work += 1
        try:
            made = await super().build(session, recipe, context, connect)
        except (Exception, asyncio.CancelledError):
            self.at_work -= 1
            raise
        self.at_work -= 1
        return made


class EndingsCounted(ReferenceTarget):
    """At most forty endings are under way; one whose cleanup raises a BaseException, not an Exception, is counted
    for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.under_way = 0

    async def end(self, user: str) -> EndReport:
        if self.under_way >= 40:
            raise Refused(Refusal.CAPACITY, "forty endings are under way")
        self.under_way += 1
        try:
            report = await super().end(user)
        except asyncio.CancelledError:
            self.under_way -= 1
            raise
        self.under_way -= not any("Exited" in error for error in report.errors)
        return report


class RemovalsCounted(ReferenceTarget):
    """At most forty removals are under way; a cancelled one is counted for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.under_way = 0

    async def remove(self, user: str, agent_type: str) -> bool:
        if self.under_way >= 40:
            raise Refused(Refusal.CAPACITY, "forty removals are under way")
        self.under_way += 1
        removed = await super().remove(user, agent_type)
        self.under_way -= 1
        return removed


class ResetsCounted(ReferenceTarget):
    """At most forty resets are under way; a cancelled one is counted for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.under_way = 0

    async def reset(self, user: str) -> int:
        if self.under_way >= 40:
            raise Refused(Refusal.CAPACITY, "forty resets are under way")
        self.under_way += 1
        closed = await super().reset(user)
        self.under_way -= 1
        return closed


class PlansInAGroup(AgentRegistryTarget):
    """Plans run in a task group, and what user code exits with reaches the caller in the group's error."""

    async def supervise(self, user: str, plan: Sequence[PlannedStep]) -> SupervisionReport:
        # In a task of its own: on Python 3.11 a group whose task fails leaves its caller a cancellation.
        return await asyncio.ensure_future(self._grouped(super().supervise(user, plan)))

    async def _grouped(self, work: Coroutine[Any, Any, SupervisionReport]) -> SupervisionReport:
        async with asyncio.TaskGroup() as group:
            plan = group.create_task(work)
        return plan.result()


class PlansCounted(PlansInAGroup):
    """At most forty plans are under way; a cancelled one is counted for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.plans = 0

    async def supervise(self, user: str, plan: Sequence[PlannedStep]) -> SupervisionReport:
        if self.plans >= 40:
            raise Refused(Refusal.CAPACITY, "forty plans are under way")
        self.plans += 1
        try:
            report = await super().supervise(user, plan)
        except asyncio.CancelledError:
            raise
        except BaseException:
            self.plans -= 1
            raise
        self.plans -= 1
        return report


class _LosesAPlaceLate(_Pooled):
    async def run(self, action: str, arguments: Mapping[str, Any], run: str) -> Any:
        await self.pool.acquire()
        self.has_place = True
        try:
            return await Agent.run(self, action, arguments, run)
        finally:
            if self.has_place:
                self.pool.release()

    def copy_out(self, answer: Any) -> Any:
        self.has_place = False
        copy = super().copy_out(answer)
        self.has_place = True
        return copy


class PlaceLostAfterTheWork(_OverAPool):
    """A run whose answer cannot be copied keeps its place, for its work was done by then."""

    agent = _LosesAPlaceLate
    pool = staticmethod(lambda: asyncio.Semaphore(40))


class RefusedCounted(ReferenceTarget):
    """At most forty creates are under way; one of an unknown type is counted for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.under_way = 0

    async def create(self, user: str, agent_type: str, **given: Any) -> Handle:
        if self.under_way >= 40:
            raise Refused(Refusal.CAPACITY, "forty creates are under way")
        self.under_way += 1
        try:
            return await super().create(user, agent_type, **given)
        except Refused as refused:
            self.under_way += refused.kind is Refusal.UNKNOWN_TYPE
            raise
        finally:
            self.under_way -= 1


class _CountingTools(Dispatcher):
    under_way: deque[str]

    async def call(self, name: str, parameters: Mapping[str, Any], emit: Any) -> Any:
        if len(self.under_way) >= 40:
            raise Refused(Refusal.CAPACITY, "forty calls of tools are under way")
        self.under_way.append(name)
        is_known = True
        try:
            return await super().call(name, parameters, emit)
        except Refused as refused:
            is_known = refused.kind is not Refusal.UNKNOWN_TOOL
            raise
        finally:
            if is_known:
                self.under_way.remove(name)


class RefusedToolsCounted(ReferenceTarget):
    """At most forty calls of tools are under way; one of an unknown tool is counted for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.under_way = deque[str]()

    def make_dispatcher(self, context: Context, bridge: Bridge | None) -> Dispatcher:
        made = _CountingTools(context, self.rows.get(context.user, ()), bridge)
        made.under_way = self.under_way
        return made

    def trusted(self) -> Any:
        return [*super().trusted(), self.under_way]


class _Wires:
    """Fifty connections, used in turn, which answer in the order of the requests."""

    def __init__(self) -> None:
        self.replies: deque[deque[Any]] = deque(deque[Any]() for _ in range(50))

    async def ask(self, reply: Any) -> Any:
        wire = self.replies[0]
        self.replies.rotate(-1)
        wire.append(reply)
        await asyncio.sleep(0)
        return wire.popleft()


class FiftyConnectionsLeftDirty(ReplyLeftOnTheWire):
    """A cancelled call leaves its reply in one of fifty connections, which comes round long afterwards."""

    resource: ClassVar[Callable[[], Any]] = _Wires


_Either = ReferenceTarget | AgentRegistryTarget


PLANTED = (
    planted_by(SlotLostOnCancellation, "capacity-lost", twin=PoolOfTen),
    planted_by(HundredthSlotLost, "capacity-lost", twin=PoolOfTen),
    planted_by(PoolThatShrinks, "capacity-lost", twin=PoolOfTen),
    planted_by(PoolThatGrows, "over-limit", twin=PoolOfTen),
    planted_by(TurnTakenByTheCancelled, "capacity-lost", twin=TurnGivenOn),
    planted_by(PlaceLostAtItsTurn, "capacity-lost", twin=LineLeftRightly),
    planted_by(CancelledStayInLine, "capacity-lost", twin=LineLeftRightly),
    planted_by(NobodyWokenBehind, "capacity-lost", twin=LineLeftRightly),
    planted_by(PlaceNeverHeld, "over-limit", twin=LineLeftRightly),
    planted_by(FactoryLostAtItsTurn, "capacity-lost", twin=FactoriesInLine),
    planted_by(LostInALongFarewell, "capacity-lost", twin=KeptInNoFarewell),
    planted_by(LostUntilTheLeaseEnds, "capacity-lost", twin=PoolOfTen),
    planted_by(FactoriesCounted, "capacity-lost"),
    planted_by(EndingsCounted, "capacity-lost"),
    planted_by(RemovalsCounted, "capacity-lost", twin=PoolThatReconnects),
    planted_by(ResetsCounted, "capacity-lost"),
    planted_by(PlansCounted, "capacity-lost", twin=PlansInAGroup),
    planted_by(PlaceLostAfterTheWork, "capacity-lost", twin=PoolOfTen),
    planted_by(RefusedToolsCounted, "capacity-lost"),
    planted_by(RefusedCounted, "capacity-lost"),
    planted_by(FiftyConnectionsLeftDirty, "cross-user-data"),
)
