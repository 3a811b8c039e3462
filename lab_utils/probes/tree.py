"""Measures a whole tree of processes: everything that one command started, in any language."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import psutil

__all__ = ["Tree", "tree_now"]


@dataclass(frozen=True, slots=True)
class Tree:
    """The sums over all processes below one: bytes of their own (`uss`) and resident (`rss`), and counts."""

    processes: int
    uss: int
    rss: int
    descriptors: int
    threads: int
    connections: int


def tree_now(root: int) -> Tree:
    """Measure everything below this process, and not the process itself. A process that ends meanwhile counts as
    nothing."""
    processes = uss = rss = descriptors = threads = connections = 0
    below: list[psutil.Process] = []
    with suppress(psutil.Error):
        below = psutil.Process(root).children(recursive=True)
    for process in below:
        with suppress(psutil.Error), process.oneshot():
            memory = process.memory_full_info()
            counted = (process.num_fds(), process.num_threads(), len(process.net_connections()))
            processes, uss, rss = processes + 1, uss + memory.uss, rss + memory.rss
            descriptors, threads, connections = (
                descriptors + counted[0],
                threads + counted[1],
                connections + counted[2],
            )
    return Tree(processes, uss, rss, descriptors, threads, connections)
