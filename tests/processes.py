"""Looks at processes, each of which may end between two looks. A zombie that nobody has reaped has ended."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress

import psutil

LIMIT_S = 120.0
"""Seconds that a test waits for an end, on however busy a machine: only a test that fails waits so long."""


def is_alive(process: int | psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        one = psutil.Process(process) if isinstance(process, int) else process
        return one.is_running() and one.status() != psutil.STATUS_ZOMBIE
    return False


def left(processes: Iterable[int | psutil.Process]) -> list[int | psutil.Process]:
    """Those of the processes that do not end; returns as soon as all have."""
    alive, until = list(processes), time.monotonic() + LIMIT_S
    while (alive := [one for one in alive if is_alive(one)]) and time.monotonic() < until:
        with suppress(psutil.Error):
            first = psutil.Process(alive[0]) if isinstance(alive[0], int) else alive[0]
            first.wait(0.05)
    return alive


def gone(*pids: int) -> bool:
    """Whether all of these processes end."""
    return not left(pids)
