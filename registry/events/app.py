"""The ASGI app that carries users' events over WebSockets: it admits clients, checks their messages, and ends
connections."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Final, Protocol

from registry.errors import Containment, ExpiredToken, ForeignToken, TokenError
from registry.events.replay_log import Resumption, Subscription
from registry.events.restraint import restrain
from registry.events.socket import Heartbeat, Receive, Scope, Send, Socket
from registry.events.tokens import Grant
from registry.events.wire import BEARER_PREFIX, SUBPROTOCOL, CloseCode, SocketLimits, Violation
from registry.identity import check_user_id

__all__ = ["Admissions", "Authenticate", "EventsApp", "Hub"]

_log = logging.getLogger(__name__)
_AUTHENTICATE: Final = Containment("authenticate()")

Authenticate = Callable[[str], "str | Grant | Awaitable[str | Grant]"]


class Hub(Protocol):
    """The part of the manager that the app uses."""

    @property
    def limits(self) -> SocketLimits: ...

    @property
    def admissions(self) -> Admissions: ...

    def subscribe(self, user_id: str, stream: str | None, seq: int) -> tuple[Subscription, Resumption]: ...

    async def aclose(self) -> None: ...


class Admissions:
    """Counts sockets, of each user and in all, refused ones included while they last."""

    def __init__(self, limits: SocketLimits) -> None:
        self._limits = limits
        self.total = 0
        self.by_user: Counter[str] = Counter()

    @contextmanager
    def enter(self) -> Iterator[bool]:
        """Count a socket for as long as the block lasts; the value is False if there are too many."""
        self.total += 1
        try:
            yield self.total <= self._limits.max_connections
        finally:
            self.total -= 1

    @contextmanager
    def enter_user(self, user_id: str) -> Iterator[bool]:
        """Likewise for one user's sockets."""
        # No await from the count to the answer: of two that come at once, each is counted.
        self.by_user[user_id] += 1
        try:
            yield self.by_user[user_id] <= self._limits.max_connections_per_user
        finally:
            self.by_user[user_id] -= 1
            if not self.by_user[user_id]:
                del self.by_user[user_id]


class EventsApp:
    """An ASGI app; mount it where clients shall find their events.

    Every connection is one user's for its life, by its token alone. Refusals come before any event, each with its own
    close code; they come after the opening handshake, for only then does a browser show the code. A client's mistake
    ends its own connection with a code and a log line, never anything else.
    """

    def __init__(
        self,
        hub: Hub,
        authenticate: Authenticate,
        *,
        origins: Collection[str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not callable(authenticate):
            raise TypeError(
                f"authenticate={authenticate!r} cannot be called; pass a TokenSigner or a function of yours"
            )
        if isinstance(origins, str):
            raise TypeError(f"origins={origins!r} is a single string; pass a set such as {{{origins!r}}}")
        self._hub = hub
        self._authenticate = authenticate
        self._origins = None if origins is None else frozenset(origin.lower().rstrip("/") for origin in origins)
        self.heartbeat = Heartbeat(hub.limits, clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "websocket":
            try:
                await self.serve(scope, receive, send)
            except OSError as error:
                _log.debug("a client left before it was admitted: %r", error)
            except Exception:
                _log.exception("a connection failed")
                with suppress(Exception):
                    code = CloseCode.INTERNAL_ERROR
                    await send({"type": "websocket.close", "code": int(code), "reason": code.reason})
        elif kind == "lifespan":
            await self._live(receive, send)
        else:
            await _refuse_http(send)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection to its end. Raises `OSError` if its client left before it was admitted."""
        if (await receive())["type"] != "websocket.connect":
            return
        hub = self._hub
        restrain(send, hub.limits)
        socket = Socket(receive, send, hub.limits)
        with hub.admissions.enter() as has_room:
            refusal: CloseCode | None = None
            grant: Grant | None = None
            if not has_room:
                refusal = CloseCode.TOO_MANY
            else:
                try:
                    grant = await self.admit(scope)
                except Violation as violation:
                    refusal = violation.code
                    _log.info("refused a connection from %s: %s", _peer(scope), violation)
            offered = scope.get("subprotocols") or ()
            await send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL if SUBPROTOCOL in offered else None})
            if grant is None:
                await socket.finish(refusal)
                return
            with hub.admissions.enter_user(grant.user_id) as user_has_room:
                if not user_has_room:
                    _log.info("refused one more connection of user %r", grant.user_id)
                    await socket.finish(CloseCode.TOO_MANY_OF_USER)
                    return
                await socket.converse(grant, hub.subscribe, self.heartbeat)

    async def admit(self, scope: Scope) -> Grant:
        """Return whose events a connection gets, by its token alone. Raises `Violation` for one that is refused."""
        headers: dict[bytes, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value.decode("latin-1"))
        if not self._is_welcome(headers.get(b"origin"), headers.get(b"host")):
            raise Violation(CloseCode.WRONG_ORIGIN, f"origin {headers[b'origin']}")
        token = _token(headers.get(b"authorization", []), scope.get("subprotocols") or ())
        try:
            async with asyncio.timeout(self._hub.limits.handshake_timeout):
                with _AUTHENTICATE:
                    granted = self._authenticate(token)
                    if inspect.isawaitable(granted):
                        granted = await granted
            if not isinstance(granted, Grant):
                granted = Grant(check_user_id(granted))
            if granted.expires_at is not None and granted.expires_at <= self.heartbeat.clock():
                raise ExpiredToken("the token has expired")
        except TokenError as error:
            raise Violation(_refusal(error), str(error)) from error
        except TimeoutError as error:
            raise Violation(CloseCode.HANDSHAKE_TIMEOUT, "authenticate() took too long") from error
        except Exception as error:
            _log.exception("authenticate() failed")
            raise Violation(CloseCode.INTERNAL_ERROR, type(error).__name__) from error
        return granted

    def _is_welcome(self, origins: list[str] | None, hosts: list[str] | None) -> bool:
        if origins is None:
            return True  # Not a browser: it could send any origin.
        if len(origins) != 1:
            return False
        origin = origins[0].lower()
        if self._origins is not None:
            return origin in self._origins
        # The scheme is not compared: a proxy that ends TLS makes https out of http.
        return hosts is not None and len(hosts) == 1 and origin.partition("://")[2] == hosts[0].lower()

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await self._hub.aclose()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return

    def __repr__(self) -> str:
        return f"<EventsApp sockets={self._hub.admissions.total}>"


def _token(authorization: list[str], offered: Collection[str]) -> str:
    found = {value[7:].strip() for value in authorization if value[:7].lower() == "bearer "}
    found |= {name.removeprefix(BEARER_PREFIX) for name in offered if name.startswith(BEARER_PREFIX)}
    if len(found) > 1:
        raise Violation(CloseCode.BAD_TOKEN, "two different tokens")
    token = found.pop() if found else ""
    if not token:
        raise Violation(CloseCode.NO_TOKEN, "no token in the Authorization header, none as a subprotocol")
    return token


def _refusal(error: TokenError) -> CloseCode:
    if isinstance(error, ExpiredToken):
        return CloseCode.EXPIRED_TOKEN
    if isinstance(error, ForeignToken):
        return CloseCode.FOREIGN_TOKEN
    return CloseCode.BAD_TOKEN


def _peer(scope: Scope) -> object:
    return scope.get("client")


async def _refuse_http(send: Send) -> None:
    body = b"A WebSocket is served here.\n"
    headers = [
        (b"content-type", b"text/plain"),
        (b"content-length", str(len(body)).encode()),
        (b"upgrade", b"websocket"),
        (b"connection", b"upgrade"),
    ]
    await send({"type": "http.response.start", "status": 426, "headers": headers})
    await send({"type": "http.response.body", "body": body})
