"""Shows in a notebook how a check goes: its step, its memory and its events. It leaves nothing behind in the output."""

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

from lab_utils.runner import Look
from lab_utils.values.quantities import quantity

__all__ = ["HEADLESS_VARIABLE", "PROGRESS_VARIABLE", "Live", "announce", "is_watched", "with_progress"]

PROGRESS_VARIABLE: Final = "REGISTRY_LAB_PROGRESS"
"""The environment variable that names the file to which each kernel of a run adds a line for each check it is at."""

HEADLESS_VARIABLE: Final = "REGISTRY_LAB_HEADLESS"
"""The environment variable that is set in the kernels of a run."""

T = TypeVar("T")
_SECONDS_BETWEEN: Final = 0.2
_MOST_POINTS: Final = 240


def announce(check: str, state: str, verdict: str = "", seconds: float = 0.0, remark: str = "") -> None:
    """Add to the run's file that a check is at a state: `calibrating`, `running` or `ended`. The first remark on the
    target is shown, once."""
    if path := os.environ.get(PROGRESS_VARIABLE):
        said = {"check": check, "state": state, "verdict": verdict, "seconds": seconds, "remark": remark}
        line = json.dumps(said)
        # One write of a short line to a file opened for appending: those of several kernels do not mix.
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")


def is_watched() -> bool:
    """Whether a person is in front of this kernel: Jupyter's server or VS Code has opened a notebook with it.

    papermill and nbconvert start kernels without either.
    """
    shell = get_ipython()
    if shell is None or not hasattr(shell, "kernel") or os.environ.get(HEADLESS_VARIABLE):
        return False
    return "JPY_SESSION_NAME" in os.environ or "__vsc_ipynb_file__" in shell.user_ns


class Live:
    """How a check goes, to be shown at any time: `report` takes its steps, `look` what its process is seen to hold.

    Both may be called from another thread. `on_change` is called after each.
    """

    def __init__(self, title: str, on_change: Callable[[], None] = lambda: None) -> None:
        self._title, self._on_change = title, on_change
        self._step, self._fraction = "", 0.0
        self._looks: list[Look] = []

    def report(self, step: str, fraction: float) -> None:
        """Note the step and the fraction done."""
        self._step, self._fraction = step, fraction
        self._on_change()

    def look(self, look: Look) -> None:
        """Note memory and events of the check's process."""
        # Every other one goes when there are too many, so that the whole time stays in the picture.
        kept = self._looks if len(self._looks) < 2 * _MOST_POINTS else self._looks[::2]
        self._looks = [*kept, look]
        self._on_change()

    def html(self) -> str:
        """A bar with the step, and as soon as the process was looked at, its memory as a line and its events."""
        # Without a fraction the bar moves to and fro: somebody works, and nobody knows how long.
        share = f'value="{min(self._fraction, 1.0):.3f}" max="1"' if self._fraction > 0 else ""
        words = ", ".join(filter(None, [self._title, self._step]))
        return (
            '<div class="lab-live" style="font-family:system-ui,sans-serif;line-height:1.5;overflow-wrap:anywhere">'
            f'<progress {share} style="width:16em;max-width:100%;vertical-align:middle" aria-label="{escape(words)}">'
            f"</progress> {escape(words)}{_seen(self._looks)}</div>"
        )


def _seen(looks: list[Look]) -> str:
    if not looks:
        return ""
    first, last = looks[0], looks[-1]
    more = last.memory - first.memory
    grown = f"{'+' if more >= 0 else '−'}{quantity(float(abs(more)), 'bytes')} since it began"
    words = (
        f"<strong>{quantity(float(last.memory), 'bytes')}</strong> of memory ({grown}), "
        f"<strong>{last.events:,}</strong> events, {last.seconds:.1f} s"
    )
    return (
        '<div style="display:flex;flex-wrap:wrap;gap:.3em 1em;align-items:center">'
        f"{_sparkline(looks)}<span>{words}</span></div>"
    )


def _sparkline(looks: list[Look]) -> str:
    """Memory over time: from the least to the most, in the colour of the text around."""
    least, most = min(one.memory for one in looks), max(one.memory for one in looks)
    begin, end = looks[0].seconds, looks[-1].seconds
    across, up = 100 / (end - begin or 1), 26 / (most - least or 1)
    points = " ".join(f"{across * (one.seconds - begin):.1f},{28 - up * (one.memory - least):.1f}" for one in looks)
    looks_like = "width:16em;max-width:100%;height:2.2em"
    return (
        f'<svg role="img" viewBox="0 0 100 30" preserveAspectRatio="none" style="{looks_like}">'
        f"<title>memory of the process, {quantity(float(least), 'bytes')} to {quantity(float(most), 'bytes')}</title>"
        f'<polyline points="{points}" fill="none" stroke="currentColor" stroke-width="1.5" '
        'vector-effect="non-scaling-stroke"/></svg>'
    )


def with_progress(title: str, work: Callable[[Live], T]) -> T:
    """Return what `work` returns, or raise what it raises; it gets a `Live` that takes its steps.

    In a kernel that somebody watches a bar moves meanwhile, and goes when the work is done. An interruption is shown in
    a line, without the lab's own code.
    """
    shell = get_ipython()
    if shell is None or not hasattr(shell, "kernel") or os.environ.get(HEADLESS_VARIABLE):
        return work(Live(title))

    shown = time.monotonic()

    def show() -> None:
        nonlocal shown
        if handle is not None and time.monotonic() - shown >= _SECONDS_BETWEEN:
            shown = time.monotonic()
            handle.update(HTML(live.html()))  # type: ignore[no-untyped-call]

    live = Live(title, show)
    handle = display(HTML(live.html()), display_id=True)  # type: ignore[no-untyped-call]
    try:
        return work(live)
    except KeyboardInterrupt as error:
        error._render_traceback_ = lambda: [f"Interrupted: {title}. Run the cell again to make it."]  # type: ignore[attr-defined]
        raise
    finally:
        clear_output(wait=True)  # type: ignore[no-untyped-call]
