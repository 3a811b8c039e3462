"""UserAgentSession: everything that belongs to one user in this process."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Coroutine, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from types import CoroutineType, MappingProxyType
from typing import Any

from registry._sessions.attempts import InFlight, OwnCreate, SharedAttempt
from registry._sessions.closing import (
    ClosingReport,
    close_agents,
    close_at_once,
    log_errors,
    stop_agents,
)
from registry._sessions.driver import Driven, Until, Waitable
from registry._sessions.factory import build_agent
from registry._sessions.shared import Runtime
from registry.agent import AgentFactory, BaseAgent, make_scope
from registry.context import UserExecutionContext
from registry.errors import (
    CapacityExceeded,
    ContextBoundaryError,
    InvalidAgent,
    RegistryError,
    SessionClosed,
    describe,
)
from registry.events.bridge import AgentWebSocketBridge, SilentBridge
from registry.identity import check_id, plain_str
from registry.lease import Lifetime, SessionLifetime, Uncopyable

__all__ = ["Completed", "UserAgentSession"]


class Completed:
    """The answer of a call that has taken effect already; awaiting it is allowed and does nothing."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, None]:
        return
        yield


class BridgeClaim:
    """The creates that brought a manager and of which none has succeeded yet. With the last of them to fail goes the
    bridge that was made for them, so that a failed create leaves none."""

    __slots__ = ("bridge", "creates", "is_settled")

    def __init__(self) -> None:
        self.bridge: Any = None
        self.creates = 0
        self.is_settled = False


class UserAgentSession(Uncopyable):
    """Everything that belongs to one user in this process: agents, their contexts and handles, and the bridge.

    Ended by the registry; afterwards every async method raises `SessionClosed` and nothing of the user is kept.
    """

    __slots__ = (
        "__weakref__",
        "_activations",
        "_agents",
        "_bridging",
        "_claim",
        "_closings",
        "_in_flight",
        "_life",
        "_runtime",
        "created_at",
        "is_provisional",
    )

    def __init__(self, user_id: str, runtime: Runtime) -> None:
        life = self._life = SessionLifetime(user_id, runtime.clock, runtime.guard.home, SilentBridge)
        self._runtime = runtime
        self.created_at = life.last_used
        # Until its first create has succeeded, or somebody asked for the session itself, it is not counted and may go.
        self.is_provisional = True
        # In the order of their creation. Lookups are linear in them, which `Limits.max_agents_per_user` bounds.
        self._agents: list[BaseAgent] = []
        # Made when first needed: most sessions most of the time have nothing under way.
        self._in_flight: set[InFlight] | None = None
        self._closings: set[Driven[None]] | None = None
        self._bridging: SharedAttempt[Any] | None = None
        self._claim: BridgeClaim | None = None
        self._activations: dict[tuple[str, str], SharedAttempt[BaseAgent]] | None = None

    @property
    def user_id(self) -> str:
        """The one user all of this belongs to."""
        return self._life.user_id

    @property
    def last_used(self) -> float:
        """When the session was last created in or run in, by the registry's clock, in seconds."""
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
    def bridge(self) -> Any:
        """The bridge that is set now."""
        return self._life.bridge

    async def set_websocket_manager(self, manager: Any, user_context: UserExecutionContext | None = None) -> None:
        """Ask the manager for a new bridge, which replaces the old one for every agent of the session.

        None goes back to no manager. The old bridge is closed once the new one is there; if making it fails, the old
        one stays. Raises `SessionClosed`, `ContextBoundaryError` for another user's context or bridge, `TypeError`.
        """
        self._life.require_home()
        self._life.require_open()
        if user_context is not None and user_context.user_id != self.user_id:
            raise ContextBoundaryError(
                f"context of user {user_context.user_id!r} was offered to the session of user {self.user_id!r}"
            )
        while self._bridging is not None:
            # One bridge is made at a time. Whether an earlier one fails is told to those who asked for it.
            with suppress(Exception):
                await self._bridging.join()
            self._life.require_open()
        if manager is None:
            self._replace_bridge(None)
        else:
            await self._make_bridge(manager, user_context or UserExecutionContext(self.user_id))
        if self._claim is not None:
            self._claim.is_settled = True
            self._claim = None

    async def get_agent(self, agent_type: str, thread_id: str | None = None) -> BaseAgent | None:
        """Return the newest agent of this type (in this thread), or None. Creates nothing."""
        self._life.require_home()
        self._life.require_open()
        return self.find(agent_type, thread_id)

    def register_agent(self, agent_type: str, agent: BaseAgent) -> Completed:
        """Adopt an agent that was made elsewhere for the same user; it takes effect at once.

        From then on its context, and with it what was made on that, shares the session's life and bridge. The answer
        may be awaited, which does nothing more. Raises `ContextBoundaryError` for another user's agent or one that has
        an owner already, `InvalidAgent` for what is no agent, `InvalidIdentifier`, `CapacityExceeded`, `SessionClosed`.
        """
        self._runtime.guard.enter_sync()
        self._life.require_open()
        agent_type = check_id("agent_type", agent_type)
        if not isinstance(agent, BaseAgent):
            raise InvalidAgent(f"{agent!r} is a {type(agent).__name__}; a session holds BaseAgent objects")
        context = agent.scope.context
        if context.user_id != self.user_id:
            raise ContextBoundaryError(
                f"agent of user {context.user_id!r} was offered to the session of user {self.user_id!r}"
            )
        if agent._life not in (None, self._life) or context._life not in (None, self._life):
            raise ContextBoundaryError(f"{agent!r} belongs to a session already; an agent has one owner")
        self._make_room(agent_type, context.thread_id)
        context._bind(self._life)
        agent.scope = make_scope(context, agent.scope.tools, self._life, agent.scope.llm)
        agent._life = Lifetime(agent_type, self._life)
        agent._agent_type = agent_type
        self._install(agent)
        return Completed()

    async def cleanup_all_agents(self) -> dict[str, Any]:
        """Close every agent this session holds; the session stays. Return `{"cleaned_agents": n, "errors": [...]}`."""
        self._life.require_home()
        self._life.require_open()
        report = await self.close_all()
        return {"cleaned_agents": report.closed, "errors": report.errors}

    def get_metrics(self) -> dict[str, Any]:
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

    # What follows is for the registry.

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
        self, agent_type: str, factory: AgentFactory, context: UserExecutionContext, manager: Any
    ) -> BaseAgent:
        """Make and install an agent. On any failure nothing stays, not even a provisional session."""
        entry = OwnCreate(self._begin_work)
        claim: BridgeClaim | None = None
        is_made = False
        try:
            if manager is not None and (self._claim is not None or _is_silent(self._life.set_bridge)):
                entry.begin()
                claim = await self._claim_bridge(manager, context)
            agent = await build_agent(agent_type, factory, context, self._life, self._runtime, entry.begin)
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
            if claim is not None:
                self._release_claim(claim, succeeded=is_made)
            if entry.has_begun:
                self._end_work(entry)
                entry.end()
            elif not is_made:
                self._drop_if_unused()

    async def activate(self, agent_type: str, factory: AgentFactory, context: UserExecutionContext) -> BaseAgent:
        """Return the one agent of (type, thread), found or made once for all who ask meanwhile."""
        found = self.find(agent_type, context.thread_id)
        if found is not None:
            return found
        if self._activations is None:
            self._activations = {}
        key = (agent_type, context.thread_id)
        attempt = self._activations.get(key)
        if attempt is None:
            # No await from lookup to insert: this alone makes the activation single.
            attempt = self._activations[key] = SharedAttempt(
                build_agent(agent_type, factory, context, self._life, self._runtime),
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

    def end_at_once(self, report: ClosingReport) -> list[BaseAgent] | None:
        """Begin to end: nothing new may begin from here on. Return None if that was all, else the agents left."""
        self._life.close()
        agents = self._take_agents()
        if self._in_flight or self._closings:
            self._refuse_in_flight()
            stop_agents(agents)
            return agents
        left = close_at_once(agents, report)
        if left or not _closes_at_once(self._life.set_bridge):
            return left
        self._finish(report)
        return None

    async def end(
        self, agents: list[BaseAgent], report: ClosingReport, before: Driven[ClosingReport] | None
    ) -> ClosingReport:
        """Cancel what is in flight, close the agents that are left and the bridge, all within one deadline, which
        counts from here; then wait for the end of the user's session before. Return the report. To be driven."""
        timeout = self._runtime.limits.close_timeout
        deadline = self._runtime.driver.time() + timeout
        try:
            in_flight = tuple(self._in_flight) if self._in_flight else ()
            waits: Sequence[Waitable] = self._refuse_in_flight()
            if waits:
                await Until(waits, deadline - timeout / 2)
            foreign = not _closes_at_once(self._life.set_bridge)
            if agents:
                # A foreign bridge is closed last, for a cleanup may emit; it needs some time of its own.
                await close_agents(agents, report, self._runtime, deadline - (timeout / 8 if foreign else 0.0))
            if foreign:
                await _close_bridge(self._life.bridge, report, self._runtime, deadline)
            if waits or self._closings:
                await Until((*waits, *(self._closings or ())), deadline)
            for entry in in_flight:
                if entry in (self._in_flight or ()):
                    report.errors.append("something that was being made ignores its cancellation; abandoned")
                    left = entry.give_up()
                    if left is not None:
                        self._runtime.abandon(left)
        finally:
            self._finish(report)
        if before is not None:
            await Until((before,), None)
        return report

    def _refuse_in_flight(self) -> Sequence[asyncio.Future[Any]]:
        if not self._in_flight:
            return ()
        ended = f"the session of user {self.user_id!r} ended while this was in flight"
        entries = list(self._in_flight)
        return [wait for entry in entries if (wait := entry.refuse(SessionClosed(ended))) is not None]

    def _finish(self, report: ClosingReport) -> None:
        life = self._life
        if life.set_bridge is not None and _closes_at_once(life.set_bridge):
            life.set_bridge.close()
        for error in life.release_kept() if life.has_kept else ():
            report.errors.append(f"{'; '.join(error.__notes__)}: {describe(error)}")
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
                f"user {self.user_id!r} has {len(self._agents)} agents, the limit, and none of them is both superseded "
                "and idle; remove one, or raise Limits.max_agents_per_user"
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
        """Install what an activation made, unless a create was quicker: all callers get one agent."""
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

    async def _claim_bridge(self, manager: Any, context: UserExecutionContext) -> BridgeClaim:
        """See to it that there is a bridge; to be followed by `_release_claim`."""
        claim = self._claim
        if claim is None:
            claim = self._claim = BridgeClaim()
        claim.creates += 1
        try:
            if self._bridging is not None:
                await self._bridging.join()
            elif claim.bridge is None:
                # No await from the look at _bridging to the insert: one bridge is made at a time.
                await self._make_bridge(manager, context)
            if not claim.is_settled:
                claim.bridge = self._life.set_bridge
        except BaseException:
            self._release_claim(claim, succeeded=False)
            raise
        return claim

    def _release_claim(self, claim: BridgeClaim, *, succeeded: bool) -> None:
        """A create that had claimed the bridge has ended."""
        claim.creates -= 1
        if succeeded:
            claim.is_settled = True
        if self._claim is claim and (claim.is_settled or not claim.creates):
            self._claim = None
        # Once the session ends, that closes the bridge.
        if claim.creates or claim.is_settled or not self._life.is_open:
            return
        if claim.bridge is None or claim.bridge is not self._life.set_bridge:
            return
        self._life.set_bridge = None
        if type(claim.bridge) is AgentWebSocketBridge:
            claim.bridge.withdraw()
        else:
            self._close_replaced(claim.bridge)

    async def _make_bridge(self, manager: Any, context: UserExecutionContext) -> None:
        create_bridge = getattr(manager, "create_bridge", None)
        if not callable(create_bridge):
            raise TypeError(
                f"a {type(manager).__name__} is no websocket manager: it has no create_bridge(user_context)"
            )
        made = create_bridge(context)
        if type(made) is AgentWebSocketBridge or not inspect.isawaitable(made):
            self._replace_bridge(_check_bridge(made, self.user_id))
            return
        self._bridging = SharedAttempt(
            made if type(made) is CoroutineType else _awaited(made),
            accept=self._accept_bridge,
            reject=self._reject_bridge,
            forget=self._forget_bridging,
            ended=self._end_work,
        )
        self._begin_work(self._bridging)
        await self._bridging.join()

    def _accept_bridge(self, bridge: Any) -> Any:
        self._replace_bridge(_check_bridge(bridge, self.user_id))
        return bridge

    def _reject_bridge(self, bridge: Any) -> None:
        # A bridge of somebody else's is not ours to close.
        with suppress(RegistryError, TypeError):
            self._close_replaced(_check_bridge(bridge, self.user_id))

    def _forget_bridging(self, attempt: SharedAttempt[Any]) -> None:
        if self._bridging is attempt:
            self._bridging = None

    def _replace_bridge(self, bridge: Any) -> None:
        old, self._life.set_bridge = self._life.set_bridge, bridge
        if old is not None and old is not bridge:
            self._close_replaced(old)

    def _close_replaced(self, bridge: Any) -> None:
        if _closes_at_once(bridge):
            bridge.close()
        else:
            self._keep_closing(_close_bridge_and_log(bridge, self.user_id, self._runtime))

    # What is being made, and what is being closed.

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


def _check_bridge(bridge: Any, user_id: str) -> Any:
    """Return it, or raise: `ContextBoundaryError` for another user's, `SessionClosed` for a used one, `TypeError`."""
    if not callable(getattr(bridge, "emit", None)):
        raise TypeError(
            f"create_bridge() returned a {type(bridge).__name__} without emit(event_type, payload, origin); "
            "return an AgentWebSocketBridge or an object with that method"
        )
    owner = getattr(bridge, "user_id", user_id)
    if isinstance(owner, str) and owner != user_id:
        raise ContextBoundaryError(f"create_bridge() gave user {user_id!r} a bridge of user {owner!r}")
    if _closes_at_once(bridge) and bridge.closed:
        raise SessionClosed(f"create_bridge() gave user {user_id!r} a bridge that is closed; make a new one every time")
    return bridge


def _closes_at_once(bridge: Any) -> bool:
    """True for our own bridges, whose `close()` neither waits nor fails, and where there is none."""
    return type(bridge) is AgentWebSocketBridge or _is_silent(bridge)


def _is_silent(bridge: Any) -> bool:
    return bridge is None or type(bridge) is SilentBridge


async def _close_bridge(bridge: Any, report: ClosingReport, runtime: Runtime, deadline: float) -> None:
    """Call a foreign bridge's `close()` or `aclose()`, if it has one, until `deadline` (the driver's time)."""
    close = getattr(bridge, "close", None) or getattr(bridge, "aclose", None)
    if close is None:
        return
    task = asyncio.get_running_loop().create_task(_call(close))
    await Until((task,), deadline)
    if not task.done():
        task.cancel()
        await Until((task,), deadline)
        report.errors.append("bridge: close() did not end in time; cancelled")
        runtime.abandon(task)
    elif task.cancelled():
        report.errors.append("bridge: close() raised CancelledError")
    elif (error := task.exception()) is not None:
        report.errors.append(f"bridge: close() raised {describe(error)}")


async def _close_agent_and_log(agent: BaseAgent, report: ClosingReport, runtime: Runtime) -> None:
    user_id = agent.scope.context.user_id
    await close_agents([agent], report, runtime)
    log_errors(user_id, report.errors)


async def _close_bridge_and_log(bridge: Any, user_id: str, runtime: Runtime) -> None:
    report = ClosingReport()
    deadline = runtime.driver.time() + runtime.limits.close_timeout
    await _close_bridge(bridge, report, runtime, deadline)
    log_errors(user_id, report.errors)


async def _call(close: Any) -> None:
    answer = close()
    if inspect.isawaitable(answer):
        await answer


async def _awaited(answer: Awaitable[Any]) -> Any:
    return await answer
