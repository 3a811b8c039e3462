"""Shows in a notebook how far a check has come, and leaves nothing behind in its output."""

from __future__ import annotations

import os
from collections.abc import Callable
from html import escape
from threading import Event, Thread
from typing import Final, TypeVar

from IPython.core.getipython import get_ipython
from IPython.display import HTML, clear_output, display

__all__ = ["Report", "with_progress"]

T = TypeVar("T")
Report = Callable[[str, float], None]
_SECONDS_BETWEEN: Final = 0.2


def with_progress(title: str, work: Callable[[Report], T]) -> T:
    """Return what `work` returns, or raise what it raises; it is given a function of a step and the fraction done.

    In a kernel that somebody watches a bar moves meanwhile, and goes when the work is done. An interrupt of the kernel
    is raised at once; the work then ends on its own.
    """
    shell = get_ipython()
    if shell is None or not hasattr(shell, "kernel") or os.environ.get("REGISTRY_LAB_HEADLESS"):
        return work(lambda step, fraction: None)

    # This thread shows, the other works. The other way round the first message would open a socket in the middle of a
    # check that counts them.
    state = ("", 0.0)
    answers: list[T] = []
    errors: list[BaseException] = []
    done = Event()

    def report(step: str, fraction: float) -> None:
        nonlocal state
        state = (step, fraction)

    def labour() -> None:
        try:
            answers.append(work(report))
        except BaseException as error:
            errors.append(error)
        finally:
            done.set()

    handle = display(_bar(title, *state), display_id=True)  # type: ignore[no-untyped-call]
    shown = state
    Thread(target=labour, name="lab", daemon=True).start()
    try:
        while not done.wait(_SECONDS_BETWEEN):
            # Only when the check itself has something to say: the kernel keeps a record of each message that it sends,
            # and a check that looks for leaks would find that. A clock here was once found to leak.
            if state != shown and handle is not None:
                shown = state
                handle.update(_bar(title, *shown))
    finally:
        clear_output(wait=True)  # type: ignore[no-untyped-call]
    if errors:
        raise errors[0]
    return answers[0]


def _bar(title: str, step: str, fraction: float) -> HTML:
    """Without a fraction the bar moves to and fro: somebody works, and nobody knows how long."""
    share = f'value="{min(fraction, 1.0):.3f}" max="1"' if fraction > 0 else ""
    words = ", ".join(filter(None, [title, step]))
    return HTML(  # type: ignore[no-untyped-call]
        f'<div style="font-family:system-ui,sans-serif"><progress {share} style="width:16em;vertical-align:middle" '
        f'aria-label="{escape(title)}"></progress> {escape(words)}</div>'
    )
