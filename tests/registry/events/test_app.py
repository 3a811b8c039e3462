"""The ASGI app without a server: its answers to lifespan and HTTP, the clients it admits, the middleware that may wrap
it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from registry import WebSocketManager
from registry.errors import ExpiredToken, ForeignToken, TokenError
from registry.events.tokens import Grant
from registry.events.wire import SUBPROTOCOL, CloseCode, SocketLimits
from tests.registry.events.peer import CONNECT, GONE, GOOD, START, ByHand, Message, Peer, Silent, connection
from tests.running import run


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


@pytest.mark.parametrize(
    "scope",
    [
        connection(),
        connection(query=b"token=ada&access_token=ada"),
        connection(("authorization", "Basic ada")),
        connection(("authorization", "Bearer ")),
        connection(("cookie", "token=ada")),
        connection(subprotocols=("bearer.",)),
        connection(subprotocols=("ada",)),
    ],
    ids=["none", "in-the-url", "basic", "empty", "cookie", "empty-subprotocol", "bare-subprotocol"],
)
def test_no_token(scope: dict[str, Any]) -> None:
    assert admit(scope).code == CloseCode.NO_TOKEN


def test_two_tokens_are_one_too_many() -> None:
    scope = connection(GOOD, subprotocols=(SUBPROTOCOL, "bearer.bob"))
    assert admit(scope).code == CloseCode.BAD_TOKEN


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


def test_a_slow_authenticate_is_cut_off() -> None:
    async def never(_: str) -> str:
        await asyncio.Event().wait()
        raise AssertionError

    assert admit(connection(GOOD), never, within_s=0.05).code == CloseCode.HANDSHAKE_TIMEOUT


def test_refusals_come_before_any_event_and_say_nothing_new() -> None:
    peer = admit(connection())
    assert [message["type"] for message in peer.sent] == ["websocket.accept", "websocket.close"]
    assert peer.sent[1] == {"type": "websocket.close", "code": 4401, "reason": "no_token"}


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


def test_a_client_that_leaves_early_is_no_error() -> None:
    class Leaving(Peer):
        async def send(self, message: Message) -> None:
            raise OSError("gone")

    peer = Leaving(CONNECT)
    app = WebSocketManager().asgi_app(lambda token: token)
    run(lambda: app(connection(GOOD), peer.receive, peer.send))
    odd = Peer(GONE)
    run(lambda: app(connection(GOOD), odd.receive, odd.send))
    assert odd.sent == []


@pytest.mark.parametrize("error", [OSError("gone"), RuntimeError("after close"), ZeroDivisionError("a bug")], ids=repr)
async def test_a_send_that_fails_ends_the_connection(error: Exception) -> None:
    class Failing(Peer):
        async def send(self, message: Message) -> None:
            await super().send(message)
            if message["type"] == "websocket.send":
                raise error

    peer = Failing(CONNECT, START)
    app = WebSocketManager().asgi_app(lambda token: token)
    await app(connection(GOOD), peer.receive, peer.send)
    assert peer.code == (CloseCode.INTERNAL_ERROR if isinstance(error, ZeroDivisionError) else None)


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


def test_importing_the_registry_needs_only_the_standard_library() -> None:
    code = (
        "import sys, registry, registry.events.app, registry.events.tokens\n"
        "registry.WebSocketManager().asgi_app(lambda token: token)\n"
        "print([name for name in ('starlette', 'uvicorn', 'websockets', 'itsdangerous') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def pass_by(loop: ByHand, seconds: int) -> None:
    """Let time pass as it does on a loop that turns."""
    for _ in range(seconds):
        loop.now += 1.0
        await turns()


def with_a_clock(play: Callable[[ByHand, Silent], Awaitable[None]]) -> Silent:
    async def main() -> Silent:
        loop, peer = asyncio.get_running_loop(), Silent()
        assert isinstance(loop, ByHand)
        manager = WebSocketManager(limits=SocketLimits(ping_interval=20.0, ping_timeout=20.0))
        app = manager.asgi_app(lambda token: token)
        serving = asyncio.ensure_future(app(connection(GOOD), peer.receive, peer.send))
        await turns()
        await play(loop, peer)
        await peer.heard.put(GONE)
        await serving
        return peer

    with asyncio.Runner(loop_factory=ByHand) as runner:
        return runner.run(main())


def test_a_client_that_does_not_answer_a_ping_is_dead() -> None:
    async def play(loop: ByHand, peer: Silent) -> None:
        await pass_by(loop, 26)
        assert (peer.pings, peer.code) == (1, None)
        await pass_by(loop, 26)

    assert with_a_clock(play).code == CloseCode.DEAD_PEER


def test_time_in_which_the_loop_was_blocked_is_not_held_against_a_client() -> None:
    async def play(loop: ByHand, peer: Silent) -> None:
        await pass_by(loop, 26)
        assert peer.pings == 1
        loop.now += 300.0  # Something else had the thread; the answer waits to be read.
        await turns()
        assert peer.code is None
        loop.now += 300.0
        peer.heard.put_nowait({"type": "websocket.receive", "text": '{"type": "pong"}'})
        await pass_by(loop, 10)
        assert (peer.pings, peer.code) == (1, None)
        loop.now += 300.0  # And a silence without a listener brings no ping either.
        await turns()
        assert (peer.pings, peer.code) == (1, None)
        await pass_by(loop, 52)

    assert with_a_clock(play).code == CloseCode.DEAD_PEER
