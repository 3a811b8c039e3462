"""One connection from its admission to its end: how it sends, receives, and is cut off."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, cast

from registry.events.bridge import CLOSED_BY_MANAGER, CLOSED_BY_SESSION
from registry.events.replay_log import LEFT_AS_SLOW, Resumption, Subscription
from registry.events.restraint import server_of
from registry.events.tokens import Grant
from registry.events.wire import PING, Ack, CloseCode, Pong, SocketLimits, Start, Violation, read_message, write_answer

__all__ = ["Heartbeat", "Receive", "Scope", "Send", "Socket", "Subscribe"]

_log = logging.getLogger(__name__)

# As ASGI has them. The values of their keys depend on their `type`.
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Subscribe = Callable[[str, str | None, int], tuple[Subscription, Resumption]]

_CODES: Final = {
    LEFT_AS_SLOW: CloseCode.SLOW_CONSUMER,
    CLOSED_BY_SESSION: CloseCode.SESSION_ENDED,
    CLOSED_BY_MANAGER: CloseCode.SERVER_CLOSING,
}
_MOST_IN_A_ROW: Final = 8
_MOST_UNREAD: Final = 2**20
"""Bytes that may wait in a server for a client beside the longest text of ours: servers answer each protocol ping of a
client that reads nothing, and keep the answers."""


class Socket:
    """The server's end of one connection. One task sends, one hears; whichever ends first ends both."""

    __slots__ = (
        "_ended",
        "_expires_at",
        "_flushing",
        "_heard_at",
        "_limits",
        "_longest",
        "_ping_due",
        "_pinged_at",
        "_receive",
        "_send",
        "_subscription",
        "_transport",
        "_user_id",
    )

    # Set when the conversation begins.
    _ended: asyncio.Future[CloseCode | None]
    _expires_at: float | None
    _heard_at: float
    _subscription: Subscription

    def __init__(self, receive: Receive, send: Send, limits: SocketLimits) -> None:
        self._receive = receive
        self._send = send
        self._limits = limits
        self._longest = 0
        self._transport = _transport_of(send)
        self._flushing: asyncio.TimerHandle | None = None
        self._ping_due = False
        self._pinged_at: float | None = None
        self._user_id = ""

    async def converse(self, grant: Grant, subscribe: Subscribe, heartbeat: Heartbeat) -> None:
        """Serve an accepted connection of this user until it ends, and close it."""
        self._user_id = grant.user_id
        self._expires_at = grant.expires_at
        _send_at_once(self._transport)
        code: CloseCode | None
        try:
            async with asyncio.timeout(self._limits.handshake_timeout):
                start = await self._next()
        except TimeoutError:
            code = self._note(CloseCode.HANDSHAKE_TIMEOUT, "nothing was said")
        except Violation as violation:
            code = self._note(violation.code, str(violation))
        else:
            if isinstance(start, Start):
                code = await self._serve(start, subscribe, heartbeat)
            else:
                code = None if start is None else self._note(CloseCode.OUT_OF_PLACE, f"{start} before start")
        await self.finish(code)

    async def finish(self, code: CloseCode | None) -> None:
        """Close the connection with this code (None: it is closed), by force if the peer does not read."""
        transport = self._transport
        deadline = asyncio.get_running_loop().time() + self._limits.close_timeout
        try:
            if code is not None:
                async with asyncio.timeout_at(deadline):
                    await self._send({"type": "websocket.close", "code": int(code), "reason": code.reason})
            # A closing transport waits, for ever if need be, until its peer has read the rest.
            while transport is not None and transport.get_write_buffer_size():
                if asyncio.get_running_loop().time() >= deadline:
                    raise TimeoutError
                await asyncio.sleep(self._limits.close_timeout / 20)
        except TimeoutError:
            if transport is not None:
                transport.abort()
        except (OSError, RuntimeError) as error:
            # Servers report either of these when the connection has gone meanwhile.
            _log.debug("a connection of user %r was closed already: %r", self._user_id, error)

    def end(self, code: CloseCode | None) -> None:
        """End the conversation; the first reason stays. None: the client has gone."""
        if not self._ended.done():
            self._ended.set_result(code)

    def excuse(self, blocked: float, now: float) -> None:
        """Seconds in which the loop did not turn are not held against the client: its messages wait to be read."""
        # It may have been heard just now, before the loop came to this.
        self._heard_at = min(self._heard_at + blocked, now)
        if self._pinged_at is not None:
            self._pinged_at += blocked

    def check(self, now: float, wall: float) -> None:
        """Ping a silent client; end the connection of a dead one, of one whose token has expired, or of one that makes
        the server write and reads nothing."""
        if self._expires_at is not None and wall >= self._expires_at:
            self.end(CloseCode.EXPIRED_TOKEN)
        elif self._transport is not None and self._transport.get_write_buffer_size() > _MOST_UNREAD + 4 * self._longest:
            # At once: the close would wait behind the unread bytes.
            self._transport.abort()
            self.end(CloseCode.SLOW_CONSUMER)
        elif self._pinged_at is not None:
            if now - self._pinged_at >= self._limits.ping_timeout:
                self.end(CloseCode.DEAD_PEER)
        elif now - self._heard_at >= self._limits.ping_interval:
            self._pinged_at = now
            self._ping_due = True
            self._subscription.wake()

    async def _serve(self, start: Start, subscribe: Subscribe, heartbeat: Heartbeat) -> CloseCode | None:
        loop = asyncio.get_running_loop()
        self._ended = loop.create_future()
        self._heard_at = loop.time()
        # No await from the subscription to its callback: an end that comes between them would be missed.
        self._subscription, how = subscribe(self._user_id, start.stream, start.seq)
        self._subscription.on_end = self._stream_ended
        tasks = (loop.create_task(self._speak(self._answer(how))), loop.create_task(self._listen()))
        heartbeat.add(self)
        try:
            code = await self._ended
        finally:
            heartbeat.discard(self)
            self._subscription.close()
            if self._flushing is not None:
                self._flushing.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        if code is not None:
            self._note(code, f"{self._subscription.lag} events unsent")
        return code

    def _answer(self, how: Resumption) -> str:
        subscription = self._subscription
        more: dict[str, object] = {"reason": how.value} if how.is_resync else {"resumed": how is Resumption.RESUMED}
        return write_answer(
            "resync_required" if how.is_resync else "hello",
            subscription.log.stream,
            subscription.next - 1,
            user_id=self._user_id,
            **more,
        )

    async def _speak(self, answer: str) -> None:
        send, subscription = self._send, self._subscription
        try:
            await send({"type": "websocket.send", "text": answer})
            in_a_row = 0
            while True:
                text = subscription.take()
                if text is not None:
                    self._longest = max(self._longest, len(text))
                    await send({"type": "websocket.send", "text": text})
                    in_a_row += 1
                    if in_a_row == _MOST_IN_A_ROW:
                        # A send that finds room does not suspend: without this one client's backlog delays everybody.
                        in_a_row = 0
                        await asyncio.sleep(0)
                elif self._ping_due:
                    self._ping_due = False
                    await send({"type": "websocket.send", "text": PING})
                elif subscription.ended_reason is not None:
                    self.end(_CODES.get(subscription.ended_reason, CloseCode.SESSION_ENDED))
                    return
                else:
                    in_a_row = 0
                    await subscription.wait()
        except (OSError, RuntimeError) as error:
            _log.debug("a connection of user %r went while it was sent to: %r", self._user_id, error)
            self.end(None)
        except Exception:
            _log.exception("sending to user %r failed", self._user_id)
            self.end(CloseCode.INTERNAL_ERROR)

    async def _listen(self) -> None:
        try:
            while (said := await self._next()) is not None:
                self._heard_at = asyncio.get_running_loop().time()
                self._pinged_at = None
                if isinstance(said, Ack):
                    if not self._subscription.acknowledge(said.seq):
                        raise Violation(CloseCode.OUT_OF_PLACE, f"{said} of an event that was not sent")
                elif not isinstance(said, Pong):
                    raise Violation(CloseCode.OUT_OF_PLACE, f"a second {said}")
            self.end(None)
        except Violation as violation:
            _log.debug("user %r: %s", self._user_id, violation)
            self.end(violation.code)
        except Exception:
            _log.exception("hearing user %r failed", self._user_id)
            self.end(CloseCode.INTERNAL_ERROR)

    async def _next(self) -> Start | Ack | Pong | None:
        """The client's next message; None once the client has gone. Raises `Violation`."""
        message = await self._receive()
        if message["type"] != "websocket.receive":
            return None
        text = message.get("text")
        if text is None:
            raise Violation(CloseCode.BINARY, "a binary message")
        most = self._limits.max_message_bytes
        if len(text) > most or len(text.encode()) > most:
            raise Violation(CloseCode.MESSAGE_TOO_LARGE, f"a message of more than {most} bytes")
        return read_message(text)

    def _stream_ended(self, reason: str) -> None:
        code = _CODES.get(reason, CloseCode.SESSION_ENDED)
        if code is CloseCode.SLOW_CONSUMER:
            self.end(code)
        else:
            # Events emitted before the end are still sent, to a client that reads.
            self._flushing = asyncio.get_running_loop().call_later(self._limits.close_timeout, self.end, code)

    def _note(self, code: CloseCode, detail: str) -> CloseCode:
        _log.info("closing a connection of user %r with %d %s: %s", self._user_id, code, code.reason, detail)
        return code


class Heartbeat:
    """Looks after all sockets of an app with one timer, which exists only while there are any."""

    def __init__(self, limits: SocketLimits, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._period = min(limits.ping_interval, limits.ping_timeout) / 4
        self._sockets: set[Socket] = set()
        self._timer: asyncio.TimerHandle | None = None

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._period, self._beat)

    def add(self, one: Socket) -> None:
        """Look after a socket."""
        self._sockets.add(one)
        if self._timer is None:
            self._wait()

    def discard(self, one: Socket) -> None:
        """Forget a socket."""
        self._sockets.discard(one)
        if not self._sockets and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def beat_now(self) -> None:
        """Look after the sockets in the next turn of the loop: for a clock that was put forward."""
        if self._timer is not None:
            # Its turn is now, and not late: the loop's own time, by which this is measured, has not changed.
            self._timer.cancel()
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(loop.time(), self._beat)

    def _beat(self) -> None:
        assert self._timer is not None
        now, wall = asyncio.get_running_loop().time(), self.clock()
        late = now - self._timer.when()
        for one in tuple(self._sockets):
            one.excuse(late, now)
            one.check(now, wall)
        self._wait()


def _send_at_once(transport: asyncio.Transport | None) -> None:
    # asyncio does this itself, but not for a listening socket made without naming the protocol, as servers with several
    # workers make theirs. There each small message would wait up to 40 ms for the receipt of the last one.
    connection = None if transport is None else transport.get_extra_info("socket")
    if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _transport_of(send: object) -> asyncio.Transport | None:
    """The transport below `send`; None if there is none.

    ASGI itself has no way to cut off a peer that does not read: its close waits behind the unread bytes.
    """
    return cast("asyncio.Transport | None", getattr(server_of(send), "transport", None))
