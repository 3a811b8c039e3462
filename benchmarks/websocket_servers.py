"""The servers that `websocket_speed.py` compares, processes of their own that take orders on standard input."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import psutil
from starlette.applications import Starlette
from starlette.routing import Mount, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.server import ServerConnection, broadcast, serve

from lab_utils.sockets.loopback import serving
from registry import EventType, UserExecutionContext, WebSocketManager
from registry.events.types import Origin
from registry.events.wire import SocketLimits

ORIGIN = Origin("main", "run-0123456789abcdef", "reporting", "agent-0123456789abcdef")
THOUGHT = "the cheapest model that is good enough for this step costs a third of the one in use now"
MOST_BEHIND = 500

Emit = Callable[[int], None]
"""Emit one event to everybody; the argument is the time to put into it."""


def payload(at: int) -> dict[str, Any]:
    return {"thought": THOUGHT, "at": at}


class Bare:
    """`websockets` alone, broadcasting the bytes that the manager would send."""

    def __init__(self) -> None:
        self.connections: set[ServerConnection] = set()
        self.seq = 0

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[int]:
        async with serve(self._hold, "127.0.0.1", 0, compression=None, ping_interval=None, backlog=2_048) as server:
            yield next(iter(server.sockets)).getsockname()[1]

    async def _hold(self, connection: ServerConnection) -> None:
        self.connections.add(connection)
        with contextlib.suppress(Exception):
            await connection.wait_closed()
        self.connections.discard(connection)

    def to_all(self, at: int) -> None:
        self.seq += 1
        broadcast(self.connections, self._encoded(at))

    def to_each(self, at: int) -> None:
        for connection in self.connections:
            self._to_one(connection, at)

    def senders(self) -> list[Emit]:
        """One for each connection."""
        return [partial(self._to_one, connection) for connection in self.connections]

    def _to_one(self, connection: ServerConnection, at: int) -> None:
        self.seq += 1
        broadcast((connection,), self._encoded(at))

    def _encoded(self, at: int) -> str:
        event = {
            "stream": "0123456789abcdef", "seq": self.seq, "type": "agent_thinking", "user_id": "user-0",
            "thread_id": ORIGIN.thread_id, "run_id": ORIGIN.run_id, "agent_type": ORIGIN.agent_type,
            "agent_id": ORIGIN.agent_id, "payload": payload(at),
        }  # fmt: skip
        return json.dumps(event)

    @property
    def behind(self) -> int:
        return 0


class Managed:
    """The registry's manager, mounted in Starlette, served by uvicorn."""

    def __init__(self) -> None:
        self.manager = WebSocketManager(
            limits=SocketLimits(max_connections_per_user=2_000, ping_interval=3_600.0, ping_timeout=3_600.0)
        )
        self.bridges: list[Any] = []

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[int]:
        app = Starlette(routes=[Mount("/events", self.manager.asgi_app(lambda token: token))])
        async with serving(app, ws_ping_interval=None, timeout_graceful_shutdown=2) as server:
            yield server.port

    def to_all(self, at: int) -> None:
        """One user's event, to every one of its connections."""
        self._bridges(1)[0].emit(EventType.AGENT_THINKING, payload(at), ORIGIN)

    def to_each(self, at: int) -> None:
        """An event of each user's own, to its one connection."""
        for bridge in self._bridges(len(self.manager.users)):
            self._to_one(bridge, at)

    def senders(self) -> list[Emit]:
        """One for each user."""
        return [partial(self._to_one, bridge) for bridge in self._bridges(len(self.manager.users))]

    def _to_one(self, bridge: Any, at: int) -> None:
        bridge.emit(EventType.AGENT_THINKING, payload(at), ORIGIN)

    @property
    def behind(self) -> int:
        logs = [bridge._channel.log for bridge in self.bridges[:1]]
        return max((one.lag for log in logs if log for one in log.open_subscriptions()), default=0)

    def _bridges(self, count: int) -> list[Any]:
        while len(self.bridges) < count:
            self.bridges.append(self.manager.create_bridge(UserExecutionContext(f"user-{len(self.bridges)}")))
        return self.bridges


class Idle:
    """uvicorn and Starlette, with an endpoint that does nothing: the floor for memory."""

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[int]:
        async def endpoint(socket: WebSocket) -> None:
            await socket.accept()
            while (await socket.receive())["type"] != "websocket.disconnect":
                pass

        app = Starlette(routes=[WebSocketRoute("/events/", endpoint)])
        async with serving(app, ws_ping_interval=None, timeout_graceful_shutdown=2) as server:
            yield server.port


async def burst(server: Any, emit: Emit, count: int) -> None:
    """Emit as fast as the clients can follow."""
    for _ in range(count):
        emit(time.monotonic_ns())
        await asyncio.sleep(0)
        while server.behind > MOST_BEHIND:  # noqa: ASYNC110  # What a client has read is nobody's event.
            await asyncio.sleep(0.001)


async def paced(senders: Sequence[Emit], count: int, per_second: float) -> None:
    """Let each sender emit so many events at random times, so many a second of all of them together.

    An open loop: an event carries the time at which it was due, so that one which had to wait for the server counts as
    late. Between events the loop turns and never sleeps: a timer, no finer than a millisecond, would emit in clumps,
    and real agents do not.
    """
    chance = random.Random(1)
    order = [sender for sender in senders for _ in range(count)]
    chance.shuffle(order)
    due = time.monotonic_ns()
    for sender in order:
        while due > time.monotonic_ns():  # noqa: ASYNC110  # No event tells the time.
            await asyncio.sleep(0)
        sender(due)
        due += int(chance.expovariate(per_second) * 1e9)


async def main(kind: str) -> None:
    server: Any = {"bare": Bare, "managed": Managed, "idle": Idle}[kind]()
    lines: asyncio.StreamReader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with server.serve() as port:
        print(json.dumps({"port": port}), flush=True)
        while line := await lines.readline():
            order = json.loads(line)
            answer: Awaitable[None] | None = None
            if order["do"] == "burst":
                answer = burst(server, getattr(server, order["how"]), order["count"])
            elif order["do"] == "paced":
                answer = paced(server.senders(), order["count"], order["per_second"])
            if answer is not None:
                await answer
            print(
                json.dumps({"rss": psutil.Process(os.getpid()).memory_info().rss, "cpu": time.process_time()}),
                flush=True,
            )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
