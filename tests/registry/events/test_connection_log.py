"""The server's answers to refused clients, and its log: words that somebody reads to find out why."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from inline_snapshot import snapshot

from registry import WebSocketManager
from registry.errors import ExpiredToken, TokenError
from registry.events.app import Admissions, EventsApp
from registry.events.tokens import Grant
from registry.events.wire import CloseCode, SocketLimits
from tests.registry.events.peer import CONNECT, GONE, GOOD, START, Message, Peer, connection
from tests.registry.refusing import Refusals
from tests.running import run, turns

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


# ------------------------------------------------------------------------------------------------------------- refusals


def refusing(error: Exception) -> Callable[[str], str]:
    def authenticate(_: str) -> str:
        raise error

    return authenticate


async def never(_: str) -> str:
    await asyncio.Event().wait()
    raise AssertionError


def test_a_refusal_is_logged_with_the_client_and_the_reason(caplog: pytest.LogCaptureFixture) -> None:
    logged = []
    for scope, authenticate in (
        (connection(), str),
        (connection(("authorization", "Bearer")), str),
        (connection(GOOD, subprotocols=("bearer.bob",)), str),
        (connection(GOOD, ("origin", "null")), str),
        (connection(GOOD), refusing(TokenError("not today"))),
        (connection(GOOD), refusing(ExpiredToken("gone by"))),
        (connection(GOOD), lambda _: Grant("ada", 1.0)),
        (connection(GOOD), never),
    ):
        caplog.clear()
        within_s = 0.05 if authenticate is never else 60.0
        logged += served(caplog, Peer(CONNECT, GONE), scope, authenticate, handshake_timeout=within_s)
        assert [record.levelname for record in caplog.records] == ["INFO"]
    assert logged == snapshot(
        [
            "refused a connection from ('203.0.113.7', 5000): no token in the Authorization header, none as a subprotocol",
            "refused a connection from ('203.0.113.7', 5000): no token in the Authorization header, none as a subprotocol",
            "refused a connection from ('203.0.113.7', 5000): two different tokens",
            "refused a connection from ('203.0.113.7', 5000): origin ['null']",
            "refused a connection from ('203.0.113.7', 5000): not today",
            "refused a connection from ('203.0.113.7', 5000): gone by",
            "refused a connection from ('203.0.113.7', 5000): the token has expired",
            "refused a connection from ('203.0.113.7', 5000): authenticate() took too long",
        ]
    )


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
    first, second = Peer(CONNECT, START), Peer(CONNECT, START, GONE)
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


def test_admissions_count_up_to_the_limit_and_forget() -> None:
    admissions = Admissions(SocketLimits(max_connections=2, max_connections_per_user=1))
    with admissions.enter() as first, admissions.enter() as second, admissions.enter() as third:
        assert (first, second, third, admissions.total) == (True, True, False, 3)
    with admissions.enter_user("ada") as one, admissions.enter_user("ada") as two, admissions.enter_user("bob") as bob:
        assert (one, two, bob) == (True, False, True)
        assert dict(admissions.by_user) == {"ada": 2, "bob": 1}
    assert (admissions.total, dict(admissions.by_user)) == (0, {})


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


# ----------------------------------------------------------------------------------------------------- the conversation


@pytest.mark.parametrize(
    ("message", "code", "why"),
    [
        (said('{"type": "ack", "seq": 3}'), CloseCode.OUT_OF_PLACE, "Ack(seq=3) before start"),
        (said('{"type": "pong"}'), CloseCode.OUT_OF_PLACE, "Pong() before start"),
        ({"type": "websocket.receive", "bytes": b"{}"}, CloseCode.BINARY, "a binary message"),
        (said("x" * 26), CloseCode.MESSAGE_TOO_LARGE, "a message of more than 25 bytes"),
        (said("語" * 9), CloseCode.MESSAGE_TOO_LARGE, "a message of more than 25 bytes"),
        (said("x" * 25), CloseCode.MALFORMED, "not JSON"),
        (said("語" * 8 + "x"), CloseCode.MALFORMED, "not JSON"),
    ],
)
def test_why_a_connection_was_closed_before_its_start_is_logged(
    caplog: pytest.LogCaptureFixture, message: Message, code: CloseCode, why: str
) -> None:
    peer = Peer(CONNECT, message)
    told = served(caplog, peer, connection(GOOD), max_message_bytes=25)
    assert told == [f"closing a connection of user 'ada' with {int(code)} {code.reason}: {why}"]
    assert peer.sent[-1] == {"type": "websocket.close", "code": int(code), "reason": code.reason}


@pytest.mark.parametrize(
    ("message", "code", "why"),
    [
        (said('{"type": "ack", "seq": 1}'), CloseCode.OUT_OF_PLACE, "Ack(seq=1) of an event that was not sent"),
        (START, CloseCode.OUT_OF_PLACE, "a second Start(stream=None, seq=0)"),
        (said("[]"), CloseCode.MALFORMED, "not a JSON object"),
    ],
)
def test_why_a_connection_was_closed_after_its_start_is_logged(
    caplog: pytest.LogCaptureFixture, message: Message, code: CloseCode, why: str
) -> None:
    told = served(caplog, Peer(CONNECT, START, message), connection(GOOD))
    closing = f"closing a connection of user 'ada' with {int(code)} {code.reason}: 0 events unsent"
    assert told == [f"user 'ada': {why}", closing]


def test_a_client_that_leaves_is_worth_a_line_at_most(caplog: pytest.LogCaptureFixture) -> None:
    assert served(caplog, Peer(CONNECT, START, GONE), connection(GOOD)) == []
    assert served(caplog, Peer(CONNECT, GONE), connection(GOOD)) == []

    class Leaving(Peer):
        """Has gone when the message of this type is sent to it."""

        leaves_at = ""

        async def send(self, message: Message) -> None:
            await super().send(message)
            if message["type"] == self.leaves_at:
                raise OSError("gone")

    for leaves_at, line in (
        ("websocket.accept", "a client left before it was admitted: OSError('gone')"),
        ("websocket.send", "a connection of user 'ada' went while it was sent to: OSError('gone')"),
    ):
        caplog.clear()
        peer = Leaving(CONNECT, START)
        peer.leaves_at = leaves_at
        assert served(caplog, peer, connection(GOOD)) == [line]
        assert [record.levelname for record in caplog.records] == ["DEBUG"]
    caplog.clear()
    peer = Leaving(CONNECT, said("[]"))
    peer.leaves_at = "websocket.close"
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
