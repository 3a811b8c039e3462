"""Defects of admission: the owner of a token, its audience, its lifetime, and the number of connections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs

from lab_utils.targets.planted.base import planted_by
from lab_utils.targets.planted.sockets.base import Hub, OverSockets
from registry import CloseCode, ExpiredToken, ForeignToken, Grant, SocketLimits, TokenSigner
from registry.testing import Admissions, EventsApp, Receive, Resumption, Scope, Send, Subscription

__all__ = ["PLANTED", "NeverGivenBack"]


class _AsTheClientSays(EventsApp):
    async def admit(self, scope: Scope) -> Grant:
        grant = await super().admit(scope)
        said = parse_qs(scope["query_string"].decode()).get("user_id", [])
        said += [value.decode() for name, value in scope["headers"] if name.lower() == b"x-user-id"]
        return Grant(said[0], grant.expires_at) if said else grant


class TokenNotBound(OverSockets):
    """A token is only checked to be valid; the client itself names the user whose events it wants."""

    def make_events_app(self, manager: Any, signer: Any) -> Any:
        return self.timed(_AsTheClientSays(manager, signer))


class _AnyAudience(TokenSigner):
    __slots__ = ()

    def verify(self, token: str) -> Grant:
        try:
            return super().verify(token)
        except ForeignToken:
            claims, issued_at = self._serializer.loads(token, max_age=self.max_age, return_timestamp=True)
            return Grant(claims["sub"], issued_at.timestamp() + self.max_age)

    __call__ = verify


class AcceptsForeignAudience(OverSockets):
    """A token is good if its signature is: one that was issued for another service opens this one too."""

    def make_signer(self) -> Any:
        return _AnyAudience(self.secret)


class _AnyAge(TokenSigner):
    __slots__ = ()

    def verify(self, token: str) -> Grant:
        try:
            return super().verify(token)
        except ExpiredToken:
            return Grant(self._serializer.loads(token)["sub"])

    __call__ = verify


class AnyOrigin(OverSockets):
    """Pages of any site may connect, with the credentials that a browser sends for them."""

    def make_events_app(self, manager: Any, signer: Any) -> Any:
        app = super().make_events_app(manager, signer)

        async def opened(scope: dict[str, Any], receive: Receive, send: Send) -> None:
            headers = [(name, value) for name, value in scope["headers"] if name != b"origin"]
            await app({**scope, "headers": headers}, receive, send)

        return opened


class _ByItsBeginning(EventsApp):
    def _is_welcome(self, origins: list[str] | None, hosts: list[str] | None) -> bool:
        if origins and hosts and origins[0].partition("://")[2].startswith(hosts[0]):
            return True
        return super()._is_welcome(origins, hosts)


class OriginByItsBeginning(OverSockets):
    """A page may connect if its origin begins with the host: so may that of any site that is named to begin so."""

    def make_events_app(self, manager: Any, signer: Any) -> Any:
        return self.timed(_ByItsBeginning(manager, signer))


class _Echoing(EventsApp):
    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        offered = scope.get("subprotocols") or [None]

        async def answer(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "websocket.accept":
                message = {**message, "subprotocol": offered[-1]}
            await send(message)

        await super().serve(scope, receive, answer)


class TokenEchoed(OverSockets):
    """The server answers with the last subprotocol that the client offered: a browser's token."""

    def make_events_app(self, manager: Any, signer: Any) -> Any:
        return self.timed(_Echoing(manager, signer))


class AcceptsExpired(OverSockets):
    """The issue time of a token is read and not checked."""

    def make_signer(self) -> Any:
        return _AnyAge(self.secret)


class _ForGood(EventsApp):
    async def admit(self, scope: Scope) -> Grant:
        return Grant((await super().admit(scope)).user_id)


class ExpiryAtConnectOnly(OverSockets):
    """A token's expiry is checked when its client connects, and never again."""

    def make_events_app(self, manager: Any, signer: Any) -> Any:
        return self.timed(_ForGood(manager, signer))


class _NotesResumed(Hub):
    is_resumed = False

    def subscribe(self, user_id: str, stream: str | None = None, seq: int = 0) -> tuple[Subscription, Resumption]:
        place, how = super().subscribe(user_id, stream, seq)
        self.is_resumed = how is Resumption.RESUMED
        return place, how


class ResumedForGood(OverSockets):
    """A client that comes back where it was is known already: when its token expires is not looked at again."""

    def make_manager(self) -> Any:
        return _NotesResumed()

    def make_events_app(self, manager: Any, signer: Any) -> Any:
        app = super().make_events_app(manager, signer)
        look_after = app.heartbeat.add

        def add(socket: Any) -> None:
            # Right after it has subscribed, with nothing in between.
            if manager.is_resumed:
                socket._expires_at = None
            look_after(socket)

        app.heartbeat.add = add
        return app


class TimerLeavesWithTheFirst(OverSockets):
    """One timer looks after the tokens of all connections, and the first to leave stops it, until somebody comes."""

    def make_events_app(self, manager: Any, signer: Any) -> Any:
        app = super().make_events_app(manager, signer)
        heartbeat, discard = app.heartbeat, app.heartbeat.discard

        def leave(socket: Any) -> None:
            discard(socket)
            if heartbeat._timer is not None:
                heartbeat._timer.cancel()
                heartbeat._timer = None

        heartbeat.discard = leave
        return app


class _OnceAnAddress(EventsApp):
    def __init__(self, hub: Any, authenticate: Any) -> None:
        super().__init__(hub, authenticate)
        self.known: dict[str, Grant] = {}

    async def admit(self, scope: Scope) -> Grant:
        address = scope["client"][0]
        if address not in self.known:
            self.known[address] = await super().admit(scope)
        return self.known[address]


class VerifiedOncePerAddress(OverSockets):
    """A client's user is remembered by address, as if every client had an address of its own."""

    def make_events_app(self, manager: Any, signer: Any) -> Any:
        return self.timed(_OnceAnAddress(manager, signer))


class _LimitedByAddress(EventsApp):
    def __init__(self, hub: Any, authenticate: Any) -> None:
        super().__init__(hub, authenticate)
        self.most = hub.limits.max_connections_per_user
        self.by_address: Counter[str] = Counter()

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        address = scope["client"][0]
        self.by_address[address] += 1
        try:
            if self.by_address[address] <= self.most:
                await super().serve(scope, receive, send)
                return
            await receive()
            code = CloseCode.TOO_MANY_OF_USER
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close", "code": int(code), "reason": code.reason})
        finally:
            self.by_address[address] -= 1


class LimitPerAddress(OverSockets):
    """The sockets of a user are counted by address, and a whole office shares one."""

    def make_events_app(self, manager: Any, signer: Any) -> Any:
        return self.timed(_LimitedByAddress(manager, signer))


class NeverGivenBack(Admissions):
    """Counts a user's sockets when they connect, and never again."""

    @contextmanager
    def enter_user(self, user_id: str) -> Iterator[bool]:
        self.by_user[user_id] += 1
        yield self.by_user[user_id] <= self._limits.max_connections_per_user


class LeakedAdmissions(OverSockets):
    """A user's sockets are counted when they connect, but not when they leave."""

    def make_manager(self) -> Any:
        manager = Hub(limits=SocketLimits(max_connections_per_user=4))
        manager.admissions = NeverGivenBack(manager.limits)
        return manager


class RefusedKept(Admissions):
    """Counts off a user's sockets that were let in."""

    @contextmanager
    def enter_user(self, user_id: str) -> Iterator[bool]:
        self.by_user[user_id] += 1
        is_in = self.by_user[user_id] <= self._limits.max_connections_per_user
        try:
            yield is_in
        finally:
            self.by_user[user_id] -= is_in


class RefusedSocketsCounted(OverSockets):
    """A socket that is refused as one too many of its user counts from then on, though it has gone."""

    def make_manager(self) -> Any:
        manager = Hub()
        manager.admissions = RefusedKept(manager.limits)
        return manager


PLANTED = (
    planted_by(TokenNotBound, "token-not-bound"),
    planted_by(VerifiedOncePerAddress, "foreign-event", "token-not-bound"),
    planted_by(AcceptsForeignAudience, "bad-token-accepted"),
    planted_by(AnyOrigin, "bad-token-accepted"),
    planted_by(OriginByItsBeginning, "bad-token-accepted"),
    planted_by(TokenEchoed, "token-echoed"),
    planted_by(AcceptsExpired, "bad-token-accepted"),
    planted_by(ExpiryAtConnectOnly, "expired-token-used"),
    planted_by(ResumedForGood, "expired-token-used"),
    planted_by(TimerLeavesWithTheFirst, "expired-token-used"),
    planted_by(LimitPerAddress, "failed-operation"),
    planted_by(LeakedAdmissions, "failed-operation"),
    planted_by(RefusedSocketsCounted, "connection-left"),
)
