"""Many clients on an event loop in a thread of its own, so that the registry's loop does not do their work."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

from lab_utils.sockets.device import EventClient

__all__ = ["ClientFleet"]

T = TypeVar("T")


class ClientFleet:
    """Clients on a loop in a thread of their own.

    A context manager, sync or async; at its end every client is closed and the thread is over.
    """

    def __init__(self) -> None:
        self.clients: list[EventClient] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="client-fleet")
        self._thread.start()

    def add(self, client: EventClient) -> EventClient:
        """Start a client; return it at once."""
        self.clients.append(client)
        self._loop.call_soon_threadsafe(self._start, client)
        return client

    async def again(self, client: EventClient) -> None:
        """Start a client again that has ended; it comes back where it was."""
        await self.do(lambda: self._start(client))

    async def flush(self, timeout_s: float) -> None:
        """Return once every client that reads has received everything that the server has sent so far, or after the
        time."""

        async def flush_all() -> None:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await asyncio.gather(*(client.flush() for client in self.clients if not client.is_ended))

        await self.call(flush_all())

    async def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something on the fleet's loop, and wait for it on the caller's."""
        return await asyncio.wrap_future(self._submit(work))

    async def do(self, action: Callable[[], T]) -> T:
        """Call a plain function on the fleet's loop."""
        return await self.call(_call(action))

    async def until(
        self,
        condition: Callable[[EventClient], bool],
        clients: list[EventClient] | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        """Return once the condition holds for every client (of these, or of all)."""

        async def all_of() -> None:
            await asyncio.gather(*(one.until(condition, timeout_s) for one in clients or self.clients))

        await self.call(all_of())

    async def aclose(self) -> None:
        """Close every client and end the thread, without stopping the caller's loop, where the server may live."""
        try:
            await self.call(self._close())
        finally:
            # Even when cancelled: a thread that is left keeps the whole process from ending.
            self._loop.call_soon_threadsafe(self._loop.stop)
            await asyncio.get_running_loop().run_in_executor(None, self._thread.join)

    def close(self) -> None:
        """The same from code that has no loop, or whose loop does not serve these clients."""
        self._submit(self._close()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.get_loop().run_forever()

    def _start(self, client: EventClient) -> None:
        client.is_ended = False
        task = self._loop.create_task(client.run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _close(self) -> None:
        await asyncio.gather(*(client.close() for client in self.clients))
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=5.0)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)


async def _call(action: Callable[[], T]) -> T:
    return action()
