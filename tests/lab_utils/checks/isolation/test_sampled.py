"""Interruptions on a real loop: what crosses a socket meanwhile arrives before anybody looks."""

from __future__ import annotations

import asyncio

from lab_utils.checks.isolation.sampled import _RealLoop
from tests.running import skip, turns


async def test_on_a_machine_that_has_no_processor_for_the_loop_a_rest_has_many_turns_all_the_same() -> None:
    """Data passes through a server's socket, its task, a client's socket and its task: a turn each, and more."""
    arrived = asyncio.Event()

    async def crosses() -> None:
        # For so long nothing runs: all that waits for a time is overdue.
        skip(60.0)
        await turns(15)
        arrived.set()

    crossing = asyncio.create_task(crosses())
    await _RealLoop().rest()
    assert arrived.is_set()
    await crossing
