"""The leftovers of an async test on its loop fail it, and a test that leaves nothing passes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.running import run

KEPT: list[object] = []


async def a_task() -> None:
    KEPT.append(asyncio.create_task(asyncio.Event().wait()))


async def a_timer() -> None:
    asyncio.get_running_loop().call_later(3_600, print)


async def an_error_of_a_task() -> None:
    async def fail() -> None:
        raise ValueError("nobody looks")

    await asyncio.wait([asyncio.create_task(fail())])


async def an_error_of_the_loop() -> None:
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)


@pytest.mark.parametrize(
    ("leave", "said"),
    [
        (a_task, "tasks left"),
        (a_timer, "timers left"),
        (an_error_of_a_task, "nobody looks"),
        (an_error_of_the_loop, "ZeroDivisionError"),
    ],
)
def test_a_leftover_fails_a_test(leave: Callable[[], Coroutine[Any, Any, None]], said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        run(leave)
    KEPT.clear()


async def test_an_async_test_may_wait_and_end() -> None:
    await asyncio.wait_for(asyncio.sleep(0), 3_600)
