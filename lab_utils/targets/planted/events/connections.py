"""Defects of connections: clients that are kept, forgotten, flooded or mistaken for others."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakSet

from lab_utils.target import Delivered, EndReport, Subscription
from lab_utils.targets.planted.base import planted_by
from lab_utils.targets.reference import Bridge, Client, ReferenceTarget, Session

__all__ = ["PLANTED"]


class PrefixRouting(ReferenceTarget):
    """Clients are found by a channel name that begins with the user id."""

    def make_bridge(self, user: str) -> Bridge:
        everyone = self.clients

        class PrefixBridge(Bridge):
            def send(self, event: Delivered) -> None:
                for found in [clients for name, clients in everyone.items() if name.startswith(self.user)]:
                    for client in [client for client in found if client.open]:
                        client.deliver(event)

        return PrefixBridge(user, self.clients_of(user))


class DropsWhenFull(Client):
    """A client's queue holds 300 unread events; further events are dropped without a notice."""

    unread = 0

    def received(self) -> Sequence[Delivered]:
        self.unread = 0
        return super().received()

    def deliver(self, event: Delivered) -> None:
        if self.unread < 300:
            self.unread += 1
            super().deliver(event)


class DroppedConnectionKept(Client):
    """Only the client notices that it has disconnected; the server keeps the connection."""

    gone = False

    @property
    def is_open(self) -> bool:
        return self.open and not self.gone

    async def close(self) -> None:
        self.gone = True


class ConnectionOutlivesSession(ReferenceTarget):
    """Ending a session closes its bridge, and leaves the connections open."""

    def close_clients(self, session: Session) -> None:
        if session.bridge is not None:
            session.bridge.closed = True


class ConnectionOutlivesEmptySession(ReferenceTarget):
    """Ending a session without agents leaves its connections open: they are closed with the last agent."""

    async def end(self, user: str) -> EndReport:
        session = self.sessions.get(user)
        if session is None or session.agents:
            return await super().end(user)
        del self.sessions[user]
        session.closed = True
        return EndReport(True, 0)


class ReplaysOnReconnect(ReferenceTarget):
    """Every client that connects receives the whole buffer, including events it has already had."""

    def __init__(self) -> None:
        super().__init__()
        self.buffers: dict[str, list[Delivered]] = {}

    def make_bridge(self, user: str) -> Bridge:
        bridge = super().make_bridge(user)
        send, buffer = bridge.send, self.buffers.setdefault(user, [])

        def keep_and_send(event: Delivered) -> None:
            buffer.append(event)
            send(event)

        bridge.send = keep_and_send  # type: ignore[method-assign]
        return bridge

    def subscribe(self, user: str) -> Subscription:
        client = Client(user)
        self.clients_of(user).add(client)
        for event in self.buffers.get(user, ()):
            client.deliver(event)
        return client


class ReplacingDropsClients(ReferenceTarget):
    """A new manager starts without the clients that were connected to the old one."""

    def associate(self, session: Session) -> None:
        if session.bridge is not None:
            self.clients[session.user] = WeakSet()
        super().associate(session)


class FailedCreateHangsUp(ReferenceTarget):
    """A session that came to nothing is ended like any other: its user's clients are disconnected."""

    def undo(self, session: Session, is_new: bool) -> None:
        super().undo(session, is_new)
        if session.user not in self.sessions:
            for client in self.clients.pop(session.user, WeakSet()):
                client.open = False


class EndDisconnectsNeighbours(ReferenceTarget):
    """The connections to close are found by a key that begins with the user id."""

    def close_clients(self, session: Session) -> None:
        for user, clients in list(self.clients.items()):
            if user.startswith(session.user):
                for client in clients:
                    client.open = False
        super().close_clients(session)


PLANTED = (
    planted_by(PrefixRouting, "foreign-event"),
    planted_by(DropsWhenFull, "lost-event"),
    planted_by(DroppedConnectionKept, "connection-left"),
    planted_by(ConnectionOutlivesSession, "connection-left"),
    planted_by(ConnectionOutlivesEmptySession, "connection-left"),
    planted_by(ReplaysOnReconnect, "unexpected-event"),
    planted_by(ReplacingDropsClients, "lost-event"),
    planted_by(FailedCreateHangsUp, "connection-lost"),
    planted_by(EndDisconnectsNeighbours, "neighbour-disconnected"),
)
