"""The ASGI app without a server: the clients it admits, its answers to refused ones, and its log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from inline_snapshot import snapshot

from registry import WebSocketManager
from registry.errors import ExpiredToken, ForeignToken, TokenError
from registry.events.app import EventsApp
from registry.events.tokens import Grant
from registry.events.wire import SUBPROTOCOL, CloseCode, SocketLimits
from tests.registry.events.peer import CONNECT, GONE, GOOD, START, Message, Peer, connection
from tests.registry.refusing import Refusals
from tests.running import run, turns


def admit(
    scope: dict[str, Any], authenticate: Any = lambda token: token, *, within_s: float = 60.0, **options: Any
) -> Peer:
    """Connect, start, and leave."""
    manager = WebSocketManager(limits=SocketLimits(handshake_timeout=within_s))
    peer = Peer(CONNECT, START, GONE)
    app = manager.asgi_app(authenticate, **options)
    run(lambda: app(scope, peer.receive, peer.send))
    assert manager.admissions.total == 0
    assert not manager.admissions.by_user
    assert manager.connection_count() == 0
    return peer


def test_who_has_a_token_is_let_in() -> None:
    for scope in (
        connection(GOOD),
        connection(("Authorization", "bearer  ada")),
        connection(subprotocols=(SUBPROTOCOL, "bearer.ada")),
        connection(GOOD, subprotocols=("bearer.ada",)),
    ):
        assert admit(scope).code is None


def test_the_token_is_never_answered() -> None:
    for offered, expected in (((SUBPROTOCOL, "bearer.ada"), SUBPROTOCOL), (("bearer.ada",), None), (("other",), None)):
        peer = admit(connection(GOOD, subprotocols=offered))
        assert peer.sent[0] == {"type": "websocket.accept", "subprotocol": expected}


class Own(TokenError):
    """A refusal of the user's own."""


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (ExpiredToken("old"), CloseCode.EXPIRED_TOKEN),
        (ForeignToken("other"), CloseCode.FOREIGN_TOKEN),
        (Own("no"), CloseCode.BAD_TOKEN),
        (ZeroDivisionError("secret detail"), CloseCode.INTERNAL_ERROR),
        (None, CloseCode.INTERNAL_ERROR),
        ("", CloseCode.INTERNAL_ERROR),
        (Grant("ada", 1.0), CloseCode.EXPIRED_TOKEN),
        (Grant("ada"), None),
        ("ada", None),
    ],
    ids=repr,
)
@pytest.mark.parametrize("is_async", [False, True])
def test_what_authenticate_may_do(answer: Any, code: int | None, is_async: bool) -> None:
    def decide(token: str) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def decide_later(token: str) -> Any:
        await asyncio.sleep(0)
        return decide(token)

    peer = admit(connection(GOOD), decide_later if is_async else decide)
    assert peer.code == code
    assert "secret" not in f"{peer.sent}"


HOST = ("host", "app.example:8000")


@pytest.mark.parametrize(
    ("headers", "origins", "is_welcome"),
    [
        ([HOST], None, True),
        ([HOST, ("origin", "https://app.example:8000")], None, True),
        ([HOST, ("origin", "http://APP.example:8000")], None, True),
        ([HOST, ("origin", "https://app.example")], None, False),
        ([HOST, ("origin", "https://app.example:8000.evil.example")], None, False),
        ([HOST, ("origin", "https://evil.example/app.example:8000")], None, False),
        ([HOST, ("origin", "null")], None, False),
        ([HOST, ("origin", "")], None, False),
        ([HOST, ("origin", "http://[")], None, False),
        ([HOST, ("origin", "https://app.example:8000"), ("origin", "https://evil.example")], None, False),
        ([("origin", "https://app.example:8000")], None, False),
        ([HOST, ("origin", "https://ui.example")], {"https://ui.example/"}, True),
        ([HOST, ("origin", "http://ui.example")], {"https://ui.example"}, False),
        ([HOST, ("origin", "https://app.example:8000")], {"https://ui.example"}, False),
        ([HOST, ("origin", "https://app.example:8000")], set(), False),
        ([HOST], set(), True),
    ],
)
def test_origins(headers: list[tuple[str, str]], origins: Any, is_welcome: bool) -> None:
    peer = admit(connection(GOOD, *headers), origins=origins)
    assert peer.code == (None if is_welcome else CloseCode.WRONG_ORIGIN)


async def test_lifespan_ends_what_is_connected() -> None:
    manager = WebSocketManager()
    client = manager.connect("ada")
    app = manager.asgi_app(lambda token: token)
    peer = Peer({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})
    await app({"type": "lifespan"}, peer.receive, peer.send)
    assert [message["type"] for message in peer.sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert client.closed_reason == "manager_closed"
    assert repr(app) == "<EventsApp sockets=0>"


def test_a_client_that_has_gone_before_it_connected_is_told_nothing() -> None:
    gone = Peer(GONE)
    app = WebSocketManager().asgi_app(lambda token: token)
    run(lambda: app(connection(GOOD), gone.receive, gone.send))
    assert gone.sent == []


async def test_a_failure_of_our_own_is_logged_and_closed_with_a_code(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(WebSocketManager):
        __slots__ = ()

        def subscribe(self, *_: Any) -> Any:
            raise ZeroDivisionError("a bug")

    peer = Peer(CONNECT, START)
    app = Broken().asgi_app(lambda token: token)
    await app(connection(GOOD), peer.receive, peer.send)
    assert peer.code == CloseCode.INTERNAL_ERROR
    assert "a connection failed" in caplog.text


CLIENT = ("203.0.113.7", 5_000)


def said(text: str) -> Message:
    return {"type": "websocket.receive", "text": text}


def served(
    caplog: pytest.LogCaptureFixture,
    peer: Peer,
    scope: dict[str, Any],
    authenticate: Any = lambda token: token,
    **limits: Any,
) -> list[str]:
    """The log of one connection, from its first line to its last."""
    caplog.set_level(logging.DEBUG, "registry")
    app = WebSocketManager(limits=SocketLimits(**limits)).asgi_app(authenticate)
    run(lambda: app(scope | {"client": CLIENT}, peer.receive, peer.send))
    return [record.getMessage() for record in caplog.records if record.name.startswith("registry.")]


def refusing(error: Exception) -> Callable[[str], str]:
    def authenticate(_: str) -> str:
        raise error

    return authenticate


async def never(_: str) -> str:
    await asyncio.Event().wait()
    raise AssertionError


NONE, TWO = "no token in the Authorization header, none as a subprotocol", "two different tokens"


@pytest.mark.parametrize(
    ("scope", "authenticate", "code", "why"),
    [
        (connection(), str, CloseCode.NO_TOKEN, NONE),
        (connection(query=b"token=ada&access_token=ada"), str, CloseCode.NO_TOKEN, NONE),
        (connection(("authorization", "Basic ada")), str, CloseCode.NO_TOKEN, NONE),
        (connection(("authorization", "Bearer")), str, CloseCode.NO_TOKEN, NONE),
        (connection(("authorization", "Bearer ")), str, CloseCode.NO_TOKEN, NONE),
        (connection(("cookie", "token=ada")), str, CloseCode.NO_TOKEN, NONE),
        (connection(subprotocols=("bearer.",)), str, CloseCode.NO_TOKEN, NONE),
        (connection(subprotocols=("ada",)), str, CloseCode.NO_TOKEN, NONE),
        (connection(GOOD, subprotocols=("bearer.bob",)), str, CloseCode.BAD_TOKEN, TWO),
        (connection(GOOD, ("origin", "null")), str, CloseCode.WRONG_ORIGIN, "origin ['null']"),
        (connection(GOOD), refusing(TokenError("not today")), CloseCode.BAD_TOKEN, "not today"),
        (connection(GOOD), lambda _: Grant("ada", 1.0), CloseCode.EXPIRED_TOKEN, "the token has expired"),
        (connection(GOOD), never, CloseCode.HANDSHAKE_TIMEOUT, "authenticate() took too long"),
    ],
)
def test_a_refusal_comes_before_any_event_and_is_logged_with_the_client_and_the_reason(
    caplog: pytest.LogCaptureFixture, scope: dict[str, Any], authenticate: Any, code: CloseCode, why: str
) -> None:
    within_s = 0.05 if authenticate is never else 60.0
    peer = Peer(CONNECT, START, GONE)
    logged = served(caplog, peer, scope, authenticate, handshake_timeout=within_s)
    assert logged == [f"refused a connection from {CLIENT}: {why}"]
    assert [record.levelname for record in caplog.records] == ["INFO"]
    accepted, closed = peer.sent
    assert accepted["type"] == "websocket.accept"
    assert closed == {"type": "websocket.close", "code": int(code), "reason": code.reason}


def test_a_failing_authenticate_is_logged_with_its_error_and_names_its_kind_alone_in_the_refusal(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told = served(caplog, Peer(CONNECT, GONE), connection(GOOD), refusing(LookupError("table users is gone")))
    assert told == ["authenticate() failed", f"refused a connection from {CLIENT}: LookupError"]
    failed = caplog.records[0]
    assert failed.exc_info is not None
    assert str(failed.exc_info[1]) == "table users is gone"


async def test_one_connection_too_many_of_a_user_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "registry")
    first, second, third = Peer(CONNECT, START), Peer(CONNECT, START, GONE), Peer(CONNECT, START, GONE)
    app = WebSocketManager(limits=SocketLimits(max_connections_per_user=1)).asgi_app(lambda token: token)
    scope = connection(GOOD)
    serving = asyncio.create_task(app(scope, first.receive, first.send))
    await turns(20)
    assert [message["type"] for message in first.sent] == ["websocket.accept", "websocket.send"]
    await app(scope, second.receive, second.send)
    assert second.sent[-1] == {"type": "websocket.close", "code": 4428, "reason": "too_many_of_user"}
    serving.cancel()
    await asyncio.wait([serving])
    assert caplog.messages == ["refused one more connection of user 'ada'"]
    # One that was cancelled gives its place back.
    await app(scope, third.receive, third.send)
    assert [message["type"] for message in third.sent][:2] == ["websocket.accept", "websocket.send"]


def test_wrong_arguments_of_the_app_are_refused_with_the_remedy() -> None:
    app: Any = EventsApp
    refused = Refusals()
    refused.by(TypeError, lambda: app(WebSocketManager(), "secret"))
    refused.by(TypeError, lambda: app(WebSocketManager(), str, origins="https://a"))
    refused.by(ValueError, lambda: SocketLimits(max_events=0), lambda: SocketLimits(ping_interval=float("nan")))
    assert refused.texts == snapshot(
        [
            "authenticate='secret' cannot be called; pass a TokenSigner or a function of yours",
            "origins='https://a' is a single string; pass a set such as {'https://a'}",
            "max_events=0 is not above 0",
            "ping_interval=nan is not above 0",
        ]
    )


async def test_http_is_told_to_upgrade() -> None:
    peer = Peer()
    app = WebSocketManager().asgi_app(lambda token: token)
    await app({"type": "http"}, peer.receive, peer.send)
    assert peer.sent == [
        {
            "type": "http.response.start",
            "status": 426,
            "headers": [
                (b"content-type", b"text/plain"),
                (b"content-length", b"28"),
                (b"upgrade", b"websocket"),
                (b"connection", b"upgrade"),
            ],
        },
        {"type": "http.response.body", "body": b"A WebSocket is served here.\n"},
    ]


LONG = "a message of more than 25 bytes"


@pytest.mark.parametrize(
    ("messages", "code", "why"),
    [
        ([said('{"type": "ack", "seq": 3}')], CloseCode.OUT_OF_PLACE, "Ack(seq=3) before start"),
        ([said('{"type": "pong"}')], CloseCode.OUT_OF_PLACE, "Pong() before start"),
        ([{"type": "websocket.receive", "bytes": b"{}"}], CloseCode.BINARY, "a binary message"),
        ([said("x" * 26)], CloseCode.MESSAGE_TOO_LARGE, LONG),
        ([said("語" * 9)], CloseCode.MESSAGE_TOO_LARGE, LONG),
        ([said("x" * 25)], CloseCode.MALFORMED, "not JSON"),
        ([said("語" * 8 + "x")], CloseCode.MALFORMED, "not JSON"),
        (
            [START, said('{"type": "ack", "seq": 1}')],
            CloseCode.OUT_OF_PLACE,
            "Ack(seq=1) of an event that was not sent",
        ),
        ([START, START], CloseCode.OUT_OF_PLACE, "a second Start(stream=None, seq=0)"),
        ([START, said("[]")], CloseCode.MALFORMED, "not a JSON object"),
    ],
)
def test_why_a_connection_was_closed_is_logged(
    caplog: pytest.LogCaptureFixture, messages: list[Message], code: CloseCode, why: str
) -> None:
    peer = Peer(CONNECT, *messages)
    told = served(caplog, peer, connection(GOOD), max_message_bytes=25)
    closing = f"closing a connection of user 'ada' with {int(code)} {code.reason}: "
    assert told == ([f"user 'ada': {why}", f"{closing}0 events unsent"] if START in messages else [closing + why])
    assert peer.sent[-1] == {"type": "websocket.close", "code": int(code), "reason": code.reason}


def test_a_client_that_leaves_is_worth_a_line_at_most(caplog: pytest.LogCaptureFixture) -> None:
    assert served(caplog, Peer(CONNECT, START, GONE), connection(GOOD)) == []
    assert served(caplog, Peer(CONNECT, GONE), connection(GOOD)) == []

    class Leaving(Peer):
        """Has gone when the message of this type is sent to it."""

        leaves_at, error = "", Exception()

        async def send(self, message: Message) -> None:
            await super().send(message)
            if message["type"] == self.leaves_at:
                raise self.error

    for leaves_at, error, line in (
        ("websocket.accept", OSError("gone"), "a client left before it was admitted: "),
        ("websocket.send", OSError("gone"), "a connection of user 'ada' went while it was sent to: "),
        ("websocket.send", RuntimeError("after close"), "a connection of user 'ada' went while it was sent to: "),
    ):
        caplog.clear()
        peer = Leaving(CONNECT, START)
        peer.leaves_at, peer.error = leaves_at, error
        assert served(caplog, peer, connection(GOOD)) == [line + repr(error)]
        assert [record.levelname for record in caplog.records] == ["DEBUG"]
        assert peer.code is None
    caplog.clear()
    peer = Leaving(CONNECT, said("[]"))
    peer.leaves_at, peer.error = "websocket.close", OSError("gone")
    expected = "a connection of user 'ada' was closed already: OSError('gone')"
    assert served(caplog, peer, connection(GOOD))[-1] == expected


@pytest.mark.parametrize("place", ["sending to", "hearing"])
def test_a_failure_inside_is_logged_with_its_error(caplog: pytest.LogCaptureFixture, place: str) -> None:
    class Failing(Peer):
        async def send(self, message: Message) -> None:
            await super().send(message)
            if place == "sending to" and message["type"] == "websocket.send":
                raise ZeroDivisionError("a bug")

        async def receive(self) -> Message:
            if place == "hearing" and not self.said:
                raise ZeroDivisionError("a bug")
            return await super().receive()

    peer = Failing(CONNECT, START)
    told = served(caplog, peer, connection(GOOD))
    assert told == [
        f"{place} user 'ada' failed",
        "closing a connection of user 'ada' with 1011 internal_error: 0 events unsent",
    ]
    failed = caplog.records[0]
    assert failed.exc_info is not None
    assert str(failed.exc_info[1]) == "a bug"
    assert peer.code == CloseCode.INTERNAL_ERROR
