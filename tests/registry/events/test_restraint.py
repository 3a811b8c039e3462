"""The bytes that a server with its own defaults takes in of a client of the events: bounded before the app sees any of
them."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import struct
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

pytest.importorskip("uvicorn")

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.routing import Mount
from websockets.asyncio.client import connect

from lab_utils.sockets.loopback import LoopbackServer, serving
from registry import Grant, SocketLimits, WebSocketManager
from registry.events.restraint import restrain, server_of
from registry.events.wire import CloseCode
from tests.running import run

CONT, TEXT, CLOSE = 0, 1, 8
START = b'{"type": "start"}'
# As `uvicorn app:app` has them.
DEFAULTS: dict[str, Any] = {"ws": "auto", "ws_per_message_deflate": True, "ws_max_size": 16 * 2**20}


def frame(opcode: int, data: bytes = b"", *, fin: bool = True, compressed: bool = False) -> bytes:
    """A client's frame, masked with zeros."""
    first = (0x80 if fin else 0) | (0x40 if compressed else 0) | opcode
    size = len(data)
    if size < 126:
        head = bytes([first, 0x80 | size])
    elif size < 65_536:
        head = bytes([first, 0xFE]) + struct.pack("!H", size)
    else:
        head = bytes([first, 0xFF]) + struct.pack("!Q", size)
    return head + bytes(4) + data


def deflated(text: bytes) -> bytes:
    packing = zlib.compressobj(9, zlib.DEFLATED, -12)
    return (packing.compress(text) + packing.flush(zlib.Z_SYNC_FLUSH))[:-4]


class Raw:
    """A client that says whatever bytes it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
        self.reader, self.writer, self.head = reader, writer, head

    async def says(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def hears(self) -> tuple[int, bytes]:
        """The next frame, its opcode and its content."""
        first, size = await self.reader.readexactly(2)
        if size == 126:
            (size,) = struct.unpack("!H", await self.reader.readexactly(2))
        return first & 0x0F, await self.reader.readexactly(size)


@asynccontextmanager
async def raw(server: LoopbackServer, *, more: bytes = b"") -> AsyncIterator[Raw]:
    reader, writer = await asyncio.open_connection(server.host, server.port)
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        (
            f"GET /events/ HTTP/1.1\r\nHost: {server.host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nAuthorization: Bearer x\r\n"
            "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
        ).encode()
        + more
    )
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    try:
        yield Raw(reader, writer, head)
    finally:
        writer.close()


async def says_fragments(peer: Raw, data: bytes) -> None:
    """6 MB and more, which the buffers of a socket do not hold."""
    for _ in range(1_000):
        await peer.says(1_000 * frame(CONT, data, fin=False))


def on_server(play: Callable[[LoopbackServer, WebSocketManager], Any], **options: Any) -> None:
    manager = WebSocketManager(limits=SocketLimits(close_timeout=0.2))

    async def main() -> None:
        events = manager.asgi_app(lambda _: Grant("ada"))
        hosts = Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1"])
        app = Starlette(routes=[Mount("/events", events)], middleware=[hosts])
        async with serving(app, **(DEFAULTS | options)) as server:
            await play(server, manager)

    run(main)
    assert manager.admissions.total == 0


def test_compression_is_declined_and_messages_go_on() -> None:
    async def play(server: LoopbackServer, manager: WebSocketManager) -> None:
        headers = {"Authorization": "Bearer x"}
        async with connect(server.url("/events/"), additional_headers=headers, proxy=None) as peer:
            assert peer.response is not None
            assert "Sec-WebSocket-Extensions" not in peer.response.headers
            await peer.send(START.decode())
            assert json.loads(await peer.recv())["type"] == "hello"

    on_server(play)


def test_what_was_compressed_all_the_same_is_not_unpacked() -> None:
    async def play(server: LoopbackServer, manager: WebSocketManager) -> None:
        async with raw(server) as peer:
            await peer.says(frame(TEXT, deflated(START + b" " * (15 * 2**20)), compressed=True))
            opcode, said = await peer.hears()
            assert (opcode, int.from_bytes(said[:2], "big")) == (CLOSE, 1002)

    on_server(play)


@pytest.mark.parametrize(("size", "code"), [(5_000, CloseCode.MESSAGE_TOO_LARGE), (65_537, 1009), (2**20, 1009)])
def test_a_long_message_is_refused_by_the_app_and_a_very_long_one_by_the_server(size: int, code: int) -> None:
    async def play(server: LoopbackServer, manager: WebSocketManager) -> None:
        async with raw(server) as peer:
            # Only the beginning of a message is sent that a server need not take in.
            await peer.says(frame(TEXT, b"x" * size)[:65_000])
            opcode, said = await peer.hears()
            assert (opcode, int.from_bytes(said[:2], "big")) == (CLOSE, code)

    on_server(play)


@pytest.mark.parametrize("when", ["with the handshake", "after it", "after start"])
@pytest.mark.parametrize("data", [b"", b" "])
def test_a_message_of_endless_fragments_is_cut_off(when: str, data: bytes) -> None:
    async def play(server: LoopbackServer, manager: WebSocketManager) -> None:
        few = frame(TEXT, data, fin=False) + 10 * frame(CONT, data, fin=False)
        async with raw(server, more=few if when == "with the handshake" else b"") as peer:
            if when == "after start":
                await peer.says(frame(TEXT, START))
                assert (await peer.hears())[0] == TEXT
            if when != "with the handshake":
                await peer.says(few)
            with pytest.raises(ConnectionError):
                await says_fragments(peer, data)
        await server.until_connections(0)

    on_server(play)


def test_a_message_of_some_fragments_is_read_also_byte_by_byte() -> None:
    async def play(server: LoopbackServer, manager: WebSocketManager) -> None:
        async with raw(server) as peer:
            pieces = [START[index : index + 1] for index in range(len(START))]
            await peer.says(frame(TEXT, pieces[0], fin=False))
            for piece in pieces[1:-1]:
                for byte in frame(CONT, piece, fin=False):
                    await peer.says(bytes([byte]))
            await peer.says(frame(CONT, pieces[-1]))
            opcode, said = await peer.hears()
            assert (opcode, json.loads(said)["type"]) == (TEXT, "hello")
            # The count begins anew with each message.
            for _ in range(10):
                ack = frame(TEXT, b'{"type": "pong"', fin=False) + 50 * frame(CONT, fin=False) + frame(CONT, b"}")
                await peer.says(ack)
            await peer.says(frame(TEXT, b"no JSON"))
            opcode, said = await peer.hears()
            assert (opcode, int.from_bytes(said[:2], "big")) == (CLOSE, CloseCode.MALFORMED)

    on_server(play)


def test_a_server_that_is_built_otherwise_is_left_as_it_is() -> None:
    class Transport:
        def abort(self) -> None: ...
        def get_write_buffer_size(self) -> int:
            return 0

    class Other:
        transport = Transport()
        frames = 3

        async def send(self, message: Any) -> None: ...

    other = Other()
    assert server_of(other.send) is other
    before = dict(vars(other))
    restrain(other.send, SocketLimits())
    restrain(lambda message: None, SocketLimits())
    assert vars(other) == before


def test_a_lower_limit_of_the_server_stays() -> None:
    async def play(server: LoopbackServer, manager: WebSocketManager) -> None:
        async with raw(server) as peer:
            await peer.says(frame(TEXT, b"x" * 3_000)[:2_000])
            opcode, said = await peer.hears()
            assert (opcode, int.from_bytes(said[:2], "big")) == (CLOSE, 1009)

    on_server(play, ws_max_size=2_500)
