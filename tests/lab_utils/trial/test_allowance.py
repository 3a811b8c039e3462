"""Time that is allowed for steps: a slow target uses it up, a busy machine does not."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from lab_utils.interleavings import threads
from lab_utils.interleavings.observing import STEPS
from lab_utils.interleavings.threads import OwnTime
from lab_utils.trial.allowance import Allowance


def a_stop(step: int) -> float:
    return 3_600.0 if step == 1 else 0.125


@pytest.mark.parametrize(
    ("took_s", "worked", "in_line", "over_after"),
    [
        (lambda _: 0.5, 0.0, 0.0, 20),
        (lambda _: 0.5, 1.0, 0.0, 20),
        (lambda _: 60.0, 0.0, 0.0, 10),
        # A step that works is not cut: nothing was stopped meanwhile.
        (lambda _: 6.0, 1.0, 0.0, 2),
        # One step counts for a second: 9 s are left for the others.
        (a_stop, 0.0, 0.0, 73),
        (lambda _: 0.5, 0.0, 0.9, None),
        (lambda _: 0.5, 0.1, 0.9, None),
    ],
    ids=["waits", "works", "long waits", "long works", "stopped once", "in line", "works and is in line"],
)
def test_steps_that_are_allowed(
    monkeypatch: pytest.MonkeyPatch,
    took_s: Callable[[int], float],
    worked: float,
    in_line: float,
    over_after: int | None,
) -> None:
    now = 0.0
    clocks = SimpleNamespace(perf_counter=lambda: now, thread_time=lambda: now * worked)
    monkeypatch.setattr(threads, "time", clocks)
    monkeypatch.setattr(threads, "_in_line_s", lambda: now * in_line)
    allowed = Allowance(10.0)
    for step in range(1, 150):
        now += took_s(step)
        if allowed.is_over():
            break
    else:
        step = 0
    assert (step or None) == over_after


def test_a_process_that_was_stopped_loses_two_beats_of_the_thread_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(threads, "time", SimpleNamespace(perf_counter=lambda: now, thread_time=lambda: 0.0))
    monkeypatch.setattr(threads, "_in_line_s", lambda: 0.0)
    monkeypatch.setattr(STEPS, "beats", 7)
    own, read = OwnTime(10.0), []
    for waited_s, beats in ((7.0, 0), (7.0, 28), (1.0, 2), (60.0, 300)):
        now += waited_s
        STEPS.beats += beats
        read.append(own.seconds())
    assert read == [0.5, 7.5, 8.5, 18.5]


@pytest.mark.parametrize(("in_line", "expected"), [(0.75, 12.5), (0.0, 50.0)])
def test_many_short_waits_for_a_processor_are_not_ones_own(
    in_line: float, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(threads, "time", SimpleNamespace(perf_counter=lambda: now, thread_time=lambda: 0.0))
    monkeypatch.setattr(threads, "_in_line_s", lambda: now * in_line)
    own = OwnTime(10.0)
    for _ in range(1_600):
        now += 0.03125
        own.seconds()
    assert own.seconds() == pytest.approx(expected, abs=0.1)
