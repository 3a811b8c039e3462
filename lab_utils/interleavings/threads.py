"""What a thread has had of the processors, and the time that is its own."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from pathlib import Path

from lab_utils.interleavings.observing import BEAT_S, STEPS

__all__ = ["OwnTime", "times"]


def times(thread: threading.Thread) -> tuple[float, float, bool]:
    """The seconds for which a thread worked and was in line for a processor, and whether it works or is in line now;
    zeros and False where the system has no figures."""
    # In a process that was forked, the main thread's `native_id` is still that of its parent's thread.
    number = os.getpid() if thread is threading.main_thread() else thread.native_id
    task = Path(f"/proc/self/task/{number}")
    with suppress(OSError, ValueError):
        worked, in_line, _ = (task / "schedstat").read_text().split()
        # The name before it may hold anything, brackets too.
        state = (task / "stat").read_text().rpartition(") ")[2][:1]
        return int(worked) / 1e9, int(in_line) / 1e9, state == "R"
    return 0.0, 0.0, False


class OwnTime:
    """Counts the seconds in which the thread that made it works, or waits for anything but a processor.

    Of a wait between two readings `most_s` seconds at most are counted, and where another thread beats (`STEPS`), twice
    the time of its beats: the process may have been stopped meanwhile. Until waits come to `least_s` seconds, by
    default a hundredth of the most, they count, though they may have been for a processor.
    """

    def __init__(self, most_s: float = 10.0, least_s: float | None = None) -> None:
        self._most_s, self._seconds, self._beats = most_s, 0.0, STEPS.beats
        self._least_s, self._unasked_s = most_s / 100 if least_s is None else least_s, 0.0
        self._at, self._worked_s, self._in_line_s = time.perf_counter(), time.thread_time(), _in_line_s()

    def seconds(self) -> float:
        """The seconds so far."""
        at, worked_s = time.perf_counter(), time.thread_time()
        more_s = worked_s - self._worked_s
        waited_s, self._unasked_s = self._unasked_s + at - self._at - more_s, 0.0
        if waited_s >= self._least_s:
            before_s, self._in_line_s = self._in_line_s, _in_line_s()
            waited_s -= self._in_line_s - before_s
        else:
            # Asked for seldom: thousands of short steps would wait for the answers.
            waited_s, self._unasked_s = 0.0, waited_s
        beats, self._at, self._worked_s, self._beats = STEPS.beats - self._beats, at, worked_s, STEPS.beats
        most_s = min(self._most_s, 2 * BEAT_S * (beats + 1)) if STEPS.beats else self._most_s
        self._seconds += more_s + max(0.0, min(waited_s, most_s))
        return self._seconds + self._unasked_s


def _in_line_s() -> float:
    return times(threading.current_thread())[1]
