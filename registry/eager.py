"""Starts tasks whose first step is a turn of the loop, also on a loop with eager tasks (Python 3.12).

An eager task begins within the call that makes it. If it raises there, its error keeps the frames below it: the frame
that holds the task, which holds the error, and the frames of the caller with all their objects. Only the collector
frees that. And a task that runs at once runs before the bookkeeping for it is written.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

__all__ = ["begin", "start"]

T = TypeVar("T")


class _Here(threading.local):
    is_making = False


_here: Final = _Here()


def start(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Make a task of a coroutine that begins with `await begin()`."""
    loop = asyncio.get_running_loop()
    if loop.get_task_factory() is None:
        return loop.create_task(work)
    _here.is_making = True
    try:
        return loop.create_task(work)
    finally:
        _here.is_making = False


async def begin() -> None:
    """Wait for the loop's turn, if this has not come by one."""
    if _here.is_making:
        _here.is_making = False
        await asyncio.sleep(0)
