"""UserAgentSession: everything that belongs to one user in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

from registry._sessions.attempts import OwnCreate, SharedAttempt
from registry._sessions.bridging import BridgeClaim, close_bridge, closes_at_once
from registry._sessions.closing import ClosingReport, close_agents, close_at_once, let_obey, stop_agents, wait_for
from registry._sessions.factory import build_agent
from registry._sessions.holding import SessionAgents
from registry._sessions.shared import Runtime
from registry._sessions.work import log_errors
from registry.agent import AgentFactory, BaseAgent
from registry.context import UserExecutionContext
from registry.errors import ContextBoundaryError, InvalidAgent, RegistryError, SessionClosed, describe
from registry.events.bridge import SilentBridge
from registry.identity import check_id
from registry.lease import Lifetime, SessionLifetime
from registry.scope import make_scope

__all__ = ["Completed", "UserAgentSession"]


class Completed:
    """The answer of a call that has taken effect already; awaiting it is allowed and does nothing."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, None]:
        return
        yield


class UserAgentSession(SessionAgents):
    """Everything that belongs to one user in this process: agents, their contexts and handles, and the bridge.

    Ended by the registry; afterwards every async method raises `SessionClosed` and nothing of the user is kept.
    """

    __slots__ = ("__weakref__", "_activations", "created_at")

    def __init__(self, user_id: str, runtime: Runtime) -> None:
        life = self._life = SessionLifetime(user_id, runtime.clock, runtime.guard.home)
        life.bridge = SilentBridge(user_id)
        self._runtime = runtime
        self.created_at = life.last_used
        # Until its first create has succeeded, or somebody asked for the session itself, it is not counted and may go.
        self.is_provisional = True
        self._agents = []
        # Made when first needed: most sessions most of the time have nothing under way.
        self._in_flight = None
        self._closings = None
        self._bridging = None
        self._claim = None
        self._activations: dict[tuple[str, str], SharedAttempt[BaseAgent]] | None = None

    @property
    def last_used(self) -> float:
        """When the session was last created in or run in, by the registry's clock, in seconds."""
        return self._life.last_used

    @property
    def is_closed(self) -> bool:
        """True once the session has begun to end."""
        return not self._life.is_open

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
        self.make_room(agent_type, context.thread_id)
        context._bind(self._life)
        agent.scope = make_scope(context, agent.scope.tools, self._life, agent.scope.llm)
        agent._life = Lifetime(f"agent {agent_type}", self._life)
        agent._agent_type = agent_type
        self.install(agent)
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
            "has_websocket_bridge": type(self._life.bridge) is not SilentBridge,
            "in_flight": len(self._in_flight or ()),
            "uptime_seconds": now - self.created_at,
            "idle_seconds": now - self._life.last_used,
        }

    # What follows is for the registry.

    async def create(
        self, agent_type: str, factory: AgentFactory, context: UserExecutionContext, manager: Any
    ) -> BaseAgent:
        """Make and install an agent. On any failure nothing stays, not even a provisional session."""
        entry = OwnCreate(self._life.home)
        claim: BridgeClaim | None = None
        is_made = False
        self.begin_work(entry)
        try:
            if manager is not None and self.needs_bridge():
                claim = await self.claim_bridge(manager, context)
            agent = await build_agent(agent_type, factory, context, self._life, self._runtime)
            try:
                self._life.require_open()
                self.make_room(agent_type, context.thread_id)
            except RegistryError:
                log_errors(self.user_id, (await self.close_agents([agent])).errors)
                raise
            # No await from here: an agent that is installed is an agent that its caller gets.
            self.install(agent)
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
                self.release_claim(claim, succeeded=is_made)
            self.end_work(entry)
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
                accept=self._accept_agent,
                reject=self.throw_away,
                forget=self._forget_activation,
                ended=self.end_work,
            )
            self.begin_work(attempt)
        return await attempt.join()

    async def close_all(self) -> ClosingReport:
        """Detach and close all agents."""
        agents, self._agents = self._agents, []
        return await self.close_agents(agents)

    async def close_one(self, agent: BaseAgent) -> None:
        """Detach and close one agent; errors of its cleanup are logged."""
        self.detach(agent)
        log_errors(self.user_id, (await self.close_agents([agent])).errors)

    def end_at_once(self, report: ClosingReport) -> list[BaseAgent] | None:
        """Begin to end: nothing new may begin from here on. Return None if that was all, else the agents left."""
        self._life.close()
        agents, self._agents = self._agents, []
        if self._in_flight or self._closings:
            self._refuse_in_flight()
            stop_agents(agents)
            return agents
        left = close_at_once(agents, report)
        if left or not closes_at_once(self._life.bridge):
            return left
        self._finish(report)
        return None

    async def end(self, agents: list[BaseAgent], report: ClosingReport) -> None:
        """Cancel what is in flight, close the agents that are left and the bridge, all within one deadline."""
        loop = asyncio.get_running_loop()
        timeout = self._runtime.limits.close_timeout
        deadline = loop.time() + timeout
        try:
            in_flight = list(self._in_flight or ())
            waits = self._refuse_in_flight()
            await wait_for(waits, deadline - timeout / 2)
            foreign = not closes_at_once(self._life.bridge)
            if agents:
                # A foreign bridge is closed last, for a cleanup may emit; it needs some time of its own.
                await close_agents(agents, report, self._runtime, deadline - (timeout / 8 if foreign else 0.0))
            if foreign:
                await close_bridge(self._life.bridge, report, self._runtime, deadline)
            waits += self._closings or ()
            await wait_for(waits, deadline)
            await let_obey(waits)
            for entry in in_flight:
                if entry in (self._in_flight or ()):
                    report.errors.append("something that was being made ignores its cancellation; abandoned")
                    left = entry.give_up()
                    if left is not None:
                        self._runtime.abandon(left)
        finally:
            self._finish(report)

    def _refuse_in_flight(self) -> list[asyncio.Future[Any]]:
        ended = f"the session of user {self.user_id!r} ended while this was in flight"
        entries = list(self._in_flight or ())
        return [wait for entry in entries if (wait := entry.refuse(SessionClosed(ended))) is not None]

    def _finish(self, report: ClosingReport) -> None:
        life = self._life
        if closes_at_once(life.bridge):
            life.bridge.close()
        for error in life.release_kept() if life.has_kept else ():
            report.errors.append(f"{'; '.join(error.__notes__)}: {describe(error)}")
        life.end()

    def _accept_agent(self, agent: BaseAgent) -> BaseAgent:
        """Install what an activation made, unless a create was quicker: all callers get one agent."""
        context = agent.scope.context
        # No await in here: from the look to the insert nobody else can install one.
        quicker = self.find(agent._agent_type, context.thread_id)
        if quicker is not None:
            self.throw_away(agent)
            return quicker
        try:
            self._life.require_open()
            self.make_room(agent._agent_type, context.thread_id)
        except RegistryError:
            self.throw_away(agent)
            raise
        self.install(agent)
        return agent

    def _forget_activation(self, attempt: SharedAttempt[BaseAgent]) -> None:
        for key, known in (self._activations or {}).items():
            if known is attempt:
                assert self._activations is not None
                del self._activations[key]
                break
        if not self._activations:
            self._activations = None

    def __repr__(self) -> str:
        state = " closed" if self.is_closed else ""
        return f"<UserAgentSession user={self.user_id!r} agents={len(self._agents)}{state}>"
