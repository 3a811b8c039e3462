"""Shows in a notebook how far a check has come, and leaves nothing behind in its output."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Final, TypeVar

from IPython.core.getipython import get_ipython
from IPython.display import HTML, clear_output, display

__all__ = ["PROGRESS_VARIABLE", "Report", "announce", "with_progress"]

PROGRESS_VARIABLE: Final = "REGISTRY_LAB_PROGRESS"
"""The environment variable that names the file to which each kernel of a run adds a line for each check it is at."""

T = TypeVar("T")
Report = Callable[[str, float], None]
_SECONDS_BETWEEN: Final = 0.2


def announce(check: str, state: str, verdict: str = "", seconds: float = 0.0) -> None:
    """Add to the run's file that a check is at a state: `calibrating`, `running` or `ended`."""
    if path := os.environ.get(PROGRESS_VARIABLE):
        line = json.dumps({"check": check, "state": state, "verdict": verdict, "seconds": seconds})
        # One write of a short line to a file opened for appending: those of several kernels do not mix.
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")


def with_progress(title: str, work: Callable[[Report], T]) -> T:
    """Return the result of `work`, or raise its error; `work` gets a function that takes a step and the fraction
    done.

    In a kernel that somebody watches a bar moves meanwhile, and goes when the work is done.
    """
    shell = get_ipython()
    if shell is None or not hasattr(shell, "kernel") or os.environ.get("REGISTRY_LAB_HEADLESS"):
        return work(lambda step, fraction: None)

    handle = display(_bar(title, "", 0.0), display_id=True)  # type: ignore[no-untyped-call]
    shown = time.monotonic()

    def report(step: str, fraction: float) -> None:
        nonlocal shown
        if handle is not None and time.monotonic() - shown >= _SECONDS_BETWEEN:
            shown = time.monotonic()
            handle.update(_bar(title, step, fraction))

    try:
        return work(report)
    finally:
        clear_output(wait=True)  # type: ignore[no-untyped-call]


def _bar(title: str, step: str, fraction: float) -> HTML:
    """Without a fraction the bar moves to and fro: somebody works, and nobody knows how long."""
    share = f'value="{min(fraction, 1.0):.3f}" max="1"' if fraction > 0 else ""
    words = ", ".join(filter(None, [title, step]))
    return HTML(  # type: ignore[no-untyped-call]
        f'<div style="font-family:system-ui,sans-serif"><progress {share} style="width:16em;vertical-align:middle" '
        f'aria-label="{escape(title)}"></progress> {escape(words)}</div>'
    )
