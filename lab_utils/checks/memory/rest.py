"""Waits, before memory is read, until what a target does a moment after a call is over."""

from __future__ import annotations

import asyncio
from typing import Final

from lab_utils.probes.live import next_timer, timers_now

__all__ = ["MOMENT_S", "Rest"]

MOMENT_S: Final = 1.0
"""Seconds that a timer of a right target may keep something after its call."""
_TURNS: Final = 5


class Rest:
    """Knows how many timers a target always has, such as that of a sweeper, and waits until there are no more.

    Else a reading would depend on the machine: on the timers of earlier calls that have struck by then.
    """

    def __init__(self) -> None:
        self._always = 0

    async def reached(self) -> None:
        """Return once there are no more timers than after the last rest, or none is due within a second from now, or
        that second is over. Waits for no time where there are no more."""
        loop = asyncio.get_running_loop()
        until = loop.time() + MOMENT_S
        while timers_now(loop) > self._always:
            due = next_timer(loop)
            if due is None or due > until:
                break
            await asyncio.sleep(max(0.0, due - loop.time()))
            for _ in range(_TURNS):
                # What it woke goes on.
                await asyncio.sleep(0)
        self._always = timers_now(loop)
