"""Bounds the output of one cell, in the kernel itself: endless printing would fill the machine's memory."""

from __future__ import annotations

import sys
from typing import Any, Final

from IPython.core.getipython import get_ipython

__all__ = ["bound_output"]

_MOST: Final = 1 << 25
_NAMES: Final = ("stdout", "stderr")


def bound_output(most: int = _MOST) -> None:
    """Let each cell print `most` characters to each of standard output and error; say once that the rest is dropped.

    Called in a kernel that runs headless, before its first cell.
    """

    def begin(*_: object) -> None:
        for name in _NAMES:
            _bound(getattr(sys, name), most)

    if (shell := get_ipython()) is not None:
        # IPython replaces `write` during a cell, to keep all of its text: dropped text must not reach it.
        shell.events.register("pre_run_cell", begin)


def _bound(stream: Any, most: int) -> None:
    write = getattr(stream.write, "unbounded", stream.write)
    left = most

    def bounded(text: str) -> int:
        nonlocal left
        if left > 0:
            room, left = left, left - len(text)
            write(text[:room])
            if left <= 0:
                write(f"\n... output of this cell beyond {most:,} characters is dropped ...\n")
        return len(text)

    bounded.unbounded = write  # type: ignore[attr-defined]
    stream.write = bounded
