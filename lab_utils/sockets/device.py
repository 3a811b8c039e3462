"""A client of a registry's events over a real socket: the events it receives, and their faults."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.http11 import Response
from websockets.protocol import State
from websockets.typing import Origin, Subprotocol

__all__ = ["EventClient", "Tally"]

_SLICES = 10

SUBPROTOCOL = Subprotocol("agent-registry.v1")


@dataclass
class Tally:
    """The things a client has seen, counted."""

    connects: int = 0
    failed_connects: int = 0
    greetings: int = 0
    resumes: int = 0
    resyncs: int = 0
    events: int = 0
    duplicates: int = 0
    gaps: int = 0
    pings: int = 0
    close_codes: list[int] = field(default_factory=list)


class EventClient:
    """One device of one user: connects, receives, acknowledges, comes back where it was.

    After a lost connection it reconnects with its last `seq`, at once and then every `retry_s`, until closed or with
    `reconnect=False`. It never reconnects after a refusal (4400 to 4409 and the like), which a repetition cannot mend.
    `headers` are sent beside the token and `claims` in the first message, right or wrong; `receive_buffer` (bytes)
    bounds the kernel's buffer for a client that does not read.
    `texts` holds every event as it came if `keep`; `on_event` is called with each. All methods are for the loop on
    which `run()` runs; a `ClientFleet` has one.
    """

    def __init__(
        self,
        url: str,
        token: str | None,
        *,
        as_subprotocol: bool = False,
        origin: str | None = None,
        keep: bool = True,
        ack_every: int = 16,
        reconnect: bool = True,
        retry_s: float = 0.05,
        on_event: Callable[[str], None] | None = None,
        headers: Mapping[str, str] | None = None,
        claims: Mapping[str, Any] | None = None,
        receive_buffer: int | None = None,
    ) -> None:
        self.url = url
        self.headers = dict(headers or {})
        self.claims = dict(claims or {})
        self.receive_buffer = receive_buffer
        self.token = token
        self.as_subprotocol = as_subprotocol
        self.origin = origin
        self.keep = keep
        self.ack_every = ack_every
        self.reconnect = reconnect
        self.retry_s = retry_s
        self.on_event = on_event
        self.stream: str | None = None
        self.seq = 0
        self.tally = Tally()
        self.texts: list[str] = []
        self.controls: list[dict[str, Any]] = []
        # For each greeting: how many texts were there, and the stream that it named.
        self.greetings: list[tuple[int, str]] = []
        self.answered = ""
        """The head of the server's answer to the last opening handshake that it answered, a line a header."""
        self.is_ready = False
        self.is_ended = False
        self._socket: ClientConnection | None = None
        self._reading = asyncio.Event()
        self._reading.set()
        self._waiters: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self._unacknowledged = 0
        self._is_closing = False

    @property
    def close_code(self) -> int | None:
        """The code of the last close; None before the first. 1006: the connection broke without one."""
        return self.tally.close_codes[-1] if self.tally.close_codes else None

    @property
    def has_been_greeted(self) -> bool:
        """Whether any connection of this client was let in."""
        return self.tally.greetings > 0

    @property
    def events(self) -> list[dict[str, Any]]:
        """The kept events, decoded."""
        return [json.loads(text) for text in self.texts]

    async def run(self) -> None:
        """Stay connected until closed, refused, or (without `reconnect`) cut off."""
        self.is_ended = False
        try:
            while not self._is_closing:
                code = await self._one_connection()
                self.is_ready = False
                if code is not None:
                    self.tally.close_codes.append(code)
                self._notify()
                if not self.reconnect or _is_final(code):
                    return
                if code is None:
                    await asyncio.sleep(self.retry_s)
        finally:
            self.is_ended = True
            self._notify()

    async def until(self, condition: Callable[[EventClient], bool], timeout_s: float = 30.0) -> None:
        """Return once the condition holds; raise `TimeoutError` with the actual state."""
        if condition(self):
            return
        waiter = asyncio.get_running_loop().create_future()
        entry = (lambda: condition(self), waiter)
        self._waiters.append(entry)
        try:
            # In slices, of which a process that was stopped loses one: client and server need turns, too.
            for _ in range(_SLICES):
                await asyncio.wait({waiter}, timeout=timeout_s / _SLICES)
                if waiter.done():
                    return
            raise TimeoutError(f"not after {timeout_s} s: {self!r} {self.tally}")
        finally:
            if entry in self._waiters:
                self._waiters.remove(entry)

    async def close(self) -> None:
        """Leave, politely."""
        self._is_closing = True
        self.resume_reading()
        if self._socket is not None:
            await self._socket.close()

    def drop(self) -> None:
        """Break the connection without a word, as a network does."""
        if self._socket is not None:
            self._socket.transport.abort()

    def stall(self) -> None:
        """Read nothing more, not even pings, and stay connected."""
        self._reading.clear()
        if self._socket is not None:
            self._socket.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        if not self._reading.is_set():
            self._reading.set()
            if self._socket is not None and not self._socket.transport.is_closing():
                self._socket.transport.resume_reading()

    async def say(self, message: str | bytes) -> None:
        """Send a message as it is, right or wrong."""
        if self._socket is None:
            raise RuntimeError("not connected")
        await self._socket.send(message)

    async def flush(self) -> None:
        """Return once everything has been received that the server sent before it answers this; at once for a client
        that is not connected or reads nothing."""
        if self._socket is None or not self._reading.is_set():
            return
        with contextlib.suppress(ConnectionClosed):
            # Everything sent before arrives before: the answer to a ping does not overtake.
            await (await self._socket.ping())
        for _ in range(3):  # Turns, in which arrived messages are counted.
            await asyncio.sleep(0)

    async def acknowledge(self) -> None:
        """Acknowledge everything received so far."""
        self._unacknowledged = 0
        await self.say(json.dumps({"type": "ack", "seq": self.seq}))

    async def _one_connection(self) -> int | None:
        """Return the close code; None if there was no connection at all."""
        offered, headers = [SUBPROTOCOL], dict(self.headers)
        if self.token is not None and self.as_subprotocol:
            offered.append(Subprotocol(f"bearer.{self.token}"))
        elif self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        own: dict[str, Any] = {}
        try:
            if self.receive_buffer is not None:
                own["sock"] = await self._with_small_buffer()
            connection = await connect(
                self.url,
                additional_headers=headers,
                subprotocols=offered,
                origin=None if self.origin is None else Origin(self.origin.format(host=urlsplit(self.url).netloc)),
                compression=None,
                ping_interval=None,
                proxy=None,
                # Hundreds may connect at once on a busy machine.
                open_timeout=60.0,
                close_timeout=2.0,
                **own,
            )
        except (OSError, InvalidHandshake, TimeoutError, EOFError) as error:
            self._keep_answer(getattr(error, "response", None))
            self.tally.failed_connects += 1
            return None
        self._keep_answer(connection.response)
        if self._is_closing:
            await connection.close()
            return None
        self.tally.connects += 1
        self._socket = connection
        try:
            start: dict[str, Any] = {"type": "start"}
            if self.stream is not None:
                start |= {"stream": self.stream, "seq": self.seq}
            start |= self.claims
            await connection.send(json.dumps(start))
            while True:
                await self._reading.wait()
                text = await connection.recv(decode=True)
                for line in str(text).split("\n"):
                    await self._receive(line)
        except ConnectionClosed as closed:
            return 1006 if closed.rcvd is None else closed.rcvd.code
        finally:
            self._socket = None
            if not self._reading.is_set():
                connection.transport.abort()
            with contextlib.suppress(ConnectionClosed):
                await connection.close()

    def _keep_answer(self, response: Response | None) -> None:
        if response is not None:
            self.answered = "\n".join(f"{name}: {value}" for name, value in response.headers.raw_items())

    async def _with_small_buffer(self) -> socket.socket:
        address = urlsplit(self.url)
        made = socket.socket(socket.AF_INET6 if ":" in str(address.hostname) else socket.AF_INET)
        try:
            # Before it connects: a buffer size once offered to the peer cannot be taken back.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer or 0)
            made.setblocking(False)
            await asyncio.get_running_loop().sock_connect(made, (address.hostname, address.port))
        except BaseException:
            made.close()
            raise
        return made

    async def _receive(self, text: str) -> None:
        message = json.loads(text)
        kind = message["type"]
        if "payload" in message:
            self._count(message, text)
            self._unacknowledged += 1
            if self._unacknowledged >= self.ack_every and self._may_speak():
                await self.acknowledge()
        else:
            self.controls.append(message)
            if kind == "ping":
                self.tally.pings += 1
                if self._may_speak():
                    await self.say('{"type": "pong"}')
            else:
                self.tally.greetings += 1
                self.tally.resyncs += kind == "resync_required"
                self.tally.resumes += bool(message.get("resumed"))
                self.stream, self.seq = message["stream"], message["seq"]
                self.greetings.append((len(self.texts), message["stream"]))
                self.is_ready = True
        self._notify()

    def _may_speak(self) -> bool:
        # Messages from before the end are still to be read; an answer to them would fail, and the reading with it.
        return self._socket is not None and self._socket.state is State.OPEN

    def _count(self, message: dict[str, Any], text: str) -> None:
        seq = message["seq"]
        self.tally.events += 1
        self.tally.duplicates += seq <= self.seq
        self.tally.gaps += seq > self.seq + 1 or message.get("stream") != self.stream
        self.seq = max(seq, self.seq)
        if self.keep:
            self.texts.append(text)
        if self.on_event is not None:
            self.on_event(text)

    def _notify(self) -> None:
        for entry in [entry for entry in self._waiters if entry[0]()]:
            self._waiters.remove(entry)
            if not entry[1].done():
                entry[1].set_result(None)

    def __repr__(self) -> str:
        state = "ended" if self.is_ended else "ready" if self.is_ready else "connecting"
        return f"<EventClient {state} stream={self.stream} seq={self.seq} code={self.close_code}>"


def _is_final(code: int | None) -> bool:
    return code is not None and ((4400 <= code <= 4409 and code != 4408) or code in (4413, 4415))
