"""Clocks on a deterministic loop: they show its time to its own thread, and to no other."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from lab_utils.interleavings import Stage, run_schedule, virtual_clocks


def test_the_clocks_go_with_the_loop_and_begin_anew_with_each() -> None:
    began: list[tuple[float, float]] = []

    async def hour(_: Stage) -> None:
        before = time.monotonic(), time.time()
        began.append(before)
        await asyncio.sleep(3_600)
        assert (time.monotonic() - before[0], time.time() - before[1]) == pytest.approx((3_600, 3_600))

    with virtual_clocks():
        run_schedule(hour)
        run_schedule(hour)
    assert began[0] == began[1]


def test_other_threads_and_code_without_a_loop_read_the_real_clock() -> None:
    monotonic = time.monotonic
    seen: list[float] = []

    async def hour(_: Stage) -> None:
        await asyncio.sleep(3_600)
        thread = threading.Thread(target=lambda: seen.append(time.monotonic()))
        thread.start()
        thread.join()

    with virtual_clocks():
        run_schedule(hour)
        assert time.monotonic() - monotonic() < 60
    assert seen[0] - monotonic() < 60
    assert time.monotonic is monotonic
