"""Lets go of a thread that never ends: what it has changed of the process, and what would wait for it at the exit."""

from __future__ import annotations

import gc
import logging
import threading
import tracemalloc
import warnings
from collections.abc import Iterable
from concurrent.futures import thread as pools

__all__ = ["Switches", "let_go"]


class Switches:
    """What checks change for the whole process while they look, as it was when this was made."""

    def __init__(self) -> None:
        root = logging.getLogger()
        self._collects, self._traces = gc.isenabled(), tracemalloc.is_tracing()
        self._level, self._handlers = root.level, {handler: handler.level for handler in root.handlers}
        self._show, self._submit = warnings.showwarning, pools.ThreadPoolExecutor.submit

    def turn_back(self) -> None:
        """Turn back what a thread that is left cannot: a collector that is off, allocations that are traced, and who
        hears of what is logged, warned of and given to pools. The next check would measure what they keep."""
        if self._collects:
            gc.enable()
        if not self._traces:
            tracemalloc.stop()
        root = logging.getLogger()
        root.setLevel(self._level)
        for handler in tuple(root.handlers):
            if handler in self._handlers:
                handler.setLevel(self._handlers[handler])
            else:
                root.removeHandler(handler)
        warnings.showwarning = self._show
        pools.ThreadPoolExecutor.submit = self._submit  # type: ignore[method-assign]


def let_go(threads: Iterable[threading.Thread]) -> None:
    """Keep the interpreter from waiting at its exit for those of these threads that belong to a pool.

    Daemons or not, `concurrent.futures` joins them all, for ever: whoever ran a check would never come back to the
    shell."""
    # No public name: there is no other way than never to have made the pool, which the target did.
    queues = getattr(pools, "_threads_queues", {})
    with getattr(pools, "_global_shutdown_lock", threading.Lock()):
        for thread in threads:
            queues.pop(thread, None)
