"""Serves an ASGI app on a free port of loopback, in a thread with an event loop of its own."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["ThreadedServer"]

_JOIN_WITHIN = 30.0


class ThreadedServer:
    """Owner of one thread, its loop and all its sockets; `stop` gives them back.

    Connections are accepted from `start` on. `before_stop` is called in the server's loop and must let go whatever
    requests wait for; one that is still under way `grace_s` seconds later is hung up on.
    """

    def __init__(
        self, app: Any, name: str, before_stop: Callable[[], None] = lambda: None, *, grace_s: float = 2.0
    ) -> None:
        self._transports: dict[Any, asyncio.Transport] = {}
        self._name = name
        self._before_stop = before_stop
        self._grace_s = grace_s
        self._requests = _Requests(app, self._abort)
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._crash: BaseException | None = None
        self._lock = threading.Lock()
        self._has_ended = False
        self._ended: Callable[[], object] = lambda: None
        self._config = uvicorn.Config(
            self._requests,
            http=_protocol(self._transports),
            # The process's logging is not the stand-in's to set up; errors reach the handlers of uvicorn.error.
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            # Never reached: it would cancel the work under way, and print that on the terminal.
            timeout_graceful_shutdown=max(5, round(3 * grace_s)),
        )
        self._server = uvicorn.Server(self._config)

    @property
    def port(self) -> int:
        """The port; raises RuntimeError when the server is not running."""
        if self._socket is None:
            raise RuntimeError(f"{self._name} is not running; start() it first")
        return int(self._socket.getsockname()[1])

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        return len(self._transports)

    def start(self) -> None:
        """Listen, and return when connections are accepted. A server starts once."""
        if self._thread is not None:
            raise RuntimeError(f"{self._name} was started before; make a new one")
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=2048)
        running = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(self._socket, running), name=self._name, daemon=True)
        self._thread.start()
        running.wait()

    def call(self, callback: Callable[[], None]) -> None:
        """Have the callback called in the server's loop, soon; not at all once that has ended."""
        with suppress(RuntimeError):  # Closed, perhaps just now.
            if self._loop is not None:
                self._loop.call_soon_threadsafe(callback)

    def close_connection(self, client: Any) -> None:
        """From the server's loop: close the connection of this client after everything written to it was sent."""
        transport = self._transports.get(client)
        if transport is not None:
            transport.close()

    def _abort(self, client: Any) -> None:
        transport = self._transports.get(client)
        if transport is not None:
            transport.abort()

    def stop(self) -> None:
        """End the thread, its loop and its sockets; blocks until they have. Safe to call again."""
        if self._thread is not None and self._socket is not None:
            self._tell_to_stop()
            self._join()

    async def aclose(self) -> None:
        """As `stop`, without blocking the loop."""
        if self._thread is not None and self._socket is not None:
            loop = asyncio.get_running_loop()
            ended = asyncio.Event()
            with self._lock:
                if self._has_ended:
                    ended.set()
                self._ended = lambda: loop.call_soon_threadsafe(ended.set)
            self._tell_to_stop()
            await ended.wait()
            self._join()

    def _tell_to_stop(self) -> None:
        self._server.should_exit = True
        self.call(self._let_go)

    def _let_go(self) -> None:
        self._before_stop()
        asyncio.get_running_loop().call_later(self._grace_s, self._requests.hang_up)

    def _join(self) -> None:
        assert self._thread is not None
        self._thread.join(_JOIN_WITHIN)
        if self._thread.is_alive():
            raise RuntimeError(f"the thread of {self._name} did not end in {_JOIN_WITHIN:g} s")
        self._socket = None
        crash, self._crash = self._crash, None
        if crash is not None:
            raise RuntimeError(f"{self._name} ended by an error") from crash

    def _work(self, listening: socket.socket, running: threading.Event) -> None:
        try:
            asyncio.run(self._serve(listening, running))
        except BaseException as error:
            self._crash = error
        finally:
            listening.close()
            running.set()
            with self._lock:
                self._has_ended = True
                self._ended()

    async def _serve(self, listening: socket.socket, running: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        # The socket listens already: who connects before uvicorn accepts waits in the backlog.
        running.set()
        await self._server.serve(sockets=[listening])


class _Requests:
    """The app, as a server calls it. A request that is cancelled ends with its connection, and as if it had been
    answered: the server takes a cancellation for an error of the app's, and prints it on the terminal."""

    def __init__(self, app: Any, abort: Callable[[Any], None]) -> None:
        self._app = app
        self._abort = abort
        self._under_way: set[asyncio.Task[Any]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._under_way.add(task)
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            self._abort(scope["client"])
            # The server takes a request for answered when it knows that nobody is left to be.
            while (await receive())["type"] != "http.disconnect":
                pass
        finally:
            self._under_way.discard(task)

    def hang_up(self) -> None:
        """Cancel whatever is under way."""
        for task in self._under_way:
            task.cancel()


def _protocol(transports: dict[Any, asyncio.Transport]) -> type[asyncio.Protocol]:
    """uvicorn's protocol, with its connections known by the address of their client, so that one can be closed."""

    class Known(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            transports[self.client] = transport

        def connection_lost(self, exc: Exception | None) -> None:
            transports.pop(self.client, None)
            super().connection_lost(exc)

    return Known
