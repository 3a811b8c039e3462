"""Serves an ASGI app with uvicorn on a loopback port, within the caller's own event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

__all__ = ["LoopbackServer", "serving"]


class LoopbackServer:
    """A running server: its port, and how to stop it."""

    def __init__(self, server: Any, task: asyncio.Task[None], host: str, port: int) -> None:
        self._server = server
        self._task = task
        self.host = host
        self.port = port

    @property
    def connection_count(self) -> int:
        """Connections that the server holds, at whatever stage."""
        return len(self._server.server_state.connections)

    def url(self, path: str = "/", scheme: str = "ws") -> str:
        """The address of a path."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}{path}"

    async def until_connections(self, most: int, timeout_s: float = 30.0) -> None:
        """Return once the server holds no more connections than this; raise `TimeoutError` otherwise."""
        async with asyncio.timeout(timeout_s):
            while self.connection_count > most:  # noqa: ASYNC110  # uvicorn tells nobody.
                await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """End every connection and the server. Safe to call again."""
        self._server.leave()
        await asyncio.wait({self._task})
        self._task.result()


@asynccontextmanager
async def serving(app: Any, *, host: str = "127.0.0.1", port: int = 0, **options: Any) -> AsyncIterator[LoopbackServer]:
    """Serve the app for as long as the block lasts; port 0 takes a free one. Needs the extra `server`.

    `host`: an address of IPv4 or IPv6, or a name, whose IPv4 address is taken.

    `options` go to `uvicorn.Config`. Messages are not compressed: on loopback that costs more than it saves, and 300
    kB a connection. Raises `OSError` if the port is taken.
    """
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Connection(H11Protocol):
        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            # uvicorn leaves this timer running where the client reset the connection in place of closing it.
            if self.timeout_keep_alive_task is not None:
                self.timeout_keep_alive_task.cancel()
                self.timeout_keep_alive_task = None

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            # Signals are the business of the loop's owner.
            yield

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            try:
                await super().startup(sockets)
            finally:
                ready.set()

        async def main_loop(self) -> None:
            # uvicorn's own looks ten times a second whether it is to end; a caller that starts many of these would
            # wait.
            ticking = asyncio.ensure_future(super().main_loop())
            left = asyncio.ensure_future(leaving.wait())
            try:
                await asyncio.wait({ticking, left}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (ticking, left):
                    task.cancel()
                await asyncio.wait({ticking, left})

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            for _ in range(20):  # Turns, for connections that are over and have not been noticed.
                if not self.server_state.connections and not self.server_state.tasks:
                    break
                await asyncio.sleep(0)
            else:
                await super().shutdown(sockets)
                return
            # Likewise: with nobody there is nothing to wait for.
            for server in self.servers:
                server.close()
            for listening in sockets or []:
                listening.close()
            await self.lifespan.shutdown()

        def leave(self) -> None:
            self.should_exit = True
            leaving.set()

    ready, leaving = asyncio.Event(), asyncio.Event()
    # No name has a colon in it, and every address of IPv6 has.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=2_048)
    settings: dict[str, Any] = {
        "http": Connection,
        "ws": "websockets-sansio",
        "ws_per_message_deflate": False,
        "ws_max_size": 65_536,
        "log_config": None,
        "access_log": False,
        "timeout_graceful_shutdown": 10,
    }
    config = uvicorn.Config(app, **(settings | options))
    server = Server(config)
    task = asyncio.get_running_loop().create_task(server.serve(sockets=[listener]))
    running = LoopbackServer(server, task, host, listener.getsockname()[1])
    try:
        await ready.wait()
        if not server.started:
            raise RuntimeError("the app did not start; its log has the reason")
        yield running
    finally:
        await running.stop()
        listener.close()
