"""Measures a whole tree of processes: everything that one command started, in any language."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

__all__ = ["Tree", "tree_now"]


@dataclass(frozen=True, slots=True)
class Tree:
    """The sums over all processes below one: bytes of their own (`own`) and resident (`rss`), and counts."""

    processes: int
    own: int
    rss: int
    descriptors: int
    threads: int
    connections: int


def tree_now(root: int) -> Tree:
    """Measure everything below this process, and not the process itself. A process that ends meanwhile counts as
    nothing."""
    processes = own = rss = descriptors = threads = connections = 0
    below: list[psutil.Process] = []
    with suppress(psutil.Error):
        below = psutil.Process(root).children(recursive=True)
    for process in below:
        with suppress(psutil.Error), process.oneshot():
            memory = _own(process), process.memory_info().rss
            counted = (process.num_fds(), process.num_threads(), len(process.net_connections()))
            processes, own, rss = processes + 1, own + memory[0], rss + memory[1]
            descriptors, threads, connections = (
                descriptors + counted[0],
                threads + counted[1],
                connections + counted[2],
            )
    return Tree(processes, own, rss, descriptors, threads, connections)


def _own(process: psutil.Process) -> int:
    """Bytes that this process alone has written, in memory and swapped out.

    Not its USS: that counts a page of a program's file only while no other process has it mapped. It falls by megabytes
    when somebody on the machine starts the same program, and rises again when that ends. Not on Linux: USS.
    """
    with suppress(OSError, ValueError, KeyError):
        _, *lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
        # The first line is the range of addresses; each other one is `Name:  number kB`.
        kilobytes = {name: int(words.split()[0]) for name, _, words in (line.partition(":") for line in lines)}
        return 1024 * (kilobytes["Private_Dirty"] + kilobytes["Swap"])
    return int(process.memory_full_info().uss)
