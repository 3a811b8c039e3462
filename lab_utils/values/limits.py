"""Time limits in slices, each begun when the one before is over: a process that was stopped, or a loop that was held
up, loses at most one of them, and not all of its time at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

__all__ = ["SLICES", "Countdown", "limited"]

SLICES: Final = 10


class Countdown:
    """Calls `then` when the running loop has had `seconds()`, in slices; they may become fewer meanwhile."""

    def __init__(self, seconds: Callable[[], float], then: Callable[[], None]) -> None:
        self._seconds, self._had, self._then = seconds, 0.0, then
        self._slice = seconds() / SLICES
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(self._slice, self._over)

    def cancel(self) -> None:
        """Never call it."""
        self._timer.cancel()

    def _over(self) -> None:
        self._had += self._slice
        if self._had < 0.99 * self._seconds():
            self._timer = self._loop.call_later(self._slice, self._over)
        else:
            self._then()


@asynccontextmanager
async def limited(seconds: float) -> AsyncIterator[asyncio.Timeout]:
    """`asyncio.timeout`, in slices."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as limit:
        countdown = Countdown(lambda: seconds, lambda: limit.reschedule(loop.time()))
        try:
            yield limit
        finally:
            countdown.cancel()
