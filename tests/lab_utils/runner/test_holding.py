"""A loop counts as held for the time in which its thread works or waits: not for a trace's share, and not in line."""

from __future__ import annotations

import asyncio
import sys
import threading
from types import SimpleNamespace

import pytest

from lab_utils.runner import holding
from lab_utils.runner.holding import BETWEEN_S, Holding


class Step:
    """In place of a step of a loop."""


@pytest.mark.parametrize(
    ("traced", "works", "in_line", "is_ready", "seconds_each", "other_in_line", "found_after_s"),
    [
        (False, 1.0, 0.0, True, 60.0, 0.0, 2.0),
        (False, 1.0, 0.0, True, 0.5, 0.0, 4.0),
        (False, 0.0, 0.0, False, 60.0, 0.0, 2.0),
        # In line for a processor nine tenths of the time, which the system has not counted yet.
        (False, 0.1, 0.0, True, 60.0, 0.0, 20.0),
        # Another thread is in line nine tenths of the time, and may have kept the loop from the interpreter.
        (False, 0.0, 0.0, False, 60.0, 0.9, 20.0),
        # First the one and then the other: a thread that would work sleeps while the interpreter is not to be had.
        (False, 0.1, 0.5, False, 60.0, 0.4, 20.0),
        # A thread that sleeps or waits for a lock is no faster without the trace.
        (True, 0.0, 0.0, False, 60.0, 0.0, 2.0),
        (True, 1.0, 0.0, True, 60.0, 0.0, 6.0),
        (True, 1.0, 0.0, True, 0.5, 0.0, None),
    ],
)
def test_seconds_for_which_a_loop_is_held(
    monkeypatch: pytest.MonkeyPatch,
    traced: bool,
    works: float,
    in_line: float,
    is_ready: bool,
    seconds_each: float,
    other_in_line: float,
    found_after_s: float | None,
) -> None:
    now, steps = 0.0, [Step()]
    threads = SimpleNamespace(
        enumerate=lambda: [SimpleNamespace(ident=1, name="loop"), SimpleNamespace(ident=2, name="other")]
    )
    monkeypatch.setattr(holding, "STEPS", SimpleNamespace(count=0))
    monkeypatch.setattr(holding, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(holding, "threading", threads)
    monkeypatch.setattr(holding, "tracemalloc", SimpleNamespace(is_tracing=lambda: traced))

    def times(thread: threading.Thread) -> tuple[float, float, bool]:
        return (0.0, other_in_line * now, False) if thread.name == "other" else (works * now, in_line * now, is_ready)

    monkeypatch.setattr(holding, "times", times)
    # The other thread has no loop.
    here = sys._getframe()
    monkeypatch.setattr(holding, "sys", SimpleNamespace(_current_frames=lambda: {1: here}))
    monkeypatch.setattr(
        holding, "_step_of", lambda frame: (steps[-1] if frame else None, True, "a coroutine", ["a call"])
    )
    held = Holding()
    held.look()
    found = None
    while found is None and now < 30.0:
        now += BETWEEN_S
        if now % seconds_each == 0.0:
            steps.append(Step())
        found = now if held.look() else None
    assert found == (None if found_after_s is None else pytest.approx(found_after_s, abs=BETWEEN_S))


class OneAfterAnother:
    """A target whose calls suspend nowhere."""

    def __init__(self, held: Holding) -> None:
        self._held, self.looks = held, 0

    async def get(self, looks: int) -> None:
        for _ in range(looks):
            # From a thread of its own, as in a check.
            thread = threading.Thread(target=self._held.look)
            thread.start()
            thread.join()
            self.looks += 1


@pytest.mark.parametrize(("calls", "looks", "is_held"), [(1, 40, True), (40, 1, False)])
def test_calls_that_follow_one_another_in_one_step_hold_nothing(
    monkeypatch: pytest.MonkeyPatch, calls: int, looks: int, is_held: bool
) -> None:
    now = iter(range(1_000))
    monkeypatch.setattr(holding, "time", SimpleNamespace(monotonic=lambda: next(now)))
    monkeypatch.setattr(holding, "times", lambda _: (0.0, 0.0, False))
    # Who asks is the lab.
    monkeypatch.setattr(holding, "_is_targets", lambda frame: frame.f_code is OneAfterAnother.get.__code__)
    held = Holding()
    target = OneAfterAnother(held)

    async def asks() -> None:
        for _ in range(calls):
            await target.get(looks)

    asyncio.run(asks())
    assert target.looks == 40
    assert (held.most()[1] >= holding.MOST_S) == is_held
