"""UserAgentSession: everything that belongs to one user in this process."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Coroutine, Generator, Iterator, Mapping
from contextlib import suppress
from types import CoroutineType, MappingProxyType
from typing import Any

from registry.agent import AgentFactory, BaseAgent
from registry.bridge import AgentWebSocketBridge, SilentBridge
from registry.bridging import check_bridge, close_bridge, closes_at_once
from registry.building import build_agent
from registry.closing import ClosingReport, close_agents, close_at_once, let_obey, wait_for
from registry.context import UserExecutionContext
from registry.errors import CapacityExceeded, ContextBoundaryError, InvalidAgent, RegistryError, SessionClosed
from registry.inflight import InFlight, OwnCreate, SharedAttempt
from registry.lifetime import Lifetime, SessionLifetime
from registry.runtime import Runtime

__all__ = ["Completed", "UserAgentSession"]

_log = logging.getLogger(__name__)


class Completed:
    """The answer of a call that has taken effect already; awaiting it is allowed and does nothing."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, None]:
        return
        yield


class UserAgentSession:
    """Everything that belongs to one user in this process: agents, their contexts and handles, and the bridge.

    Ended by the registry; afterwards every async method raises `SessionClosed` and nothing of the user is kept.
    Lookups are linear in this user's own agents, which `Limits.max_agents_per_user` bounds.
    """

    __slots__ = (
        "__weakref__",
        "_activations",
        "_agents",
        "_bridging",
        "_closings",
        "_in_flight",
        "_life",
        "_runtime",
        "created_at",
        "is_provisional",
    )

    def __init__(self, user_id: str, runtime: Runtime) -> None:
        self._life = SessionLifetime(user_id, runtime.clock)
        self._life.bridge = SilentBridge(user_id)
        self._runtime = runtime
        self.created_at = self._life.last_used
        # Until its first create has succeeded, or somebody asked for the session itself, it is not counted and may go.
        self.is_provisional = True
        self._agents: list[BaseAgent] = []  # In the order of their creation.
        # Made when first needed: most sessions most of the time have nothing in flight.
        self._in_flight: set[InFlight] | None = None
        self._activations: dict[tuple[str, str], SharedAttempt[BaseAgent]] | None = None
        self._bridging: SharedAttempt[Any] | None = None
        self._closings: set[asyncio.Task[None]] | None = None

    @property
    def user_id(self) -> str:
        """The one user all of this belongs to."""
        return self._life.user_id

    @property
    def bridge(self) -> Any:
        """The bridge that is set now."""
        return self._life.bridge

    @property
    def agents(self) -> Mapping[str, BaseAgent]:
        """The newest live agent of each type, as a read-only mapping made at this read."""
        return MappingProxyType({agent._agent_type: agent for agent in self._agents})

    @property
    def agent_count(self) -> int:
        """Live agents, those superseded by a newer one included."""
        return len(self._agents)

    @property
    def last_used(self) -> float:
        """When the session was last created in or run in, by the registry's clock, in seconds."""
        return self._life.last_used

    @property
    def is_closed(self) -> bool:
        """True once the session has begun to end."""
        return not self._life.is_open

    @property
    def is_busy(self) -> bool:
        """True while an agent runs or anything is being made."""
        return bool(self._in_flight) or any(agent._pending for agent in self._agents)

    def iter_agents(self) -> Iterator[BaseAgent]:
        """Every live agent, oldest first."""
        return iter(tuple(self._agents))

    async def get_agent(self, agent_type: str, thread_id: str | None = None) -> BaseAgent | None:
        """Return the newest agent of this type (in this thread), or None. Creates nothing."""
        self._life.require_open()
        return self.find(agent_type, thread_id)

    def register_agent(self, agent_type: str, agent: BaseAgent) -> Completed:
        """Adopt an agent that was made elsewhere for the same user; it takes effect at once.

        The answer may be awaited, which does nothing more. Raises `ContextBoundaryError` for another user's agent or
        one that has a session already, `InvalidAgent` for what is no agent, `CapacityExceeded`, `SessionClosed`.
        """
        self._life.require_open()
        if not isinstance(agent, BaseAgent):
            raise InvalidAgent(f"{agent!r} is a {type(agent).__name__}; a session holds BaseAgent objects")
        if agent.context.user_id != self.user_id:
            raise ContextBoundaryError(
                f"agent of user {agent.context.user_id!r} was offered to the session of user {self.user_id!r}"
            )
        if agent._life is not None:
            raise ContextBoundaryError(f"{agent!r} belongs to a session already; an agent has one owner")
        self._make_room(agent_type, agent.context.thread_id)
        agent._life = Lifetime(f"agent {agent_type}", self._life)
        agent._agent_type = agent_type
        self._install(agent)
        return Completed()

    async def set_websocket_manager(self, manager: Any, user_context: UserExecutionContext | None = None) -> None:
        """Ask the manager for a new bridge, which replaces the old one for every agent of the session.

        None goes back to no manager. The old bridge is closed once the new one is there; if making it fails, the old
        one stays. Raises `SessionClosed`, `ContextBoundaryError` for another user's context or bridge.
        """
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
            self._replace_bridge(SilentBridge(self.user_id))
        else:
            await self._make_bridge(manager, user_context or UserExecutionContext(self.user_id))

    async def cleanup_all_agents(self) -> dict[str, Any]:
        """Close every agent this session holds; the session stays. Return `{"cleaned_agents": n, "errors": [...]}`."""
        self._life.require_open()
        report = await self.close_all()
        return {"cleaned_agents": report.closed, "errors": report.errors}

    def get_metrics(self) -> dict[str, Any]:
        """Return counts and times of this session; times in seconds by the registry's clock."""
        now = self._runtime.clock()
        return {
            "user_id": self.user_id,
            "total_agents": len(self._agents),
            "running_agents": sum(agent.is_running for agent in self._agents),
            "agent_types": sorted({agent._agent_type for agent in self._agents}),
            "has_websocket_bridge": type(self._life.bridge) is not SilentBridge,
            "in_flight": len(self._in_flight or ()),
            "uptime_seconds": now - self.created_at,
            "idle_seconds": now - self._life.last_used,
        }

    # What follows is for the registry.

    def find(self, agent_type: str, thread_id: str | None) -> BaseAgent | None:
        """The newest live agent of a type, in one thread or in any."""
        for agent in reversed(self._agents):
            if agent._agent_type == agent_type and (thread_id is None or agent.scope.context.thread_id == thread_id):
                return agent
        return None

    async def create(
        self, agent_type: str, factory: AgentFactory, context: UserExecutionContext, manager: Any
    ) -> BaseAgent:
        """Make and install an agent. On any failure nothing stays, not even a provisional session."""
        entry = OwnCreate()
        self._begin(entry)
        try:
            if manager is not None and type(self._life.bridge) is SilentBridge:
                await self._ensure_bridge(manager, context)
            agent = await build_agent(agent_type, factory, context, self._life, self._runtime)
            try:
                entry.check()
                self._life.require_open()
                self._make_room(agent_type, context.thread_id)
            except RegistryError:
                await self._close([agent])
                raise
            self._install(agent)
            return agent
        except asyncio.CancelledError:
            refusal = entry.translate()
            if refusal is None:
                raise
            raise refusal from None
        finally:
            self._ended(entry)
            entry.end()

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
                settle=self._settle_activation,
                forget=self._forget_activation,
                ended=self._ended,
            )
            self._begin(attempt)
        return await attempt.join()

    async def close_all(self) -> ClosingReport:
        """Detach and close all agents, in a task that outlives a cancelled caller if any of them needs time."""
        agents, self._agents = self._agents, []
        return await self._close(agents)

    async def close_one(self, agent: BaseAgent) -> ClosingReport:
        """Detach and close one agent, likewise."""
        self._agents.remove(agent)
        return await self._close([agent])

    def end_at_once(self, report: ClosingReport) -> list[BaseAgent] | None:
        """Begin to end: nothing new may begin from here on. Return None if that was all, else the agents left."""
        self._life.close()
        agents, self._agents = self._agents, []
        if self._in_flight or self._closings:
            return agents
        left = close_at_once(agents, report) if agents else agents
        if left or not closes_at_once(self._life.bridge):
            return left
        self._finish(report)
        return None

    async def end(self, agents: list[BaseAgent], report: ClosingReport) -> None:
        """Cancel what is in flight, close the agents that are left and the bridge, all within one deadline."""
        timeout = self._runtime.limits.close_timeout
        deadline = asyncio.get_running_loop().time() + timeout
        error = SessionClosed(f"the session of user {self.user_id!r} ended while this was in flight")
        try:
            in_flight = list(self._in_flight or ())
            waits = [wait for entry in in_flight if (wait := entry.refuse(error)) is not None]
            await wait_for(waits, deadline - timeout / 2)
            if agents:
                await close_agents(agents, report, self._runtime, deadline)
            if not closes_at_once(self._life.bridge):
                await close_bridge(self._life.bridge, report, self._runtime, deadline)
            waits += self._closings or ()
            await wait_for(waits, deadline)
            await let_obey(waits)
            for entry in in_flight:
                if entry in (self._in_flight or ()):
                    report.errors.append("something that was being made ignores its cancellation; abandoned")
                    task = entry.give_up()
                    if task is not None:
                        self._runtime.abandon(task)
        finally:
            self._finish(report)

    def dispose_unused(self) -> None:
        """End a provisional session whose creates have all failed."""
        self._life.close()
        if not closes_at_once(self._life.bridge):
            self._runtime.own(close_bridge(self._life.bridge, ClosingReport(), self._runtime, None))
        self._finish(ClosingReport())

    def _finish(self, report: ClosingReport) -> None:
        if closes_at_once(self._life.bridge):
            self._life.bridge.close()
        for error in self._life.release_kept():
            report.errors.append(f"{'; '.join(error.__notes__)}: {type(error).__name__}: {error}")
        self._life.end()

    def _begin(self, entry: InFlight) -> None:
        if self._in_flight is None:
            self._in_flight = set()
        self._in_flight.add(entry)

    def _ended(self, entry: InFlight) -> None:
        if self._in_flight is not None:
            self._in_flight.discard(entry)
            if not self._in_flight:
                self._in_flight = None
                if self.is_provisional and self._life.is_open:
                    self._runtime.on_unused(self)

    def _make_room(self, agent_type: str, thread_id: str) -> None:
        """Evict the least recently used superseded idle agent if one more would exceed the cap."""
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
        self._agents.remove(victim)
        self._throw_away(victim)

    def _install(self, agent: BaseAgent) -> None:
        self._agents.append(agent)
        agent._used = self._life.touch()
        self.is_provisional = False

    def _settle_activation(self, agent: BaseAgent | None, error: BaseException | None) -> BaseException | None:
        """Install what an activation made. No await from here until its callers have it."""
        if agent is None:
            return error
        try:
            if error is None:
                self._life.require_open()
                self._make_room(agent._agent_type, agent.scope.context.thread_id)
                self._install(agent)
                return None
        except RegistryError as refusal:
            error = refusal
        self._throw_away(agent)
        return error

    def _forget_activation(self, attempt: SharedAttempt[BaseAgent]) -> None:
        for key, known in (self._activations or {}).items():
            if known is attempt:
                assert self._activations is not None
                del self._activations[key]
                break
        if not self._activations:
            self._activations = None

    async def _ensure_bridge(self, manager: Any, context: UserExecutionContext) -> None:
        if self._bridging is not None:
            await self._bridging.join()
        else:
            await self._make_bridge(manager, context)

    async def _make_bridge(self, manager: Any, context: UserExecutionContext) -> None:
        # No await from the look at _bridging (by the callers) to the insert: one bridge is made at a time.
        made = manager.create_bridge(context)
        if type(made) is AgentWebSocketBridge or not inspect.isawaitable(made):
            check_bridge(made, self.user_id)
            self._replace_bridge(made)
            return
        attempt: SharedAttempt[Any] = SharedAttempt(
            made if type(made) is CoroutineType else _awaited(made),
            settle=self._settle_bridge,
            forget=self._forget_bridging,
            ended=self._ended,
        )
        self._bridging = attempt
        self._begin(attempt)
        await attempt.join()

    def _settle_bridge(self, bridge: Any, error: BaseException | None) -> BaseException | None:
        if bridge is None and error is not None:
            return error
        try:
            check_bridge(bridge, self.user_id)
            if error is None:
                self._life.require_open()
                self._replace_bridge(bridge)
                return None
        except (RegistryError, TypeError) as refusal:
            # A bridge of somebody else's is not ours to close.
            return refusal
        self._close_replaced(bridge)
        return error

    def _forget_bridging(self, attempt: SharedAttempt[Any]) -> None:
        if self._bridging is attempt:
            self._bridging = None

    def _replace_bridge(self, bridge: Any) -> None:
        old, self._life.bridge = self._life.bridge, bridge
        if old is not bridge:
            self._close_replaced(old)

    def _close_replaced(self, bridge: Any) -> None:
        if closes_at_once(bridge):
            bridge.close()
        else:
            self._keep_closing(close_bridge(bridge, ClosingReport(), self._runtime, None))

    async def _close(self, agents: list[BaseAgent]) -> ClosingReport:
        report = ClosingReport()
        left = close_at_once(agents, report) if agents else agents
        if left:
            # wait(), not await: a cancelled caller must not stop the closing.
            await asyncio.wait({self._keep_closing(close_agents(left, report, self._runtime))})
        return report

    def _throw_away(self, agent: BaseAgent) -> None:
        """Close an agent for which nobody waits."""
        report = ClosingReport()
        if close_at_once([agent], report):
            self._keep_closing(_close_and_log(agent, report, self._runtime))
        else:
            _log_errors(report)

    def _keep_closing(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._runtime.own(work)
        if self._closings is None:
            self._closings = set()
        self._closings.add(task)
        task.add_done_callback(self._closing_ended)
        return task

    def _closing_ended(self, task: asyncio.Task[None]) -> None:
        if self._closings is not None:
            self._closings.discard(task)
            if not self._closings:
                self._closings = None

    def __repr__(self) -> str:
        state = " closed" if self.is_closed else ""
        return f"<UserAgentSession user={self.user_id!r} agents={len(self._agents)}{state}>"


async def _awaited(answer: Awaitable[Any]) -> Any:
    return await answer


async def _close_and_log(agent: BaseAgent, report: ClosingReport, runtime: Runtime) -> None:
    await close_agents([agent], report, runtime)
    _log_errors(report)


def _log_errors(report: ClosingReport) -> None:
    for error in report.errors:
        _log.warning("while closing an agent that was evicted or never handed out: %s", error)
