"""The live agents of one session: which there are, which is found, and which goes when there are too many."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from registry._sessions.bridging import SessionBridging
from registry.agent import BaseAgent
from registry.errors import CapacityExceeded
from registry.identity import check_id, plain_str

__all__ = ["SessionAgents"]


class SessionAgents(SessionBridging):
    """Holds one user's agents. Lookups are linear in them, which `Limits.max_agents_per_user` bounds."""

    __slots__ = ("_agents",)

    # In the order of their creation. Set by the session, as the fields of `SessionWork`.
    _agents: list[BaseAgent]

    @property
    def agents(self) -> Mapping[str, BaseAgent]:
        """The newest live agent of each type, as a read-only mapping made at this read."""
        return MappingProxyType({agent._agent_type: agent for agent in self._agents})

    @property
    def agent_count(self) -> int:
        """Live agents, those superseded by a newer one included."""
        return len(self._agents)

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

    def make_room(self, agent_type: str, thread_id: str) -> None:
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
        self.detach(victim)
        self.throw_away(victim)

    def install(self, agent: BaseAgent) -> None:
        """Hold an agent, as the newest. No await from `make_room` to here, or the cap does not hold."""
        self._agents.append(agent)
        agent._used = self._life.touch()
        self.is_provisional = False

    def detach(self, agent: BaseAgent) -> None:
        """Hold it no more."""
        # By identity: an agent may define an equality of its own.
        for index, known in enumerate(self._agents):
            if known is agent:
                del self._agents[index]
                return
