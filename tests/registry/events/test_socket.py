"""One connection played by hand, on a loop whose clock a test moves; and the transport below it."""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import logging
import socket
import types
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from registry import EventType, WebSocketManager
from registry.events.app import EventsApp
from registry.events.socket import _send_at_once, _transport_of
from registry.events.tokens import Grant
from registry.events.types import Origin
from registry.events.wire import CloseCode, SocketLimits
from tests.registry.events.peer import CONNECT, GONE, GOOD, ByHand, Message, Peer, Silent, connection
from tests.registry.kit import Gate, context
from tests.running import live_timers

ORIGIN = Origin("main", "r", "helper", "agent-1")


def said(text: str) -> Message:
    return {"type": "websocket.receive", "text": text}


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


class Stage:
    """A manager, its app, and one client that has connected and sent its set messages."""

    def __init__(self, peer: Peer, grant: Grant, limits: dict[str, Any]) -> None:
        self.peer = peer
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ByHand)
        self.loop = loop
        self.manager = WebSocketManager(limits=SocketLimits(**limits))
        self.bridge = self.manager.create_bridge(context())
        self.app = EventsApp(self.manager, lambda _: grant, clock=loop.time)
        self.serving: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        self.serving = self.loop.create_task(self.app(connection(GOOD), self.peer.receive, self.peer.send))
        await turns()

    async def at(self, second: float) -> None:
        """Let time pass up to this second after the start, as it does on a loop that turns."""
        while self.loop.now < 1_000.0 + second:
            self.loop.now = min(self.loop.now + 0.5, 1_000.0 + second)
            await turns()

    def emit(self, *thoughts: str) -> None:
        for thought in thoughts:
            self.bridge.emit(EventType.AGENT_THINKING, {"thought": thought}, ORIGIN)

    @property
    def texts(self) -> list[str]:
        return [message["text"] for message in self.peer.sent if message["type"] == "websocket.send"]


def on_stage(
    play: Callable[[Stage], Awaitable[None]],
    peer: Peer | None = None,
    grant: Grant = Grant("ada"),  # noqa: B008  # Frozen.
    **limits: Any,
) -> Peer:
    """Play, let the client go if it is still there, and see that no task, timer or count is left."""
    played = peer or Silent()

    async def main() -> None:
        stage = Stage(played, grant, limits)
        await play(stage)
        assert stage.serving is not None
        if isinstance(played, Silent):
            await played.heard.put(GONE)
        await stage.serving
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert live_timers() == []
        assert stage.manager.connection_count() == stage.manager.admissions.total == 0

    with asyncio.Runner(loop_factory=ByHand) as runner:
        runner.run(main())
    return played


# ----------------------------------------------------------------------------------------------------- the first answer


@pytest.mark.parametrize(
    ("stream", "seq", "type_", "next_seq", "more"),
    [
        (None, 0, "hello", 3, {"resumed": False}),
        ("own", 3, "hello", 3, {"resumed": True}),
        ("own", 1, "hello", 1, {"resumed": True}),
        ("own", 0, "resync_required", 3, {"reason": "no_longer_kept"}),
        ("own", 4, "resync_required", 3, {"reason": "not_yet_sent"}),
        ("other", 3, "resync_required", 3, {"reason": "unknown_stream"}),
    ],
)
def test_the_first_answer_says_whose_stream_it_is_and_what_comes_next(
    stream: str | None, seq: int, type_: str, next_seq: int, more: dict[str, Any]
) -> None:
    async def play(stage: Stage) -> None:
        keeper, _ = stage.manager.subscribe("ada")
        stage.emit("one", "two", "three")
        own = keeper.log.stream
        if stream is not None:
            asked = {"type": "start", "stream": own if stream == "own" else stream, "seq": seq}
            stage.peer.said = [CONNECT, said(json.dumps(asked))]
        await stage.connect()
        first, *events = stage.texts
        assert json.loads(first) == {"type": type_, "stream": own, "seq": next_seq, "user_id": "ada", **more}
        told = [json.loads(one)["seq"] for text in events for one in text.split("\n")]
        assert told == list(range(next_seq + 1, 4))

    on_stage(play, max_events=2)


def test_a_start_in_time_is_taken_and_one_too_late_is_not(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "registry.events.socket")
    for second, code in ((9.5, None), (10.0, CloseCode.HANDSHAKE_TIMEOUT)):
        peer = Silent()
        peer.said = [CONNECT]

        async def play(stage: Stage, peer: Silent = peer, second: float = second) -> None:
            await stage.connect()
            await stage.at(second)
            await peer.heard.put(said('{"type": "start"}'))
            await turns()

        assert on_stage(play, peer).code == code
    words = "closing a connection of user 'ada' with 4408 handshake_timeout: nothing was said"
    assert [record.getMessage() for record in caplog.records] == [words]


# -------------------------------------------------------------------------------------------------------------- sending


class Noting(Silent):
    """A client that notes when something is sent to it."""

    def __init__(self) -> None:
        super().__init__()
        self.note: Callable[[], None] = lambda: None

    async def send(self, message: Message) -> None:
        if message["type"] == "websocket.send":
            self.note()
        await super().send(message)


def test_a_backlog_lets_the_others_have_their_turn_after_every_eighth_message() -> None:
    """Sending to one who reads never waits; without a pause one client's backlog would delay everybody."""
    large = "x" * 40_000  # One to a message.

    async def play(stage: Stage) -> None:
        keeper, _ = stage.manager.subscribe("ada")
        stage.emit(*[large] * 20)
        start = {"type": "start", "stream": keeper.log.stream, "seq": 0}
        stage.peer.said = [CONNECT, said(json.dumps(start))]
        turn = itertools.count()
        now = 0
        sent_in: list[int] = []
        assert isinstance(stage.peer, Noting)
        stage.peer.note = lambda: sent_in.append(now)

        async def others() -> None:
            nonlocal now
            while True:
                now = next(turn)
                await asyncio.sleep(0)

        ticking = stage.loop.create_task(others())
        await stage.connect()
        groups = [len(list(group)) for _, group in itertools.groupby(sent_in)]
        assert groups == [1 + 8, 8, 4], "the answer, and twenty messages"
        for count, expected in ((8, [8]), (16, [8, 8])):
            sent_in.clear()
            stage.emit(*[large] * count)
            await turns()
            assert [len(list(group)) for _, group in itertools.groupby(sent_in)] == expected
        ticking.cancel()

    on_stage(play, Noting(), max_bytes=10_000_000)


class Stuck(Silent):
    """A client that reads nothing after the first answer, until the gate opens."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate()

    async def send(self, message: Message) -> None:
        await super().send(message)
        if message.get("text", "").startswith('{"stream"'):
            await self.gate.pass_through()


def test_what_was_emitted_before_the_session_s_end_is_sent_to_one_who_reads() -> None:
    async def play(stage: Stage) -> None:
        await stage.connect()
        stage.emit("last")
        stage.bridge.close()
        await turns()
        assert json.loads(stage.texts[-1])["payload"] == {"thought": "last"}

    assert on_stage(play).code == CloseCode.SESSION_ENDED


def test_one_who_does_not_read_is_waited_for_as_long_as_closing_may_take(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "registry.events.socket")
    peer = Stuck()

    async def play(stage: Stage) -> None:
        await stage.connect()
        stage.emit("one")
        await turns()
        stage.emit("two")
        stage.bridge.close()
        await stage.at(1.5)
        assert peer.code is None
        await stage.at(2.0)
        assert peer.code == CloseCode.SESSION_ENDED

    on_stage(play, peer)
    words = "closing a connection of user 'ada' with 4410 session_ended: 1 events unsent"
    assert [record.getMessage() for record in caplog.records] == [words]


# ----------------------------------------------------------------------------------------------------------- heartbeats


def test_a_silent_client_is_pinged_after_the_interval_and_dead_after_the_timeout() -> None:
    async def play(stage: Stage) -> None:
        assert isinstance(stage.peer, Silent)
        await stage.connect()
        seen = {}
        for second in (19.5, 20.0, 27.5, 28.0):
            await stage.at(second)
            seen[second] = (stage.peer.pings, stage.peer.code)
        assert seen == {19.5: (0, None), 20.0: (1, None), 27.5: (1, None), 28.0: (1, CloseCode.DEAD_PEER)}

    on_stage(play, ping_interval=20.0, ping_timeout=8.0)


def test_time_in_which_the_loop_was_blocked_is_not_held_against_a_client() -> None:
    async def play(stage: Stage) -> None:
        peer = stage.peer
        assert isinstance(peer, Silent)
        await stage.connect()
        await stage.at(26.0)
        assert peer.pings == 1
        stage.loop.now += 300.0  # Something else had the thread; the answer waits to be read.
        await turns()
        assert peer.code is None
        stage.loop.now += 300.0
        peer.heard.put_nowait(said('{"type": "pong"}'))
        await stage.at(636.0)
        assert (peer.pings, peer.code) == (1, None)
        stage.loop.now += 300.0  # And a silence without a listener brings no ping either.
        await turns()
        assert (peer.pings, peer.code) == (1, None)
        await stage.at(988.0)
        assert peer.code == CloseCode.DEAD_PEER

    on_stage(play, ping_interval=20.0, ping_timeout=20.0)


def test_a_connection_ends_with_its_token_to_the_second() -> None:
    async def play(stage: Stage) -> None:
        assert isinstance(stage.peer, Silent)
        await stage.connect()
        await stage.at(9.5)
        assert stage.peer.code is None
        await stage.at(10.0)
        assert stage.peer.code == CloseCode.EXPIRED_TOKEN

    on_stage(play, grant=Grant("ada", 1_010.0))

    async def at_once(stage: Stage) -> None:
        await stage.connect()
        assert stage.texts == []

    assert on_stage(at_once, grant=Grant("ada", 1_000.0)).code == CloseCode.EXPIRED_TOKEN


def test_one_timer_looks_after_all_and_goes_with_the_last() -> None:
    async def play(stage: Stage) -> None:
        await stage.connect()
        others = [Silent() for _ in range(3)]
        serving = [stage.loop.create_task(stage.app(connection(GOOD), one.receive, one.send)) for one in others]
        await turns()
        assert len(live_timers()) == 1
        for one, task in zip(others, serving, strict=True):
            await one.heard.put(GONE)
            await task
            assert len(live_timers()) == 1

    on_stage(play)


# ------------------------------------------------------------------------------------------------------- below a server


class Transport:
    """A transport with something left to write, for so many looks."""

    def __init__(self, looks: float) -> None:
        self.looks = looks
        self.aborted: list[float] = []

    def get_write_buffer_size(self) -> int:
        self.looks -= 1
        return int(self.looks >= 0)

    def abort(self) -> None:
        self.aborted.append(asyncio.get_running_loop().time())

    def get_extra_info(self, _: str) -> None:
        return None


class Served(Silent):
    """A client behind a server, as far as its transport goes."""

    def __init__(self, looks: float) -> None:
        super().__init__()
        self.transport = Transport(looks)


@pytest.mark.parametrize(("looks", "aborted"), [(0, []), (3, []), (float("inf"), [1_002.0])])
def test_a_peer_that_leaves_its_last_messages_unread_is_cut_off(looks: float, aborted: list[float]) -> None:
    peer = Served(looks)

    async def play(stage: Stage) -> None:
        await stage.connect()
        stage.bridge.close()
        await turns()
        await stage.at(2.5)

    assert on_stage(play, peer).code == CloseCode.SESSION_ENDED
    assert peer.transport.aborted == aborted


def test_a_close_that_hangs_is_cut_off_too() -> None:
    class Hanging(Served):
        async def send(self, message: Message) -> None:
            await super().send(message)
            if message["type"] == "websocket.close":
                await asyncio.Event().wait()

    peer = Hanging(0)

    async def play(stage: Stage) -> None:
        await stage.connect()
        stage.bridge.close()
        await turns()
        await stage.at(1.5)
        assert peer.transport.aborted == []
        await stage.at(2.0)
        assert peer.transport.aborted == [1_002.0]

    on_stage(play, peer)


@pytest.mark.parametrize("emitted", [0, 300_000])
def test_who_makes_the_server_write_and_reads_nothing_is_cut_off(emitted: int) -> None:
    """Servers answer protocol pings without asking the app; it sees only the messages that wait to be written."""
    unread = 0

    class Pinging(Transport):
        def get_write_buffer_size(self) -> int:
            return 0 if self.aborted else unread

    peer = Served(0)
    peer.transport = Pinging(0)

    async def play(stage: Stage) -> None:
        nonlocal unread
        await stage.connect()
        if emitted:
            # A text of ours may wait for its client, in as many bytes as its characters can take.
            stage.emit("x" * emitted)
            await turns()
        stage.emit("a shorter one")
        await turns()
        unread = 2**20 + 4 * max(map(len, stage.texts))
        await stage.at(5.0)
        assert not peer.transport.aborted
        unread += 1
        await stage.at(10.0)
        assert peer.transport.aborted

    assert on_stage(play, peer).code == CloseCode.SLOW_CONSUMER


class WithWire:
    """A transport with this for its socket."""

    def __init__(self, wire: Any) -> None:
        self._wire = wire

    def get_extra_info(self, name: str) -> Any:
        return self._wire if name == "socket" else None


class Gone:
    family = socket.AF_INET

    def setsockopt(self, *_: int) -> None:
        raise OSError("gone")


def test_a_transport_without_a_socket_or_with_one_that_has_gone_is_left_as_it_is() -> None:
    for transport in (None, WithWire(None), WithWire(Gone())):
        _send_at_once(transport)  # type: ignore[arg-type]


def test_no_transport_is_found_where_there_is_none() -> None:
    def itself(depth: int) -> Callable[[], Any]:
        def again() -> Any:
            return again, depth

        return again

    def reads() -> Any:
        return found

    found = None
    # As a function stands while the variables that it reads are not set yet.
    with_an_empty_cell = types.FunctionType(reads.__code__, {}, "reads", None, (types.CellType(),))
    for send in (None, 3, itself(1), with_an_empty_cell, functools.partial(itself(2))):
        assert _transport_of(send) is None


def test_the_transport_is_found_below_middleware() -> None:
    class Server:
        transport = Transport(0)

        async def send(self, message: Message) -> None: ...

    def wrapped(send: Any) -> Any:
        async def sender(message: Message) -> None:
            await send(message)

        return sender

    server = Server()
    for send in (server.send, wrapped(server.send), functools.partial(wrapped(wrapped(server.send)))):
        assert id(_transport_of(send)) == id(server.transport)
    assert _transport_of(wrapped(Peer().send)) is None
