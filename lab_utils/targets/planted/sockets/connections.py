"""Defects of connections: sockets mistaken for another's, forgotten, replaced, or kept beyond the session."""

from __future__ import annotations

from typing import Any

from lab_utils.targets.planted.base import planted_by
from lab_utils.targets.planted.sockets.base import Hub, OverSockets, orphan
from registry import AgentWebSocketBridge, UserExecutionContext
from registry.testing import CLOSED_BY_SESSION, ReplayLog, Resumption, Subscription

__all__ = ["PLANTED"]


class _OneUser(Hub):
    first = ""

    def subscribe(self, user_id: str, stream: str | None = None, seq: int = 0) -> tuple[Subscription, Resumption]:
        self.first = self.first or user_id
        return super().subscribe(self.first, stream, seq)


class FirstUsersSocket(OverSockets):
    """The source of a socket's events is looked up for the first socket, and kept for all later ones."""

    def make_manager(self) -> Any:
        return _OneUser()


class _EndsLate(ReplayLog):
    def close(self, reason: str) -> None:
        if reason != CLOSED_BY_SESSION:
            super().close(reason)


class SocketOutlivesSession(OverSockets):
    """The end of a session ends its events; the socket stays open until the client leaves."""

    log = _EndsLate


class _EndsAtOnce(ReplayLog):
    def close(self, reason: str) -> None:
        if reason == CLOSED_BY_SESSION:
            self._drop(len(self.texts))
        super().close(reason)


class TailLostAtEnd(OverSockets):
    """A session's end closes its sockets before the last events have been sent."""

    log = _EndsAtOnce


class _Newest(ReplayLog):
    def subscribe(self, stream: str | None = None, seq: int = 0) -> tuple[Subscription, Resumption]:
        for replaced in self.open_subscriptions():
            orphan(self, replaced)
        return super().subscribe(stream, seq)


class SecondDeviceReplacesFirst(OverSockets):
    """A user's socket is kept in one slot: the second device takes it, and the first stays connected to nothing."""

    log = _Newest


class _BoundWhenMade(Hub):
    def create_bridge(self, user_context: UserExecutionContext) -> AgentWebSocketBridge:
        channel = self._channel(user_context.user_id)
        if not channel.bridges:
            channel.log = None
        return super().create_bridge(user_context)


class LateSocketUnassociated(OverSockets):
    """A session sends to sockets that connect after its start; earlier ones that waited for it receive nothing."""

    def make_manager(self) -> Any:
        return _BoundWhenMade()


class _OneEntry(ReplayLog):
    def leave(self, subscription: Subscription) -> None:
        super().leave(subscription)
        if self.closed_reason is None:
            for other in self.open_subscriptions():
                orphan(self, other)


class OneLeavesAllForgotten(OverSockets):
    """When a device goes, its user's entry is deleted, with the other devices in it."""

    log = _OneEntry


PLANTED = (
    planted_by(FirstUsersSocket, "foreign-event"),
    planted_by(SocketOutlivesSession, "connection-left"),
    planted_by(TailLostAtEnd, "lost-event"),
    planted_by(SecondDeviceReplacesFirst, "connection-lost", "lost-event"),
    planted_by(LateSocketUnassociated, "lost-event"),
    planted_by(OneLeavesAllForgotten, "connection-lost", "lost-event"),
)
