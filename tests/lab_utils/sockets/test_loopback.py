"""The server that a block starts on loopback: nothing of it is left, however its clients went."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

import pytest

pytest.importorskip("uvicorn")

from lab_utils.sockets.loopback import serving
from tests.running import live_timers

RESET_ON_CLOSE = struct.pack("ii", 1, 0)


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


@pytest.mark.parametrize("reset", [True, False])
async def test_the_timer_of_a_connection_ends_with_it_however_the_client_went(reset: bool) -> None:
    async with serving(app, lifespan="off") as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await reader.read(1_000)).endswith(b"ok")
        assert "keep_alive" in f"{live_timers()}", "kept open for the next request"
        if reset:
            client: socket.socket = writer.get_extra_info("socket")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        writer.transport.abort()
        await server.until_connections(0)
        assert "keep_alive" not in f"{live_timers()}"
