"""The lab's client: it receives events, counts their faults, and leaves no thread or socket behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

pytest.importorskip("websockets")

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from lab_utils.sockets.device import EventClient
from lab_utils.sockets.fleet import ClientFleet
from tests.running import turns

Script = Callable[[ServerConnection], Any]


def event(seq: int, stream: str = "s") -> str:
    return json.dumps({"stream": stream, "seq": seq, "type": "agent_thinking", "payload": {"n": seq}})


def hello(seq: int = 0, stream: str = "s", kind: str = "hello", **more: Any) -> str:
    return json.dumps({"type": kind, "stream": stream, "seq": seq, **more})


@asynccontextmanager
async def against(script: Script) -> AsyncIterator[tuple[ClientFleet, str]]:
    """A fleet, and the address of a server that follows the script, in which a client may see messages that ours never
    sends."""

    async def handle(socket: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            await script(socket)

    before = threading.active_count()
    async with serve(handle, "127.0.0.1", 0) as server, ClientFleet() as fleet:
        port = next(iter(server.sockets)).getsockname()[1]
        yield fleet, f"ws://127.0.0.1:{port}/"
    assert threading.active_count() <= before + 1, "the fleet's thread is over (asyncio may keep one of its own)"


async def test_it_counts_duplicates_gaps_and_resyncs() -> None:
    async def script(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send(hello(kind="resync_required", reason="no_longer_kept"))
        await socket.send("\n".join(event(seq) for seq in (1, 2, 2, 5, 4, 6)))
        await socket.send(event(7, stream="another"))
        await socket.wait_closed()

    async with against(script) as (fleet, url):
        client = fleet.add(EventClient(url, "token"))
        await fleet.until(lambda one: one.seq == 7)
        tally = client.tally
        assert (tally.events, tally.duplicates, tally.gaps, tally.resyncs) == (7, 2, 2, 1)
        assert [each["seq"] for each in client.events] == [1, 2, 2, 5, 4, 6, 7]


async def test_it_comes_back_with_its_last_seq_and_acknowledges() -> None:
    heard: list[Any] = []

    async def script(socket: ServerConnection) -> None:
        start = json.loads(await socket.recv())
        heard.append(start)
        seq = start.get("seq", 0)
        await socket.send(hello(seq, resumed="seq" in start))
        await socket.send(event(seq + 1))
        heard.append(json.loads(await socket.recv()))
        socket.transport.abort()

    async with against(script) as (fleet, url):
        client = fleet.add(EventClient(url, "token", ack_every=1, retry_s=0.001))
        await fleet.until(lambda one: one.tally.connects >= 3 and one.seq >= 3)
        await fleet.call(client.close())
        assert heard[:5] == [
            {"type": "start"},
            {"type": "ack", "seq": 1},
            {"type": "start", "stream": "s", "seq": 1},
            {"type": "ack", "seq": 2},
            {"type": "start", "stream": "s", "seq": 2},
        ]
        assert client.tally.close_codes[:2] == [1006, 1006]
        assert client.tally.resumes >= 2
        assert (client.tally.duplicates, client.tally.gaps) == (0, 0)


@pytest.mark.parametrize(
    ("code", "comes_back"), [(4401, False), (4413, False), (4408, True), (4430, True), (1012, True)]
)
async def test_it_comes_back_only_where_that_may_help(code: int, comes_back: bool) -> None:
    async def script(socket: ServerConnection) -> None:
        await socket.close(code)

    async with against(script) as (fleet, url):
        client = fleet.add(EventClient(url, "token", retry_s=0.001))
        await fleet.until(lambda one: one.tally.connects > 1 if comes_back else one.is_ended)
        assert client.close_code == code
        assert comes_back or client.tally.connects == 1


async def test_it_answers_pings_and_shows_each_event_to_who_asked() -> None:
    async def script(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send(hello())
        await socket.send('{"type": "ping"}')
        assert json.loads(await socket.recv()) == {"type": "pong"}
        await socket.send(event(1))
        await socket.wait_closed()

    async with against(script) as (fleet, url):
        shown: list[str] = []
        client = fleet.add(EventClient(url, "token", keep=False, on_event=shown.append))
        await fleet.until(lambda one: one.seq == 1)
        assert (client.tally.pings, client.texts, shown) == (1, [], [event(1)])


async def test_a_process_that_was_stopped_still_waits_for_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    client = EventClient("ws://127.0.0.1:1/", "token")
    waiting = asyncio.create_task(client.until(lambda one: one.is_ended, 60.0))
    await turns()
    # All of its minute has passed while nothing could turn.
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: time.monotonic() + 3_600)
    await turns(3)
    assert not waiting.done()
    await client.close()
    await client.run()
    await waiting
    assert client.is_ended


async def test_what_came_before_the_end_is_read_though_it_cannot_be_acknowledged_any_more() -> None:
    go, said = asyncio.Event(), asyncio.Event()

    async def script(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send(hello())
        await go.wait()
        await socket.send("\n".join(event(seq) for seq in range(1, 41)))
        closing = asyncio.ensure_future(socket.close(4410))
        await asyncio.sleep(0)
        said.set()
        await closing

    async with against(script) as (fleet, url):
        client = fleet.add(EventClient(url, "token", ack_every=1, reconnect=False))
        await fleet.until(lambda one: one.is_ready)
        await fleet.do(client.stall)
        go.set()
        await said.wait()
        # Now the events and the end come to the client at once.
        await fleet.do(client.resume_reading)
        await fleet.until(lambda one: one.is_ended)
        assert (client.tally.events, client.close_code) == (40, 4410)


async def test_a_server_that_is_not_there_is_tried_again() -> None:
    async with ClientFleet() as fleet:
        client = fleet.add(EventClient("ws://127.0.0.1:1/", "token", retry_s=0.001))
        await fleet.until(lambda one: one.tally.failed_connects > 2)
        assert client.close_code is None
        with pytest.raises(RuntimeError, match="not connected"):
            await fleet.call(client.say("x"))


def test_a_fleet_serves_code_without_a_loop_too() -> None:
    with ClientFleet() as fleet:
        client = fleet.add(EventClient("ws://127.0.0.1:1/", None))
    assert client.is_ended
    assert "ended" in repr(client)


async def test_flushing_waits_for_the_server_to_answer() -> None:
    hold, held, let_go = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def script(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send(hello())
        await hold.wait()
        socket.transport.pause_reading()
        held.set()
        await let_go.wait()
        await socket.send(event(1))
        socket.transport.resume_reading()
        await socket.wait_closed()

    async with against(script) as (fleet, url):
        client = fleet.add(EventClient(url, "token"))
        await fleet.until(lambda one: one.is_ready)
        hold.set()
        await held.wait()
        flushing = asyncio.ensure_future(fleet.flush(30.0))
        for _ in range(20):
            await fleet.do(lambda: None)
        was_done = flushing.done()
        let_go.set()
        await flushing
        assert not was_done
        assert client.seq == 1
