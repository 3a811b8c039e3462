"""Ends a part of a check early on a slow target, and not on a busy machine."""

from __future__ import annotations

import threading
import time

from lab_utils.interleavings.threads import times
from lab_utils.trial import loops

__all__ = ["Allowance"]


class Allowance:
    """Seconds for steps of one kind. Call `is_over` between two steps.

    The time in which this thread was in line for a processor does not count, and a step counts for a tenth of the whole
    at most, for the process may have been stopped meanwhile: so ten steps are always allowed.
    """

    def __init__(self, seconds: float) -> None:
        self._most_s, self._left_s = seconds / loops.SLICES, seconds
        self._at, self._in_line_s = time.perf_counter(), _in_line_s()

    def is_over(self) -> bool:
        before, self._at = self._at, time.perf_counter()
        took_s = self._at - before
        if took_s >= self._most_s / 100:
            # Asked for seldom: thousands of short steps would wait for the answers.
            waited, self._in_line_s = self._in_line_s, _in_line_s()
            took_s -= self._in_line_s - waited
        self._left_s -= max(0.0, min(took_s, self._most_s))
        return self._left_s <= 0


def _in_line_s() -> float:
    return times(threading.current_thread())[1]
