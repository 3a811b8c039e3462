"""Whose turn it is: one line of callers a user, so that one user's burst holds up nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

__all__ = ["Turns", "TurnsClosed"]

T = TypeVar("T")


class TurnsClosed(Exception):
    """No call gets a turn any more, and those that had one were ended."""


class Turns:
    """At most `concurrency` calls of a user at once, the user's others in line, first come first served.

    Users do not wait for each other, and nothing is kept of one who has no call under way. Belongs to one event loop.
    """

    __slots__ = ("_closed", "_concurrency", "_emptied", "_lines")

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._lines: dict[str, _Line] = {}
        self._closed = False
        self._emptied: asyncio.Future[None] | None = None

    @property
    def calls(self) -> Mapping[str, int]:
        """How many calls each user has, those that wait for their turn included."""
        return {user: line.calls for user, line in self._lines.items()}

    @property
    def is_closed(self) -> bool:
        """True once no call gets a turn any more."""
        return self._closed

    async def take(self, user: str, work: Callable[[], Awaitable[T]], seconds: float) -> T:
        """Do the work when its turn has come, and return its result.

        Raises `TimeoutError` if it takes longer than `seconds`, from its turn on, and `TurnsClosed`.
        """
        line = self._lines.get(user)
        if line is None:
            # No await from lookup to insert: this alone makes the line single.
            line = self._lines[user] = _Line(self._concurrency)
        line.calls += 1
        try:
            async with line.turns:
                return await self._in_turn(line, work, seconds)
        finally:
            line.calls -= 1
            if not line.calls:
                del self._lines[user]
                if not self._lines and self._emptied is not None and not self._emptied.done():
                    self._emptied.set_result(None)

    async def _in_turn(self, line: _Line, work: Callable[[], Awaitable[T]], seconds: float) -> T:
        self._require_open()
        limit = asyncio.timeout(seconds)
        line.limits.add(limit)
        try:
            async with limit:
                return await work()
        except TimeoutError:
            if limit.expired():
                self._require_open()
            raise
        finally:
            line.limits.discard(limit)
            # It knows the task, whose exception knows this frame: a cycle.
            del limit

    async def close(self) -> None:
        """End the calls that have a turn, refuse all others, and return when none is left. Safe to call again."""
        self._closed = True
        for line in self._lines.values():
            for limit in line.limits:
                limit.reschedule(0)
        if self._lines:
            if self._emptied is None:
                self._emptied = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._emptied)

    def _require_open(self) -> None:
        if self._closed:
            raise TurnsClosed


class _Line:
    """One user's calls: how many there are, whose turn it is, and when each that has its turn must end."""

    __slots__ = ("calls", "limits", "turns")

    def __init__(self, concurrency: int) -> None:
        self.calls = 0
        self.turns = asyncio.Semaphore(concurrency)
        self.limits: set[asyncio.Timeout] = set()
