"""Counts what is alive, exactly: objects by type, tasks, timers, threads, file descriptors."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Counts", "collector_off", "count_now", "grown", "type_counts"]


@dataclass(frozen=True, slots=True)
class Counts:
    """One exact count of everything a leak may consist of."""

    objects: Counter[str]
    tasks: int
    timers: int
    threads: int
    descriptors: int


@contextmanager
def collector_off() -> Iterator[None]:
    """Collect what there is, then switch the cyclic collector off: from here on, only reference counting frees."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def type_counts(modules: tuple[str, ...] = ()) -> Counter[str]:
    """Live instances by qualified type name; only of types defined in `modules` (or below them) if any are given."""
    counts: Counter[type] = Counter(map(type, gc.get_objects()))
    named: Counter[str] = Counter()
    for kind, count in counts.items():
        module = kind.__module__
        if not modules or any(module == name or module.startswith(f"{name}.") for name in modules):
            named[f"{module}.{kind.__qualname__}"] += count
    return named


def count_now(modules: tuple[str, ...] = ()) -> Counts:
    """Count now, from within a running event loop. The task that calls is counted too."""
    loop = asyncio.get_running_loop()
    return Counts(
        objects=type_counts(modules),
        tasks=len(asyncio.all_tasks()),
        timers=_timers(loop),
        threads=threading.active_count(),
        descriptors=_descriptors(),
    )


def grown(before: Counts, after: Counts) -> dict[str, int]:
    """What there is more of, by name; empty if everything is back."""
    more = {name: count - before.objects[name] for name, count in after.objects.items()}
    for name in ("tasks", "timers", "threads", "descriptors"):
        more[name] = getattr(after, name) - getattr(before, name)
    return {name: count for name, count in more.items() if count > 0}


def _timers(loop: asyncio.AbstractEventLoop) -> int:
    # Cancelled handles stay in the heap until their time or a clean-up; each is memory still held, so it counts.
    scheduled = getattr(loop, "_scheduled", None)
    if scheduled is None:
        raise RuntimeError(f"{type(loop).__name__} does not show its timers; run the lab on asyncio's own loop")
    return len(scheduled)


def _descriptors() -> int:
    try:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())
    except OSError:
        return 0  # Not Linux: sockets then show as objects only.
