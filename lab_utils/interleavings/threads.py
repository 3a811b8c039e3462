"""What a thread has had of the processors."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

__all__ = ["times"]


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
