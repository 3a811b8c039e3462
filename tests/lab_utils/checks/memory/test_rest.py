"""Memory is read once the timers that outlast a call for a moment are over: how many there are then is the machine's
doing. A timer that stays is still a leak."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from lab_utils.checks.memory.slopes import Slopes
from lab_utils.judges.leaks import Trend, no_steady_growth
from lab_utils.probes.live import timers_now
from lab_utils.runner import run_check
from lab_utils.target import Command, Handle
from lab_utils.targets.reference import ReferenceTarget
from lab_utils.trial import Trial
from lab_utils.values.verdict import Outcome

FEW: dict[str, int | float | str | bool] = {"users": 3, "cycles": 4, "long_cycles": 12, "operations_per_cycle": 2}
Work = Callable[["Timed", int], None]


class Timed:
    """Work that keeps something until a timer strikes: 100 bytes, and 100 more that never go for each of `left`."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.kept = 0
        self.readings: list[int] = []
        self.slopes = Slopes(Trial(ReferenceTarget, {}, 7), self.read, self.counts, lambda: 0)

    def read(self) -> int:
        self.readings.append(self.kept)
        return 10_000 + 100 * self.kept

    def counts(self) -> dict[str, int]:
        return {"kept": self.kept, "timers": timers_now(asyncio.get_running_loop())}

    def keep_for(self, seconds: float) -> None:
        self.kept += 1
        asyncio.get_running_loop().call_later(seconds, self.let_go)

    def let_go(self) -> None:
        self.kept -= 1

    async def cycle(self, number: int) -> None:
        self.work(self, number)

    def trends(self) -> list[Trend]:
        return asyncio.run(self.slopes.trend("it", self.cycle, 12, shown=12))


def a_moment(timed: Timed, number: int) -> None:
    for few in range(1 + number % 3):
        timed.keep_for(0.004 + 0.003 * few)


def one_after_another(timed: Timed, number: int) -> None:
    asyncio.get_running_loop().call_later(0.002, timed.keep_for, 0.002)


def in_a_task(timed: Timed, number: int) -> None:
    async def keep() -> None:
        timed.kept += 1
        try:
            await asyncio.sleep(0.003)
        finally:
            timed.let_go()

    timed.task = asyncio.ensure_future(keep())  # type: ignore[attr-defined]


@pytest.mark.parametrize("work", [a_moment, one_after_another, in_a_task])
def test_what_timers_keep_for_a_moment_is_in_no_reading(work: Work) -> None:
    timed = Timed(work)
    trends = timed.trends()
    assert set(timed.readings) == {0}
    assert [fit.cycles for trend in trends for fit in trend.fits] == [12, 12, 12]
    assert no_steady_growth(trends).outcome is Outcome.PASS


def beside_a_sweeper(timed: Timed, number: int) -> None:
    if number == 0:
        sweep_for_ever()
    timed.keep_for(0.005)


def sweep_for_ever() -> None:
    asyncio.get_running_loop().call_later(0.02, sweep_for_ever)


def test_a_timer_that_comes_again_is_waited_for_once_and_hides_no_other() -> None:
    timed = Timed(beside_a_sweeper)
    trends = timed.trends()
    # One second for the first reading, in which it comes again.
    assert set(timed.readings) == {0}
    assert no_steady_growth(trends).outcome is Outcome.PASS


def for_an_hour(timed: Timed, number: int) -> None:
    timed.keep_for(3_600)


def for_an_hour_beside_others(timed: Timed, number: int) -> None:
    timed.keep_for(3_600)
    a_moment(timed, number)


@pytest.mark.parametrize("work", [for_an_hour, for_an_hour_beside_others])
def test_what_timers_keep_for_long_is_found(work: Work) -> None:
    trends = Timed(work).trends()
    assert {finding.anomaly for finding in no_steady_growth(trends).findings} == {"memory-growth", "object-growth"}
    # A hundred bytes, and an object and its timer: exactly what each cycle left, whatever was there for a moment.
    assert [trend.steady_growth for trend in trends if trend.decides] == [100, 2]


class RunsRemembered(ReferenceTarget):
    """The name of each run is remembered for a moment, against repeats, until a timer of its own forgets it."""

    moment_s = 0.03

    def __init__(self) -> None:
        super().__init__()
        self.remembered: set[str] = set()

    async def run(self, handle: Handle, command: Command) -> Any:
        name = f"{handle.user}/{next(self._numbers)}"
        self.remembered.add(name)
        asyncio.get_running_loop().call_later(self.moment_s, self.remembered.discard, name)
        return await super().run(handle, command)


class SomeRunsNeverForgotten(RunsRemembered):
    """Each tenth of these timers is set for a day."""

    def __init__(self) -> None:
        super().__init__()
        self.timers = itertools.count(1)

    @property
    def moment_s(self) -> float:  # type: ignore[override]
        return 86_400.0 if next(self.timers) % 10 == 0 else 0.03


CHECKS = ("long_running_session_resource_management", "memory_usage_validation_during_concurrent_operations")


@pytest.mark.parametrize("check", CHECKS)
def test_a_target_whose_timers_strike_soon_passes(check: str) -> None:
    result = run_check(check, target=RunsRemembered, parameters=FEW)
    assert result.verdict.outcome is Outcome.PASS, result.verdict


@pytest.mark.parametrize("check", CHECKS)
def test_a_target_some_of_whose_timers_never_strike_fails(check: str) -> None:
    result = run_check(check, target=SomeRunsNeverForgotten, parameters=FEW)
    found = {finding.anomaly for finding in result.verdict.findings}
    assert result.verdict.outcome is Outcome.FAIL
    assert found <= {"leaked-timer", "memory-growth", "object-growth"}, result.verdict
