"""Bounds the bytes that the server below the app gathers of one client, before the app sees any of them.

An ASGI app gets whole messages, and cannot limit the bytes that a server takes in for one. With uvicorn's defaults 15
kB of a client's become 16 MiB by decompression, and a message of empty fragments grows for ever and holds up everybody.
So this module finds the server's own object for the connection, and lowers its limits. A server without such parts is
left unchanged; `docs/events.md` lists the risks that then remain.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from typing import Any, Final

from registry.events.wire import SocketLimits

__all__ = ["restrain", "server_of"]

_log = logging.getLogger(__name__)

_HEADER: Final = "Sec-WebSocket-Extensions"
_LEAST: Final = 65_536
"""Bytes of a message that a server takes in any case: a message that exceeds our limit by less than that gets a close
code of ours."""
_MOST_FRAGMENTS: Final = 64
_SLICE: Final = 4_096
"""Bytes after which fragments are counted: some 700 empty ones."""


def restrain(send: object, limits: SocketLimits) -> None:
    """Let the server behind `send` compress nothing, take messages of 64 KiB or four times `max_message_bytes`, the
    larger of the two, and cut off a client whose message has more than 64 fragments. To be called before the connection
    is accepted."""
    server = server_of(send)
    connection: Any = getattr(server, "conn", None)
    headers = getattr(getattr(server, "response", None), "headers", None)
    if headers is not None and _HEADER in headers and hasattr(connection, "extensions"):
        # Declined as a server does that knows no extension.
        del headers[_HEADER]
        connection.extensions = []
    if hasattr(connection, "max_message_size"):
        most = max(_LEAST, 4 * limits.max_message_bytes)
        connection.max_message_size = min(connection.max_message_size or most, most)
    if isinstance(getattr(server, "frames", None), list) and isinstance(server, asyncio.Protocol):
        server.transport.set_protocol(_Counting(server))  # type: ignore[attr-defined]  # By `server_of`.


class _Counting(asyncio.Protocol):
    """Stands between a transport and a server that keeps the fragments of a message in `frames`."""

    def __init__(self, server: Any) -> None:
        self._server = server

    def data_received(self, data: bytes) -> None:
        server = self._server
        for start in range(0, len(data), _SLICE):
            server.data_received(data[start : start + _SLICE])
            if server.transport.is_closing():
                return
            if len(server.frames) > _MOST_FRAGMENTS:
                _log.info("cut off %s: a message of more than %d fragments", server.client, _MOST_FRAGMENTS)
                server.transport.abort()
                return

    def eof_received(self) -> bool | None:
        kept: bool | None = self._server.eof_received()
        return kept

    def pause_writing(self) -> None:
        self._server.pause_writing()

    def resume_writing(self) -> None:
        self._server.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connection_lost(exc)


def server_of(send: object) -> Any:
    """The object behind `send` that has the connection's transport, found through the closures that middleware wraps
    around it; None if there is none to see."""
    todo: list[object] = [send]
    seen = set[int]()
    while todo and len(seen) < 100:
        thing = todo.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        owner = getattr(thing, "__self__", None)
        transport = getattr(owner, "transport", None)
        if callable(getattr(transport, "abort", None)) and callable(getattr(transport, "get_write_buffer_size", None)):
            return owner
        if isinstance(thing, functools.partial):
            todo.append(thing.func)
        for cell in getattr(thing, "__closure__", None) or ():
            try:
                if callable(cell.cell_contents):
                    todo.append(cell.cell_contents)
            except ValueError:  # An empty cell.
                continue
    return None
