"""Clocks that show the time of a deterministic loop to code that does not ask the loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

__all__ = ["virtual_clocks"]

_BEGAN: Final = {clock: getattr(time, clock)() for clock in ("monotonic", "time")}


@contextmanager
def virtual_clocks() -> Iterator[None]:
    """While inside, `time.monotonic` and `time.time` show this thread the time of the loop that it runs. Each loop
    begins at the same time, so that a limit of calls in a minute is the same in two histories.

    Code that has imported the functions by name reads the real clocks; so do other threads."""
    home, real = threading.get_ident(), {clock: getattr(time, clock) for clock in _BEGAN}

    def shown(clock: str) -> float:
        loop = asyncio._get_running_loop() if threading.get_ident() == home else None
        value: float = real[clock]() if loop is None else _BEGAN[clock] + loop.time()
        return value

    for clock in _BEGAN:
        setattr(time, clock, partial(shown, clock))
    try:
        yield
    finally:
        for clock, own in real.items():
            setattr(time, clock, own)
