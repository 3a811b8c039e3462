"""A trial's WebSockets: the target's server in the trial's own loop, the clients on a loop in a thread of theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from lab_utils.sockets.descriptors import room_for
from lab_utils.sockets.wire import delivered
from lab_utils.target import Delivered, Target

if TYPE_CHECKING:
    from lab_utils.sockets.device import EventClient
    from lab_utils.sockets.fleet import ClientFleet
    from lab_utils.sockets.loopback import LoopbackServer

__all__ = ["NotLetIn", "SocketSubscription", "SocketTransport"]

Read = Callable[[str, str], Delivered]
"""Reads an event from its text and the stream that its connection was greeted with."""

_LONG = 1_000


class NotLetIn(ConnectionError):
    """A client was refused, or its connection ended before it was greeted."""


class SocketSubscription:
    """One device of one user, over a socket. It comes back only on request (`resume`).

    Its methods are for the trial's loop; its received events may be read at any time.
    """

    def __init__(self, user: str, client: EventClient, fleet: ClientFleet, patience_s: float, read: Read) -> None:
        self.user = user
        self.client = client
        self._fleet = fleet
        self._patience_s = patience_s
        self._read = read
        self._received: list[Delivered] = []
        self._shown: tuple[Delivered, ...] = ()
        self._greeting = 0  # Of the last event in _received.

    @property
    def is_open(self) -> bool:
        """Whether the client has been greeted and knows of no end."""
        return self.client.is_ready and not self.client.is_ended

    @property
    def is_over(self) -> bool:
        """Whether the connection has ended, or never began."""
        return self.client.is_ended

    @property
    def close_code(self) -> int | None:
        """The code of the last end; 1006: cut off without one; None: there was none, or no connection."""
        return self.client.close_code

    @property
    def resyncs(self) -> int:
        """How often the server warned the client that it may have missed something."""
        return self.client.tally.resyncs

    @property
    def gaps(self) -> int:
        """How often a number came that was not the next after the client's last one or its greeting, or an event of
        another stream."""
        return self.client.tally.gaps

    @property
    def stream(self) -> str | None:
        """The stream that the server last named to the client."""
        return self.client.stream

    @property
    def texts(self) -> Sequence[str]:
        """Every event as it came."""
        return tuple(self.client.texts)

    def received(self) -> Sequence[Delivered]:
        had = len(self._received)
        new = self.client.texts[had:]
        if new:
            self._received += map(self._read, new, self._greeted(had))
            self._shown = tuple(self._received)
        return self._shown

    def _greeted(self, place: int) -> Iterator[str]:
        """For each event from this place on, the stream that its connection was greeted with."""
        greetings = self.client.greetings
        while True:
            while self._greeting + 1 < len(greetings) and greetings[self._greeting + 1][0] <= place:
                self._greeting += 1
            yield greetings[self._greeting][1] if greetings else ""
            place += 1

    async def close(self) -> None:
        await self._fleet.call(self.client.close())
        await self._over()

    async def drop(self) -> None:
        """Break the connection without a word; return when the client knows, which is before the server does."""
        await self._fleet.do(self.client.drop)
        await self._over()

    async def resume(self, token: str | None = None) -> None:
        """Come back after the end, where it was, and return when greeted or refused."""
        if token is not None:
            self.client.token = token
        await self._fleet.again(self.client)
        await self.settled()

    async def acknowledge(self) -> None:
        """Acknowledge everything received so far."""
        if self.is_open:
            await self._fleet.call(self.client.acknowledge())

    async def flush(self) -> None:
        """Return once the server has read all of the client's messages so far."""
        await self._fleet.call(self.client.flush())

    async def stall(self) -> None:
        """Read nothing more, and stay connected."""
        await self._fleet.do(self.client.stall)

    async def resume_reading(self) -> None:
        """Read again."""
        await self._fleet.do(self.client.resume_reading)

    async def settled(self) -> None:
        """Return when the client has been greeted or its connection is over."""
        await self._until(lambda one: one.is_ready or one.is_ended)

    async def _over(self) -> None:
        await self._until(lambda one: one.is_ended)

    async def _until(self, condition: Callable[[EventClient], bool]) -> None:
        await self._fleet.until(condition, [self.client], self._patience_s)

    def __repr__(self) -> str:
        return f"<SocketSubscription of {self.user!r} {self.client!r}>"


class SocketTransport:
    """One target's server, and all of its clients; both begin with the first client and end with `aclose`."""

    def __init__(self, target: Target, patience_s: float) -> None:
        self.target = target
        self._patience_s = patience_s
        self._fleet: ClientFleet | None = None
        self._server: LoopbackServer | None = None
        self._serving: AbstractAsyncContextManager[LoopbackServer] | None = None
        self._starting = asyncio.Lock()
        self._room = 0
        self._long = cache(delivered)

    @property
    def opened(self) -> int:
        """Connections that were let in so far."""
        return 0 if self._fleet is None else sum(client.tally.greetings for client in self._fleet.clients)

    @property
    def arrived(self) -> int:
        """Events that all of its clients have received so far."""
        return 0 if self._fleet is None else sum(client.tally.events for client in self._fleet.clients)

    async def connect(self, user: str, **options: Any) -> SocketSubscription:
        """Connect a device of this user and return when it is greeted; raise `NotLetIn` if it is not.

        Options are those of `attempt`.
        """
        subscription = await self.attempt(user, **options)
        if not subscription.client.tally.connects:
            raise NotLetIn(f"a client of {user!r} could not connect")
        if not subscription.client.has_been_greeted:
            end = f"closed with {subscription.close_code}" if subscription.is_over else "left waiting"
            raise NotLetIn(f"a client of {user!r} was {end} before it was greeted")
        return subscription

    async def attempt(
        self,
        user: str,
        *,
        token: str | None = None,
        second_token: str | None = None,
        as_subprotocol: bool = False,
        stream: str | None = None,
        seq: int = 0,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        claims: Mapping[str, Any] | None = None,
        origin: str | None = None,
        receive_buffer: int | None = None,
        ack_every: int = 16,
    ) -> SocketSubscription:
        """Connect with this token (by default the user's own; "" for none) and return when greeted or refused.

        `as_subprotocol`: the token is offered as a browser's would be; `second_token` is, beside it. `stream` and
        `seq` ask to resume there; `query` stands in the address, `headers` in the opening request, `claims` in the
        first message. `origin`: as a page of that one would; `{host}` in it stands for the server's.
        """
        from lab_utils.sockets.device import EventClient

        fleet, server = await self._running()
        self._make_room(fleet)
        if token is None:
            token = self.target.token(user)
        if second_token is not None:
            headers = {**(headers or {}), "Authorization": f"Bearer {token}"}
            token = second_token
        client = EventClient(
            server.url(f"/{query}"),
            token or None,
            as_subprotocol=as_subprotocol or second_token is not None,
            reconnect=False,
            headers=headers,
            claims=claims,
            origin=origin,
            receive_buffer=receive_buffer,
            ack_every=ack_every,
        )
        client.stream, client.seq = stream, seq
        fleet.add(client)
        subscription = SocketSubscription(user, client, fleet, self._patience_s, self._read)
        # Neither the one nor the other in all that time: the caller sees that it is neither open nor over.
        with suppress(TimeoutError):
            await subscription.settled()
        return subscription

    async def restart(self, target: Target | None = None) -> None:
        """End the server with all its connections and start another at the same address; `target`: of that one."""
        async with self._starting:
            assert self._server is not None, "nobody has connected yet"
            port = self._server.port
            await self._stop_server()
            self.target = target or self.target
            await self._start_server(port)

    async def flush(self) -> None:
        """Return once every client that reads has received everything that the server has sent so far."""
        if self._fleet is not None:
            await self._fleet.flush(self._patience_s / 4)

    async def aclose(self) -> None:
        """Close the clients, then the server. Safe to call again."""
        fleet, self._fleet = self._fleet, None
        try:
            if fleet is not None:
                # The thread ends in any case; a client that the server does not let go ends with it.
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._patience_s):
                        await fleet.aclose()
        finally:
            await self._stop_server()

    async def _running(self) -> tuple[ClientFleet, LoopbackServer]:
        async with self._starting:
            if self._server is None:
                await self._start_server(0)
            if self._fleet is None:
                from lab_utils.sockets.fleet import ClientFleet

                self._fleet = ClientFleet()
            assert self._server is not None
            return self._fleet, self._server

    async def _start_server(self, port: int) -> None:
        from lab_utils.sockets.loopback import serving

        # Without a lifespan: an app's shutdown would close the target's streams, which outlive a server.
        self._serving = serving(self.target.asgi_app(), port=port, lifespan="off", timeout_graceful_shutdown=3)
        self._server = await self._serving.__aenter__()

    async def _stop_server(self) -> None:
        served, self._serving, self._server = self._serving, None, None
        if served is not None:
            await served.__aexit__(None, None, None)

    def _read(self, text: str, greeted: str) -> Delivered:
        # Several devices of a user receive the same events: of a long one there shall be one copy.
        return delivered(text, greeted) if len(text) < _LONG else self._long(text, greeted)

    def _make_room(self, fleet: ClientFleet) -> None:
        self._room -= 1
        if self._room < 0:
            live = sum(not client.is_ended for client in fleet.clients)
            self._room = max(64, live)
            room_for(live + self._room + 1)

    def __repr__(self) -> str:
        return f"<SocketTransport of {self.target.name!r} opened={self.opened} {self._server or 'not serving'}>"
