"""WebSocketManager: the connected clients of each user; the one place that knows all users' channels."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Final
from weakref import WeakValueDictionary

from registry.context import UserExecutionContext
from registry.events.app import Admissions, Authenticate, EventsApp
from registry.events.bridge import CLOSED_BY_MANAGER, AgentWebSocketBridge, Channel, Connection
from registry.events.replay_log import ReplayLog, Resumption, Subscription
from registry.events.wire import SocketLimits
from registry.identity import check_user_id
from registry.lease import Uncopyable

__all__ = ["DEFAULT_CAPACITY", "WebSocketManager"]

DEFAULT_CAPACITY = 1_000
"""Events that one connection may fall behind before it is disconnected."""
_AT_ONCE: Final = 500


class WebSocketManager(Uncopyable):
    """Gives each session a bridge to its user's connections, and each client a connection to its user's events.

    A channel lives as long as a bridge or a connection holds it: a user who left costs nothing. A client may connect
    before the session exists and receives its events from the first. When the session ends, so do its connections.
    """

    __slots__ = ("__weakref__", "_capacity", "_channels", "admissions", "limits")

    def __init__(
        self,
        *,
        capacity: int = DEFAULT_CAPACITY,
        limits: SocketLimits = SocketLimits(),  # noqa: B008  # Frozen.
    ) -> None:
        if capacity < 1:
            raise ValueError(f"capacity {capacity} leaves no room for an event; pass at least 1")
        self._capacity = capacity
        self.limits = limits
        self.admissions = Admissions(limits)
        # Weak, so that neither a bridge nor a connection needs a way back here to be forgotten.
        self._channels: WeakValueDictionary[str, Channel] = WeakValueDictionary()

    def create_bridge(self, user_context: UserExecutionContext) -> AgentWebSocketBridge:
        """Return a bridge to the connections of the context's user, and to no one else's."""
        return AgentWebSocketBridge(self._channel(user_context.user_id))

    def connect(self, user_id: str) -> Connection:
        """Open a connection that receives every event of this user from now on. Raises `InvalidUserId`."""
        return Connection(self._channel(check_user_id(user_id)), self._capacity)

    def asgi_app(self, authenticate: Authenticate, *, origins: Collection[str] | None = None) -> EventsApp:
        """Return an ASGI app that serves users' events to WebSocket clients; mount it in yours.

        `authenticate(token)`, sync or async, returns a user id or a `Grant`, or raises a `TokenError`; a
        `TokenSigner` is one. `origins`: those whose pages may connect; by default a page's own host only.
        """
        return EventsApp(self, authenticate, origins=origins)

    def subscribe(self, user_id: str, stream: str | None = None, seq: int = 0) -> tuple[Subscription, Resumption]:
        """Begin a socket's place in this user's stream: from now, or after `seq` of `stream`."""
        channel = self._channel(check_user_id(user_id))
        if channel.log is None:
            channel.log = self.make_log(channel)
        subscription, how = channel.log.subscribe(stream, seq)
        subscription.keeps = channel
        return subscription, how

    def make_log(self, channel: Channel) -> ReplayLog:
        """The log that the socket connections of a user read from, made for the first of them."""
        return ReplayLog(channel.stream, channel.next_seq, self.limits.max_events, self.limits.max_bytes)

    def connection_count(self, user_id: str | None = None) -> int:
        """Open connections of one user, or of all, in process and over sockets. Raises `InvalidUserId`.

        Of all: looks at every connection, two milliseconds for 10,000.
        """
        if user_id is not None:
            channel = self._channels.get(check_user_id(user_id))
            return 0 if channel is None else channel.connection_count
        count = 0
        # Without a call for each channel: that takes four times as long.
        for ref in self._channels.valuerefs():
            channel = ref()
            if channel is not None:
                for known in channel.connections:
                    if (connection := known()) is not None and connection.closed_reason is None:
                        count += 1
                if channel.log is not None:
                    count += len(channel.log.open_subscriptions())
        return count

    @property
    def users(self) -> frozenset[str]:
        """The users who have a live channel. Looks at every channel, one and a half milliseconds for 10,000."""
        return frozenset(
            [one.user_id for ref in self._channels.valuerefs() if (one := ref()) is not None and not one.closed]
        )

    def close(self) -> None:
        """End every channel and connection. Bridges that sessions still hold then emit to nobody.

        Holds the loop until it has, about 10 ms for 10,000 channels; `aclose` does not.
        """
        for channel in list(self._channels.values()):
            channel.close(CLOSED_BY_MANAGER)

    async def aclose(self) -> None:
        """The same, with a turn for everything else after every few hundred channels. One that is opened meanwhile may
        stay open."""
        # No channel is held over a pause: one whose user leaves is freed.
        for number, ref in enumerate(self._channels.valuerefs()):
            if (channel := ref()) is not None:
                channel.close(CLOSED_BY_MANAGER)
            channel = None
            if number % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)

    def _channel(self, user_id: str) -> Channel:
        channel = self._channels.get(user_id)
        if channel is None or channel.closed:
            channel = self._channels[user_id] = Channel(user_id)
        return channel

    def __repr__(self) -> str:
        return f"<WebSocketManager users={len(self._channels)} connections={self.connection_count()}>"
