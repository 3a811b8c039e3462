"""What a thread has had of the processors is known in every process of the lab."""

from __future__ import annotations

import multiprocessing
import sys
import threading
import time
import tracemalloc
from itertools import repeat

import pytest

from lab_utils.interleavings import observing
from lab_utils.interleavings.observing import STEPS
from lab_utils.interleavings.threads import times

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux says it")


def worked() -> float:
    before = times(threading.main_thread())[0]
    until = time.thread_time() + 0.05
    while time.thread_time() < until:
        pass
    return times(threading.main_thread())[0] - before


def test_the_main_threads_work_is_seen_in_this_process() -> None:
    assert worked() > 0.04


def test_it_is_seen_in_a_process_that_was_forked() -> None:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(worked) > 0.04


def test_counting_leaves_nothing_where_memory_is_traced() -> None:
    """A check that measures memory would see it, at a moment of chance where another thread counts."""
    code = "for _ in repeat(None, 1_000):\n    STEPS.count += 1\n    STEPS.answers += 1\n    STEPS.beats += 1"
    counting = compile(code, "counting", "exec")
    names = {"STEPS": type(STEPS)(), "repeat": repeat}
    # Once before: the interpreter may keep something of its own with code that it runs for the first time.
    exec(counting, names)
    tracemalloc.start()
    try:
        exec(counting, names)
        traces = tracemalloc.take_snapshot().traces
    finally:
        tracemalloc.stop()
    left = [trace for trace in traces if trace.traceback[0].filename in ("counting", observing.__file__)]
    assert left == []
