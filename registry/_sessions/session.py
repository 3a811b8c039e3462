"""UserAgentSession: everything that belongs to one user in this process."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Coroutine, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import CoroutineType, MappingProxyType
from typing import Any, Final, TypeGuard, TypeVar, cast

from registry._sessions.attempts import InFlight, OwnCreate, SharedAttempt
from registry._sessions.closing import (
    NO_CLEANUP,
    ClosingReport,
    close_agents,
    close_at_once,
    log_errors,
    stop_agents,
)
from registry._sessions.driver import Driven, Until, Waitable
from registry._sessions.factory import build_agent
from registry._sessions.reports import AgentsReport, SessionMetrics
from registry._sessions.shared import Runtime
from registry.agent import AgentFactory, BaseAgent, make_scope
from registry.context import UserExecutionContext
from registry.eager import begin, start
from registry.errors import (
    AgentCreationFailed,
    CapacityExceeded,
    Containment,
    ContextBoundaryError,
    InvalidAgent,
    RegistryError,
    SessionClosed,
    a_type,
    describe,
    shown,
    stops,
)
from registry.events.bridge import AgentWebSocketBridge, SilentBridge
from registry.events.types import BridgeSource, EventBridge
from registry.identity import check_id, plain_str
from registry.lease import CLOSED, Lifetime, SessionLifetime, Uncopyable

__all__ = ["Completed", "UserAgentSession"]

T = TypeVar("T")
_BRIDGE: Final = Containment("a bridge or its manager")


class Completed:
    """The answer of a call that has taken effect already; awaiting it is allowed and does nothing."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, None]:
        return
        yield


class BridgeOffer:
    """A bridge of one manager, for as long as calls that brought the manager are under way. With the last of them it is
    closed, unless it is the session's then."""

    __slots__ = ("attempt", "bridge", "calls", "is_replaced", "manager")

    def __init__(self, manager: BridgeSource) -> None:
        self.manager = manager
        self.bridge: EventBridge | None = None
        self.attempt: SharedAttempt[EventBridge] | None = None
        self.calls = 0
        self.is_replaced = False

    def forget(self, _: object) -> None:
        """The bridge has been made or could not be, or nobody waits for it any more."""
        self.attempt = None


class BridgeOffers:
    """The offers under way. Calls are numbered: of those that succeed, the latest decides which bridge stays."""

    __slots__ = ("asked", "chosen", "open")

    def __init__(self) -> None:
        self.open: list[BridgeOffer] = []
        self.asked = 0
        self.chosen = 0

    def find(self, manager: BridgeSource) -> BridgeOffer | None:
        """The latest of this manager that has a bridge or will have one."""
        for offer in reversed(self.open):
            if offer.manager is manager and (offer.bridge is not None or offer.attempt is not None):
                return offer
        return None


class UserAgentSession(Uncopyable):
    """Everything that belongs to one user in this process: agents, their contexts and handles, and the bridge.

    Ended by the registry; afterwards every async method raises `SessionClosed` and nothing of the user is kept.
    """

    __slots__ = (
        "__weakref__",
        "_activations",
        "_agents",
        "_closings",
        "_in_flight",
        "_life",
        "_manager",
        "_offers",
        "_runtime",
        "created_at",
        "is_provisional",
    )

    def __init__(self, user_id: str, runtime: Runtime) -> None:
        limits = runtime.limits
        life = self._life = SessionLifetime(
            user_id, runtime.clock, runtime.guard.home, SilentBridge, runtime.bounds, limits.max_runs_per_agent
        )
        self._runtime = runtime
        self.created_at = life.last_used
        # Until its first create has succeeded, or somebody asked for the session itself, it is not counted and may go.
        self.is_provisional = True
        # In the order of their creation. Lookups are linear in them, which `Limits.max_agents_per_user` bounds.
        self._agents: list[BaseAgent] = []
        # Made when first needed: most sessions most of the time have nothing under way.
        self._in_flight: set[InFlight] | None = None
        self._closings: set[Driven[None]] | None = None
        self._offers: BridgeOffers | None = None
        # Whose bridge this is; None also while the creates that brought the first manager are under way.
        self._manager: BridgeSource | None = None
        self._activations: dict[tuple[str, str], SharedAttempt[BaseAgent]] | None = None

    @property
    def user_id(self) -> str:
        """The one user all of this belongs to."""
        return self._life.user_id

    @property
    def last_used(self) -> float:
        """When the session last made, activated or ran an agent, by the registry's clock, in seconds."""
        return self._life.last_used

    @property
    def is_closed(self) -> bool:
        """True once the session has begun to end."""
        return not self._life.is_open

    @property
    def agents(self) -> Mapping[str, BaseAgent]:
        """The newest live agent of each type, as a read-only mapping made at this read."""
        return MappingProxyType({agent._agent_type: agent for agent in self._agents})

    @property
    def agent_count(self) -> int:
        """Live agents, those superseded by a newer one included."""
        return len(self._agents)

    @property
    def bridge(self) -> EventBridge:
        """The bridge that is set now."""
        bridge: EventBridge = self._life.bridge
        return bridge

    async def set_websocket_manager(
        self, manager: BridgeSource | None, user_context: UserExecutionContext | None = None
    ) -> None:
        """Ask the manager for a new bridge, which replaces the old one for every agent of the session.

        None goes back to no manager. The old bridge is closed once the new one is there; if making it fails, the old
        one stays. A manager that a later call brings stays also if this one ends last.
        Raises `SessionClosed`, `ContextBoundaryError` for another user's context or bridge, `TypeError`.
        """
        self._life.require_home()
        self._life.require_open()
        if user_context is not None and user_context.user_id != self.user_id:
            raise ContextBoundaryError(
                f"context of user {user_context.user_id!r} was offered to the session of user {self.user_id!r}"
            )
        if manager is None:
            if self._offers is not None:
                self._offers.asked += 1
                self._offers.chosen = self._offers.asked
            self._choose_bridge(SilentBridge(self.user_id), None)
        else:
            self._require_few_in_flight()
            offered = await self._offer_bridge(manager, user_context or UserExecutionContext(self.user_id), anew=True)
            self._close_offer(*offered, succeeded=True)
            self._life.require_open()

    async def get_agent(self, agent_type: str, thread_id: str | None = None) -> BaseAgent | None:
        """Return the newest agent of this type (in this thread), or None. Creates nothing."""
        self._life.require_home()
        self._life.require_open()
        return self.find(agent_type, thread_id)

    def register_agent(self, agent_type: str, agent: BaseAgent) -> Completed:
        """Adopt an agent that was made elsewhere for the same user; it takes effect at once.

        From then on its context, and everything made on that context, shares the session's life and bridge. The answer
        may be awaited, which does nothing more. Raises `ContextBoundaryError` for another user's agent or one that has
        an owner already, `InvalidAgent` for any other object, `InvalidIdentifier`, `CapacityExceeded`, `SessionClosed`.
        """
        self._runtime.guard.enter_sync()
        self._life.require_open()
        agent_type = check_id("agent_type", agent_type)
        if not isinstance(agent, BaseAgent):
            raise InvalidAgent(f"{shown(agent)} is {a_type(agent)}; a session holds BaseAgent objects")
        context = agent.scope.context
        if context.user_id != self.user_id:
            raise ContextBoundaryError(
                f"agent of user {context.user_id!r} was offered to the session of user {self.user_id!r}"
            )
        if agent._life not in (None, self._life) or context._life not in (None, self._life):
            raise ContextBoundaryError(f"{agent._shown()} belongs to a session already; an agent has one owner")
        self._make_room(agent_type, context.thread_id)
        context._bind(self._life)
        agent.scope = make_scope(context, agent.scope.tools, self._life, agent.scope.llm)
        agent._life = Lifetime(agent_type, self._life)
        agent._agent_type = agent_type
        self._install(agent)
        return Completed()

    async def cleanup_all_agents(self) -> AgentsReport:
        """Close every agent this session holds; the session stays. Return
        `{"user_id": ..., "cleaned_agents": n, "errors": [...]}`."""
        self._life.require_home()
        self._life.require_open()
        report = await self.close_all()
        return {"user_id": self.user_id, "cleaned_agents": report.closed, "errors": report.errors}

    def get_metrics(self) -> SessionMetrics:
        """Return counts and times of this session; times in seconds by the registry's clock."""
        self._runtime.guard.enter_sync()
        now = self._runtime.clock()
        return {
            "user_id": self.user_id,
            "total_agents": len(self._agents),
            "running_agents": sum(agent.is_running for agent in self._agents),
            "agent_types": sorted({agent._agent_type for agent in self._agents}),
            "has_websocket_bridge": not _is_silent(self._life.set_bridge),
            "in_flight": len(self._in_flight or ()),
            "uptime_seconds": now - self.created_at,
            "idle_seconds": now - self._life.last_used,
        }

    # For the registry only.

    @property
    def is_busy(self) -> bool:
        """True while an agent runs or anything is being made."""
        return bool(self._in_flight) or any(agent._pending for agent in self._agents)

    def iter_agents(self) -> Iterator[BaseAgent]:
        """Every live agent, oldest first."""
        return iter(tuple(self._agents))

    def find(self, agent_type: str, thread_id: str | None) -> BaseAgent | None:
        """The newest live agent of a type, in one thread or in any."""
        if type(agent_type) is not str or (thread_id is not None and type(thread_id) is not str):
            # A subclass of str may lie about its equality.
            agent_type = plain_str(agent_type)
            thread_id = None if thread_id is None else check_id("thread_id", thread_id)
        for agent in reversed(self._agents):
            if agent._agent_type == agent_type and (thread_id is None or agent.scope.context.thread_id == thread_id):
                return agent
        if thread_id is not None:
            check_id("thread_id", thread_id)
        return None

    async def create(
        self,
        agent_type: str,
        factory: AgentFactory,
        context: UserExecutionContext,
        manager: BridgeSource | None,
        *,
        single: bool = False,
    ) -> BaseAgent:
        """Make and install an agent, or if `single` return the one of (type, thread), as `activate` does. On any
        failure nothing stays, neither a bridge of the manager nor a provisional session."""
        if self._in_flight:
            self._require_few_in_flight()
        entry = OwnCreate(self._begin_work)
        offered: tuple[BridgeOffer, int] | None = None
        is_made = False
        try:
            if manager is not None and (manager is not self._manager or self._offers is not None):
                entry.begin()
                offered = await self._offer_bridge(manager, context)
            bridge = None if offered is None else offered[0].bridge
            if single:
                entry.begin()
                agent = await self.activate(agent_type, factory, context, bridge, 1)
                is_made = True
                return agent
            agent = await build_agent(agent_type, factory, context, self._life, self._runtime, bridge, entry.begin)
            try:
                self._life.require_open()
                self._make_room(agent_type, context.thread_id)
            except RegistryError:
                entry.begin()
                log_errors(self.user_id, (await self._close([agent])).errors)
                raise
            # No await from here: an agent that is installed is an agent that its caller gets.
            self._install(agent)
            is_made = True
            return agent
        except BaseException as error:
            instead = entry.instead_of(error)
            if instead is None:
                raise
            try:
                raise instead from None
            finally:
                # Its traceback holds this frame: a cycle, if it stayed here.
                del instead
        finally:
            if offered is not None:
                self._close_offer(*offered, succeeded=is_made)
            if entry.has_begun:
                self._end_work(entry)
                entry.end()
            elif not is_made:
                self._drop_if_unused()

    async def activate(
        self,
        agent_type: str,
        factory: AgentFactory,
        context: UserExecutionContext,
        bridge: EventBridge | None = None,
        own: int = 0,
    ) -> BaseAgent:
        """Return the one agent of (type, thread), found or made once for all who ask meanwhile. `own`: the creates that
        its caller has in flight.

        Raises `ReentrantCreate` where its factory asks for it.
        """
        found = self.find(agent_type, context.thread_id)
        if found is not None:
            # Its caller is about to run it: a sweep between the two would refuse that run.
            found._touch()
            return found
        if self._activations is None:
            self._activations = {}
        key = (agent_type, context.thread_id)
        attempt = self._activations.get(key)
        if attempt is None:
            self._require_few_in_flight(own)
            # No await from lookup to insert: this alone makes the activation single.
            attempt = self._activations[key] = SharedAttempt(
                f"agent {agent_type!r} of user {self.user_id!r} in thread {context.thread_id!r}",
                _begun(agent_type, factory, context, self._life, self._runtime, bridge),
                accept=self._accept_agent,
                reject=self._throw_away,
                forget=self._forget_activation,
                ended=self._end_work,
            )
            self._begin_work(attempt)
        return await attempt.join()

    async def close_all(self) -> ClosingReport:
        """Detach and close all agents."""
        agents = self._take_agents()
        # It stays, and is counted again as one that holds none.
        self._runtime.census[0] += not self.is_provisional
        return await self._close(agents)

    async def close_one(self, agent: BaseAgent) -> None:
        """Detach and close one agent; errors of its cleanup are logged."""
        self._detach(agent)
        log_errors(self.user_id, (await self._close([agent])).errors)

    def end_plainly(self) -> int | None:
        """End a session whose members need no closing. Return the number of agents it held; None if something needs
        closing, and then nothing is done.

        Most sessions need none, and this takes half the time of `end_at_once`.
        """
        life, agents = self._life, self._agents
        if self._in_flight or self._closings or life.set_bridge is not None or life._kept is not None:
            return None
        try:
            for agent in agents:
                if agent._pending or agent.cleanup.__func__ is not NO_CLEANUP:  # type: ignore[attr-defined]
                    return None
        except BaseException as error:
            # Not a method, or a property that raises: `cleanup_of` deals with it.
            if stops(error):
                raise
            return None
        # Without calls of other functions, which would take as long as all this.
        for agent in agents:
            if agent._life is not None:
                agent._life.state = CLOSED
        if not self.is_provisional:
            self._runtime.census[len(agents)] -= 1
        self._agents = []
        self._manager = None
        life.state = CLOSED
        return len(agents)

    def end_at_once(self, report: ClosingReport) -> list[BaseAgent] | None:
        """Begin to end: nothing new may begin from here on. Return None if that was all, else the agents left."""
        self._life.close()
        agents = self._take_agents()
        if self._in_flight or self._closings:
            self._refuse_in_flight()
            stop_agents(agents)
            return agents
        left = close_at_once(agents, report)
        if left or self._has_foreign_bridge:
            return left
        self._finish(report)
        return None

    async def end(
        self, agents: list[BaseAgent], report: ClosingReport, before: Driven[ClosingReport] | None
    ) -> ClosingReport:
        """Cancel everything in flight, close the agents that are left and the bridge, all within one deadline, which
        counts from here. Then wait for the end of the same user's earlier session. Return the report. To be driven."""
        timeout = self._runtime.limits.close_timeout
        deadline = self._runtime.driver.time() + timeout
        try:
            in_flight = tuple(self._in_flight) if self._in_flight else ()
            waits: Sequence[Waitable] = self._refuse_in_flight()
            if waits:
                await Until(waits, deadline - timeout / 2)
            foreign = self._has_foreign_bridge
            if agents:
                # A foreign bridge is closed last, for a cleanup may emit; it needs some time of its own.
                await close_agents(agents, report, self._runtime, deadline - (timeout / 8 if foreign else 0.0))
            if foreign:
                await _close_bridge(self._life.bridge, self.user_id, report, self._runtime, deadline)
            if waits or self._closings:
                await Until((*waits, *(self._closings or ())), deadline)
            for entry in in_flight:
                if entry in (self._in_flight or ()):
                    report.errors.append("something that was being made ignores its cancellation; abandoned")
                    left = entry.give_up()
                    if left is not None:
                        self._runtime.abandon(left, self.user_id)
        finally:
            self._finish(report)
        if before is not None:
            await Until((before,), None)
        return report

    @property
    def _has_foreign_bridge(self) -> bool:
        """True for a bridge whose closing may take time, or fail."""
        bridge = self._life.set_bridge
        return bridge is not None and not _closes_at_once(bridge)

    def _refuse_in_flight(self) -> Sequence[asyncio.Future[Any]]:
        if not self._in_flight:
            return ()
        ended = f"the session of user {self.user_id!r} ended while this was in flight"
        entries = list(self._in_flight)
        return [wait for entry in entries if (wait := entry.refuse(SessionClosed(ended))) is not None]

    def _finish(self, report: ClosingReport) -> None:
        life = self._life
        self._manager = None
        bridge = life.set_bridge
        if bridge is not None and _closes_at_once(bridge):
            bridge.close()
        if life.has_kept:
            report.errors += life.release_kept()
        life.end()

    # The agents. The registry's census counts them, and must be changed with them.

    def count(self) -> None:
        """Somebody asked for the session itself: it is not provisional any more."""
        if self.is_provisional:
            self.is_provisional = False
            self._runtime.census[0] += 1

    def _take_agents(self) -> list[BaseAgent]:
        """Detach all agents, and let nobody count the session."""
        agents = self._agents
        if agents:
            self._agents = []
        if not self.is_provisional:
            self._runtime.census[len(agents)] -= 1
        return agents

    def _make_room(self, agent_type: str, thread_id: str) -> None:
        """Evict the least recently used superseded idle agent if one more would exceed the cap.

        Superseded: not the newest of its (type, thread). Raises `CapacityExceeded` where none can go.
        """
        if len(self._agents) < self._runtime.limits.max_agents_per_user:
            return
        newest = {(agent_type, thread_id)}
        victim: BaseAgent | None = None
        for agent in reversed(self._agents):
            key = (agent._agent_type, agent.scope.context.thread_id)
            if key not in newest:
                newest.add(key)
            elif not agent._pending and (victim is None or agent._used < victim._used):
                victim = agent
        if victim is None:
            raise CapacityExceeded(
                f"user {self.user_id!r} has reached the limit of agents, {len(self._agents)}, and none of them is both "
                "superseded and idle; remove one, or raise Limits.max_agents_per_user"
            )
        self._detach(victim)
        self._throw_away(victim)

    def _install(self, agent: BaseAgent) -> None:
        """Hold an agent, as the newest. No await from `_make_room` to here, or the cap does not hold."""
        census = self._runtime.census
        held = len(self._agents)
        if self.is_provisional:
            self.is_provisional = False
        else:
            census[held] -= 1
            if held + 1 == len(census):
                census.append(0)
        census[held + 1] += 1
        self._agents.append(agent)
        agent._used = self._life.touch()

    def _detach(self, agent: BaseAgent) -> None:
        """Hold it no more."""
        # By identity: an agent may define an equality of its own.
        for index, known in enumerate(self._agents):
            if known is agent:
                census = self._runtime.census
                census[len(self._agents)] -= 1
                del self._agents[index]
                census[len(self._agents)] += 1
                return

    def _accept_agent(self, agent: BaseAgent) -> BaseAgent:
        """Install the product of an activation, unless a create was quicker: all callers get one agent."""
        context = agent.scope.context
        # No await in here: from the look to the insert nobody else can install one.
        quicker = self.find(agent._agent_type, context.thread_id)
        if quicker is not None:
            self._throw_away(agent)
            return quicker
        try:
            self._life.require_open()
            self._make_room(agent._agent_type, context.thread_id)
        except RegistryError:
            self._throw_away(agent)
            raise
        self._install(agent)
        return agent

    def _forget_activation(self, attempt: SharedAttempt[BaseAgent]) -> None:
        for key, known in (self._activations or {}).items():
            if known is attempt:
                assert self._activations is not None
                del self._activations[key]
                break
        if not self._activations:
            self._activations = None

    # The bridge.

    async def _offer_bridge(
        self, manager: BridgeSource, context: UserExecutionContext, *, anew: bool = False
    ) -> tuple[BridgeOffer, int]:
        """See to it that there is a bridge of this manager, a new one if `anew`; return the offer and the number of
        this call. To be followed by `_close_offer`."""
        offers = self._offers
        if offers is None:
            offers = self._offers = BridgeOffers()
        offers.asked += 1
        number = offers.asked
        # No await from the look to the insert: calls with one manager share a bridge.
        offer = None if anew else offers.find(manager)
        if offer is None:
            offer = BridgeOffer(manager)
            offers.open.append(offer)
        offer.calls += 1
        try:
            if offer.bridge is None and offer.attempt is None:
                if manager is self._manager and not anew:
                    offer.bridge = self._life.bridge
                else:
                    self._make_bridge(offer, context)
            if offer.attempt is not None:
                await offer.attempt.join()
        except BaseException:
            self._close_offer(offer, number, succeeded=False)
            raise
        return offer, number

    def _close_offer(self, offer: BridgeOffer, number: int, *, succeeded: bool) -> None:
        """A call that had brought a manager has ended. No await from its success to here."""
        offers, bridge, life = self._offers, offer.bridge, self._life
        assert offers is not None
        offer.calls -= 1
        if succeeded and bridge is not None and life.is_open and number > offers.chosen:
            offers.chosen = number
            self._choose_bridge(bridge, offer.manager)
        if offer.calls:
            return
        offers.open.remove(offer)
        if not offers.open:
            self._offers = None
        if bridge is None:
            return
        if bridge is life.set_bridge:
            # Once the session ends, that closes the bridge.
            if self._manager is not None or not life.is_open:
                return
            life.set_bridge = None
        if type(bridge) is AgentWebSocketBridge and not offer.is_replaced:
            bridge.withdraw()
        else:
            self._close_replaced(bridge)

    def _make_bridge(self, offer: BridgeOffer, context: UserExecutionContext) -> None:
        self._runtime.require_obedience(self.user_id)
        try:
            with _BRIDGE:
                create_bridge = getattr(offer.manager, "create_bridge", None)
                if not callable(create_bridge):
                    raise TypeError(
                        f"{a_type(offer.manager)} is not a websocket manager: "
                        f"it has no create_bridge(user_context){_hint(offer.manager)}"
                    )
                made = create_bridge(context)
                if type(made) is AgentWebSocketBridge or not inspect.isawaitable(made):
                    self._bridge_made(offer, made)
                    return
        except asyncio.CancelledError:
            # Raised without an await: nobody has cancelled the caller.
            raise AgentCreationFailed("create_bridge() was cancelled from within") from None
        offer.attempt = SharedAttempt(
            f"the bridge of user {self.user_id!r}",
            _awaited(made),
            accept=partial(self._bridge_made, offer),
            reject=self._reject_bridge,
            forget=offer.forget,
            ended=partial(self._end_bridging, made),
        )
        self._begin_work(offer.attempt)

    def _end_bridging(self, made: Awaitable[EventBridge], attempt: SharedAttempt[EventBridge]) -> None:
        if type(made) is CoroutineType:
            # One that was cancelled before its first step was never awaited.
            made.close()
        self._end_work(attempt)

    def _bridge_made(self, offer: BridgeOffer, bridge: object) -> EventBridge:
        life = self._life
        with _BRIDGE:
            checked = offer.bridge = _check_bridge(bridge, self.user_id)
        is_first = self._offers is not None and not self._offers.chosen
        if is_first and life.is_open and _is_silent(life.set_bridge):
            # The first manager's clients also receive the events that are emitted while the agent is made.
            if life.set_bridge is not None:
                life.set_bridge.close()
            life.set_bridge = checked
        return checked

    def _reject_bridge(self, bridge: EventBridge) -> None:
        # A bridge of somebody else's is not ours to close.
        with suppress(Exception), _BRIDGE:
            self._close_replaced(_check_bridge(bridge, self.user_id))

    def _choose_bridge(self, bridge: EventBridge, manager: BridgeSource | None) -> None:
        """From now on every event of the session goes over this bridge."""
        self._manager = manager
        old, self._life.set_bridge = self._life.set_bridge, bridge
        if old is None or old is bridge:
            return
        for offer in self._offers.open if self._offers is not None else ():
            if offer.bridge is old:
                # A call that brought its manager may yet succeed.
                offer.is_replaced = True
                return
        self._close_replaced(old)

    def _close_replaced(self, bridge: EventBridge) -> None:
        if _closes_at_once(bridge):
            bridge.close()
        else:
            self._keep_closing(_close_bridge_and_log(bridge, self.user_id, self._runtime))

    # Creates in flight, and agents being closed.

    def _require_few_in_flight(self, own: int = 0) -> None:
        most = self._runtime.limits.max_creates_per_user
        if most is not None and self._in_flight is not None and len(self._in_flight) - own >= most:
            raise CapacityExceeded(
                f"of user {self.user_id!r} {len(self._in_flight) - own} agents and bridges are being made "
                "(Limits.max_creates_per_user); await some of them, or raise that limit"
            )

    def _begin_work(self, entry: InFlight) -> None:
        """Note something that is being made: ending the session cancels it and waits for it. Raises `SessionClosed`."""
        self._life.require_open()
        if self._in_flight is None:
            self._in_flight = set()
        self._in_flight.add(entry)

    def _end_work(self, entry: InFlight) -> None:
        """Remove a finished attempt. When the last one of a provisional session ends, and no agent came of it, drop the
        session."""
        if self._in_flight is not None:
            self._in_flight.discard(entry)
            if not self._in_flight:
                self._in_flight = None
                self._drop_if_unused()

    def _drop_if_unused(self) -> None:
        if self.is_provisional and self._life.is_open and not self._in_flight:
            self._runtime.on_unused(self)

    async def _close(self, agents: list[BaseAgent]) -> ClosingReport:
        """Close agents that the session holds no more, also after a cancelled caller if one needs time."""
        report = ClosingReport()
        left = close_at_once(agents, report)
        if left:
            await self._keep_closing(close_agents(left, report, self._runtime)).joined()
        return report

    def _throw_away(self, agent: BaseAgent) -> None:
        """Close an agent for which nobody waits."""
        report = ClosingReport()
        if close_at_once([agent], report):
            self._keep_closing(_close_agent_and_log(agent, report, self._runtime))
        else:
            log_errors(self.user_id, report.errors)

    def _keep_closing(self, work: Coroutine[Any, None, None]) -> Driven[None]:
        """Have a closing driven, for which the session's end waits."""
        closing = self._runtime.drive(work, self)
        if self._closings is None:
            self._closings = set()
        self._closings.add(closing)
        return closing

    def driven_ended(self, driven: Driven[None]) -> None:
        """A closing has ended."""
        if self._closings is not None:
            self._closings.discard(driven)
            if not self._closings:
                self._closings = None

    def __repr__(self) -> str:
        state = " closed" if self.is_closed else ""
        return f"<UserAgentSession user={self.user_id!r} agents={len(self._agents)}{state}>"


def _check_bridge(bridge: object, user_id: str) -> EventBridge:
    """Return it, or raise: `ContextBoundaryError` for another user's, `SessionClosed` for a used one, `TypeError`."""
    if not callable(getattr(bridge, "emit", None)):
        raise TypeError(
            f"create_bridge() returned {a_type(bridge)} without emit(event_type, payload, origin); "
            f"return an AgentWebSocketBridge or an object with that method{_hint(bridge)}"
        )
    owner = getattr(bridge, "user_id", user_id)
    if isinstance(owner, str) and owner != user_id:
        raise ContextBoundaryError(f"create_bridge() gave user {user_id!r} a bridge of user {shown(owner)}")
    if _closes_at_once(bridge) and bridge.closed:
        raise SessionClosed(f"create_bridge() gave user {user_id!r} a bridge that is closed; make a new one every time")
    return cast(EventBridge, bridge)


def _hint(thing: object) -> str:
    return "; wrap it as registry.NotifyManager(...)" if hasattr(thing, "notify_agent_started") else ""


def _closes_at_once(bridge: object) -> TypeGuard[AgentWebSocketBridge | SilentBridge]:
    """True for our own bridges, whose `close()` neither waits nor fails."""
    return type(bridge) is AgentWebSocketBridge or type(bridge) is SilentBridge


def _is_silent(bridge: object) -> bool:
    return bridge is None or type(bridge) is SilentBridge


async def _close_bridge(
    bridge: EventBridge, user_id: str, report: ClosingReport, runtime: Runtime, deadline: float
) -> None:
    """Call a foreign bridge's `close()` or `aclose()`, if it has one, until `deadline` (the driver's time)."""
    task = start(_call_close(bridge))
    await Until((task,), deadline)
    if not task.done():
        task.cancel()
        await Until((task,), deadline)
        report.errors.append("bridge: close() did not end in time; cancelled")
        runtime.abandon(task, user_id)
    elif task.cancelled():
        report.errors.append("bridge: close() raised CancelledError")
    elif (error := task.exception()) is not None:
        report.errors.append(f"bridge: close() raised {describe(error)}")


async def _close_agent_and_log(agent: BaseAgent, report: ClosingReport, runtime: Runtime) -> None:
    user_id = agent.scope.context.user_id
    await close_agents([agent], report, runtime)
    log_errors(user_id, report.errors)


async def _close_bridge_and_log(bridge: EventBridge, user_id: str, runtime: Runtime) -> None:
    report = ClosingReport()
    deadline = runtime.driver.time() + runtime.limits.close_timeout
    await _close_bridge(bridge, user_id, report, runtime, deadline)
    log_errors(user_id, report.errors)


async def _begun(
    agent_type: str,
    factory: AgentFactory,
    context: UserExecutionContext,
    life: SessionLifetime,
    runtime: Runtime,
    bridge: EventBridge | None,
) -> BaseAgent:
    """`build_agent` in a task of its own."""
    await begin()
    return await build_agent(agent_type, factory, context, life, runtime, bridge)


async def _call_close(bridge: EventBridge) -> None:
    await begin()
    with _BRIDGE:
        close = getattr(bridge, "close", None) or getattr(bridge, "aclose", None)
        answer = None if close is None else close()
        if inspect.isawaitable(answer):
            await answer


async def _awaited(answer: Awaitable[T]) -> T:
    await begin()
    with _BRIDGE:
        return await answer
