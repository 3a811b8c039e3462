"""AgentWebSocketBridge: one user's ordered, bounded event channel, which holds no way to anyone else's."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Final

from registry.errors import SessionClosed
from registry.events.replay_log import ReplayLog
from registry.events.types import Event, EventType, Origin, encode_payload, origin_json
from registry.identity import random_hex
from registry.lease import Uncopyable

__all__ = ["AgentWebSocketBridge", "Channel", "Connection", "SilentBridge"]

CLOSED_BY_CLIENT: Final = "client_closed"
CLOSED_BY_SESSION: Final = "session_ended"
CLOSED_AS_SLOW: Final = "slow_consumer"
CLOSED_BY_MANAGER: Final = "manager_closed"


class Connection(Uncopyable):
    """One client's view of one user's events: an async iterator over a bounded queue.

    Every event emitted after the connection was made is received once, in order. Emitting never waits for a reader. A
    reader that falls more than `capacity` events behind is disconnected (`closed_reason == "slow_consumer"`) and its
    unread events are dropped: a slow client costs a bounded amount of memory, and delays nobody. For one reader at a
    time.
    """

    __slots__ = ("__weakref__", "_channel", "_events", "_wake", "capacity", "closed_reason", "user_id")

    def __init__(self, channel: Channel, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"capacity {capacity} leaves no room for an event; pass at least 1")
        self.user_id = channel.user_id
        # Keeps the channel alive while no bridge does; the channel knows its connections only weakly, so a client
        # that is dropped without a close() leaves nothing behind.
        self._channel: Channel | None = channel
        channel.connections.append(weakref.ref(self))
        self.capacity = capacity
        self.closed_reason: str | None = None
        self._events: deque[Event] = deque()
        self._wake: asyncio.Future[None] | None = None

    @property
    def pending(self) -> int:
        """Events that are queued and not yet read."""
        return len(self._events)

    def close(self, reason: str = CLOSED_BY_CLIENT) -> None:
        """End the connection. Queued events can still be read, then iteration ends. Safe to call again."""
        if self.closed_reason is None:
            self.closed_reason = reason
            self._channel = None
            self._wake_reader()

    async def receive(self) -> Event:
        """Return the next event, waiting for it; raise `StopAsyncIteration` after the last. A cancelled reader loses
        nothing."""
        while not self._events:
            if self.closed_reason is not None:
                raise StopAsyncIteration
            if self._wake is not None:
                raise RuntimeError("two readers wait on one connection; give each its own connect()")
            self._wake = asyncio.get_running_loop().create_future()
            try:
                await self._wake
            finally:
                self._wake = None
        return self._events.popleft()

    def receive_nowait(self) -> Event | None:
        """Return the next event if one is queued, else None."""
        return self._events.popleft() if self._events else None

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        return await self.receive()

    def deliver(self, event: Event) -> None:
        """Queue an event, or disconnect a reader that is too far behind. Called by the channel."""
        if self.closed_reason is not None:
            return
        if len(self._events) >= self.capacity:
            self._events.clear()
            self.close(CLOSED_AS_SLOW)
            return
        self._events.append(event)
        self._wake_reader()

    def _wake_reader(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def __repr__(self) -> str:
        state = self.closed_reason or "open"
        return f"<Connection user={self.user_id!r} pending={len(self._events)} {state}>"


class Channel(Uncopyable):
    """One life of one user's event stream: its number, and the connections that receive it."""

    __slots__ = (
        "__weakref__",
        "bridges",
        "closed",
        "connections",
        "last_origin",
        "log",
        "next_seq",
        "stream",
        "user_id",
    )

    def __init__(self, user_id: str) -> None:
        self.user_id = user_id
        self.stream = random_hex()
        self.next_seq = 1
        self.connections: list[weakref.ref[Connection]] = []
        self.bridges = 0
        self.closed = False
        self.log: ReplayLog | None = None  # Made for the first client that comes over a socket.
        self.last_origin: tuple[Origin, str] | None = None

    def publish(self, event_type: EventType, payload: Mapping[str, object], origin: Origin) -> Event:
        """Number an event and queue it for every connection. No await: events are ordered as they are emitted."""
        payload_json = encode_payload(event_type, payload)
        event = Event(self.stream, self.next_seq, event_type, self.user_id, origin, payload_json)
        self.next_seq += 1
        if self.connections:
            for connection in self.open_connections():
                connection.deliver(event)
        log = self.log
        if log is not None:
            if log.is_wanted:
                last = self.last_origin
                if last is None or last[0] is not origin:
                    last = self.last_origin = (origin, origin_json(self.user_id, origin))
                log.append(event.to_json_with(last[1]))
            else:
                log.skip()
        return event

    def open_connections(self) -> list[Connection]:
        """The connections that are open now, oldest first; the others are forgotten."""
        found = [connection for ref in self.connections if (connection := ref()) and connection.closed_reason is None]
        if len(found) != len(self.connections):
            self.connections = [weakref.ref(connection) for connection in found]
        return found

    @property
    def connection_count(self) -> int:
        """Connections that are open now, in process and over sockets."""
        return len(self.open_connections()) + (0 if self.log is None else len(self.log.open_subscriptions()))

    def close(self, reason: str) -> None:
        """End the stream and every connection to it."""
        self.closed = True
        for connection in self.open_connections():
            connection.close(reason)
        self.connections = []
        if self.log is not None:
            self.log.close(reason)


class AgentWebSocketBridge(Uncopyable):
    """One session's way to its user's clients.

    Holds that user's channel and nothing else. Emits in order, never waits for a client, and raises `SessionClosed`
    once closed: a handle kept beyond the session's end cannot reach the same user's next one.
    """

    __slots__ = ("__weakref__", "_channel", "closed", "user_id")

    def __init__(self, channel: Channel) -> None:
        self.user_id = channel.user_id
        self.closed = False
        self._channel = channel
        channel.bridges += 1

    def emit(self, event_type: EventType, payload: Mapping[str, object], origin: Origin) -> Event:
        """Number the event and queue it for each of the user's connections.

        Raises `SessionClosed`, and `EventPayloadError` for a value that JSON cannot hold.
        """
        if self.closed:
            raise SessionClosed(f"the bridge of user {self.user_id!r} is closed; {event_type.value} was not sent")
        return self._channel.publish(event_type, payload, origin)

    @property
    def connection_count(self) -> int:
        """Connections that receive this bridge's events now."""
        return self._channel.connection_count

    @property
    def last_seq(self) -> int:
        """The number of the last event emitted to this user's stream; 0 before the first."""
        return self._channel.next_seq - 1

    def close(self) -> None:
        """Emit nothing more. With the last bridge of a stream its connections end too. Safe to call again."""
        was_open = not self.closed
        self.withdraw()
        if was_open and self._channel.bridges == 0:
            self._channel.close(CLOSED_BY_SESSION)

    def withdraw(self) -> None:
        """Emit nothing more, and leave the connections as if this bridge had never been."""
        if not self.closed:
            self.closed = True
            self._channel.bridges -= 1

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"connections={self.connection_count}"
        return f"<AgentWebSocketBridge user={self.user_id!r} last_seq={self.last_seq} {state}>"


class SilentBridge(Uncopyable):
    """The bridge of a session without a manager: events go nowhere, and nothing fails until the session ends."""

    __slots__ = ("closed", "user_id")

    def __init__(self, user_id: str) -> None:
        self.user_id = user_id
        self.closed = False

    def emit(self, event_type: EventType, payload: Mapping[str, object], origin: Origin) -> None:
        """Check the payload as a real bridge would, so that a mistake shows before the first client does."""
        if self.closed:
            raise SessionClosed(f"the bridge of user {self.user_id!r} is closed; {event_type.value} was not sent")
        encode_payload(event_type, payload)

    def close(self) -> None:
        """Refuse everything from now on. Safe to call again."""
        self.closed = True

    def __repr__(self) -> str:
        return f"<SilentBridge user={self.user_id!r}>"
