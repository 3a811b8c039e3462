"""Defects of bridges: events that go astray, get lost, come twice, out of order or altered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from weakref import WeakSet, ref

from lab_utils.target import Delivered, Recipe
from lab_utils.targets.agent_registry import AgentRegistryTarget
from lab_utils.targets.planted.base import planted_by
from lab_utils.targets.reference import Agent, Bridge, Client, Context, Dispatcher, ReferenceTarget, Session
from lab_utils.targets.reference import Origin as Source
from registry import AgentWebSocketBridge, Event, EventType, Origin, UserExecutionContext, WebSocketManager

__all__ = ["PLANTED"]


class _ToEverybody(AgentWebSocketBridge):
    __slots__ = ("manager",)

    manager: WebSocketManager

    def emit(self, event_type: EventType, payload: Mapping[str, Any], origin: Origin) -> Event:
        event = super().emit(event_type, payload, origin)
        for user in self.manager.users - {self.user_id}:
            channel = self.manager._channels[user]
            for connection in channel.open_connections():
                connection.deliver(event)
            if channel.log is not None:
                channel.log.append(event.to_json())
        return event


class _BroadcastingManager(WebSocketManager):
    __slots__ = ()

    def create_bridge(self, user_context: UserExecutionContext) -> AgentWebSocketBridge:
        bridge = _ToEverybody(self._channel(user_context.user_id))
        bridge.manager = self
        return bridge


class BroadcastEvents(AgentRegistryTarget):
    """The manager sends every event to all connections, and relies on the clients to check the user id."""

    def make_manager(self) -> Any:
        return _BroadcastingManager()


class LobbyHearsAll(ReferenceTarget):
    """Clients of users who have no session yet wait in a lobby, to which everybody's events are sent."""

    def make_bridge(self, user: str) -> Bridge:
        bridge = _HeardInTheLobby(user, self.clients_of(user))
        bridge.target = ref(self)
        return bridge


class _HeardInTheLobby(Bridge):
    target: ref[ReferenceTarget]

    def send(self, event: Delivered) -> None:
        super().send(event)
        target = self.target()
        assert target is not None
        for user in target.clients.keys() - target.sessions.keys():
            for client in list(target.clients[user]):
                client.deliver(event)


class FirstUsersBridge(ReferenceTarget):
    """The first bridge made is kept in the manager and given to everybody."""

    _kept: Bridge | None = None

    def make_bridge(self, user: str) -> Bridge:
        if self._kept is None:
            self._kept = super().make_bridge(user)
        return self._kept


class CurrentUserSlot(ReferenceTarget):
    """The user whose clients receive an event is kept in one slot, which every run sets when it starts."""

    current = ""

    def make_bridge(self, user: str) -> Bridge:
        target = self

        class SlotBridge(Bridge):
            def send(self, event: Delivered) -> None:
                if event.type == "agent_started":
                    target.current = self.user
                for client in [client for client in target.clients_of(target.current) if client.open]:
                    client.deliver(event)

        return SlotBridge(user, self.clients_of(user))


class ErrorsToEverybody(ReferenceTarget):
    """Errors are sent to every client, since the operators wanted to see them."""

    def make_bridge(self, user: str) -> Bridge:
        target = self

        class OperatorsBridge(Bridge):
            def send(self, event: Delivered) -> None:
                super().send(event)
                if event.type == "agent_error":
                    for other in target.clients.keys() - {user}:
                        for client in target.clients_of(other):
                            client.deliver(event)

        return OperatorsBridge(user, self.clients_of(user))


class BridgePerAgent(ReferenceTarget):
    """Every agent is given a bridge of its own, which counts from one."""

    async def build(self, session: Session, recipe: Recipe, context: Context, connect: bool) -> Agent:
        agent = await super().build(session, recipe, context, connect)
        if connect:
            agent.bridge = agent.dispatcher.bridge = self.make_bridge(session.user)
        return agent


class RefusedContextBinds(ReferenceTarget):
    """The bridge is made for the context's user before the owner of the context is checked."""

    def check_allowed(
        self, user: str, agent_type: str, permissions: frozenset[str], context_user: str | None
    ) -> Recipe:
        if context_user is not None:
            session, _ = self.session_for_create(user)
            session.bridge = session.bridge or self.make_bridge(context_user)
        return super().check_allowed(user, agent_type, permissions, context_user)


class LateManagerIgnored(ReferenceTarget):
    """Agents that were made before the manager was attached send no events."""

    def associate(self, session: Session) -> None:
        silent = [agent for agent in session.agents if agent.bridge is None]
        super().associate(session)
        for agent in silent:
            agent.bridge = agent.dispatcher.bridge = None


class _TellsNobody(Dispatcher):
    async def call(self, name: str, parameters: Mapping[str, Any], emit: Any) -> Any:
        return await super().call(name, parameters, lambda *_: None)


class ToolsOfTheFirstBridge(ReferenceTarget):
    """Tools are given the bridge that is there when their agent is made: without one, they never send an event."""

    def make_dispatcher(self, context: Context, bridge: Bridge | None) -> Dispatcher:
        made = super().make_dispatcher(context, bridge)
        return made if bridge is not None else _TellsNobody(context, made.rows, bridge)


class OldBridgeKept(ReferenceTarget):
    """When the manager is replaced, agents keep the bridge to the old one, which has no clients any more."""

    def associate(self, session: Session) -> None:
        kept = [(agent, agent.bridge) for agent in session.agents]
        super().associate(session)
        for agent, old in kept:
            if old is not None:
                old.clients, old.closed = WeakSet(), False
                agent.bridge = agent.dispatcher.bridge = old


class BothBridgesSpeak(ReferenceTarget):
    """Attaching the manager again subscribes the session once more, without removing the first subscription."""

    def associate(self, session: Session) -> None:
        again = session.bridge is not None
        super().associate(session)
        bridge = session.bridge
        if again and bridge is not None:
            send = bridge.send

            def send_twice(event: Delivered) -> None:
                send(event)
                send(event)

            bridge.send = send_twice  # type: ignore[method-assign]


class ReorderedEvents(Bridge):
    """Thoughts wait in a batch until a more important event is sent, which overtakes them."""

    waiting: tuple[Delivered, ...] = ()

    def send(self, event: Delivered) -> None:
        if event.type == "agent_thinking":
            self.waiting = (*self.waiting, event)
            return
        for each in (event, *self.waiting):
            super().send(each)
        self.waiting = ()


class GapInNumbers(Bridge):
    """A number is drawn for the log line of a tool call too."""

    def emit(self, kind: str, payload: Mapping[str, Any], origin: Source) -> None:
        if kind == "tool_executing":
            self.seq += 1
        super().emit(kind, payload, origin)


class DeliversTwice(Bridge):
    """The last event of a run is sent again by the flush that ends it."""

    def send(self, event: Delivered) -> None:
        super().send(event)
        if event.type == "agent_completed":
            super().send(event)


class ReusedEventObject(Bridge):
    """Events are queued with one payload object, filled anew for each, and encoded when the batch is sent."""

    def __init__(self, user: str, clients: WeakSet[Client]) -> None:
        super().__init__(user, clients)
        self.payload: dict[str, Any] = {}
        self.batch: list[Delivered] = []

    def emit(self, kind: str, payload: Mapping[str, Any], origin: Source) -> None:
        self.payload.clear()
        self.payload.update(payload)
        self.seq += 1
        self.batch.append(self.event(kind, "", origin))
        if kind in ("agent_completed", "agent_error"):
            for event in self.batch:
                self.send(replace(event, body=json.dumps(self.payload)))
            self.batch.clear()


class TruncatedPayload(Bridge):
    """The column for the payload holds 65,535 characters; the rest is cut off silently."""

    def send(self, event: Delivered) -> None:
        super().send(replace(event, body=event.body[:65_535]))


class SilentErrors(Bridge):
    """agent_error is never sent: it was added after the list of types that are passed on."""

    def emit(self, kind: str, payload: Mapping[str, Any], origin: Source) -> None:
        if kind != "agent_error":
            super().emit(kind, payload, origin)


class SwallowedToolEvents(Bridge):
    """tool_executing is taken for a debugging message and filtered out."""

    def emit(self, kind: str, payload: Mapping[str, Any], origin: Source) -> None:
        if kind != "tool_executing":
            super().emit(kind, payload, origin)


PLANTED = (
    planted_by(BroadcastEvents, "foreign-event"),
    planted_by(LobbyHearsAll, "foreign-event"),
    planted_by(FirstUsersBridge, "foreign-event"),
    planted_by(CurrentUserSlot, "foreign-event"),
    planted_by(ErrorsToEverybody, "foreign-event"),
    planted_by(BridgePerAgent, "repeated-seq"),
    planted_by(RefusedContextBinds, "foreign-event"),
    planted_by(LateManagerIgnored, "lost-event"),
    planted_by(OldBridgeKept, "lost-event"),
    planted_by(ToolsOfTheFirstBridge, "lost-event"),
    planted_by(BothBridgesSpeak, "duplicate-event"),
    planted_by(ReorderedEvents, "reordered-events"),
    planted_by(GapInNumbers, "gap-in-seq"),
    planted_by(DeliversTwice, "duplicate-event"),
    planted_by(ReusedEventObject, "altered-payload"),
    planted_by(TruncatedPayload, "altered-payload"),
    planted_by(SilentErrors, "lost-event"),
    planted_by(SwallowedToolEvents, "lost-event"),
)
