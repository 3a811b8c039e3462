"""A cycle is repeated until it is known whether it leaves something behind, and not for longer than it may be."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab_utils.checks.memory import slopes
from lab_utils.checks.memory.leak_hunt import _without_noise
from lab_utils.checks.memory.slopes import Slopes
from lab_utils.judges.leaks import Fit, Trend, no_steady_growth
from lab_utils.probes.memory import slope_of
from lab_utils.runner import run_check
from lab_utils.target import EndReport, Handle
from lab_utils.targets.reference import Context, ReferenceTarget
from lab_utils.trial import Trial
from lab_utils.values.verdict import Outcome

Grow = Callable[["Memory", int], None]


class Memory:
    """The readings after so many cycles, as a function of the cycle's number."""

    def __init__(self, grow: Grow) -> None:
        self.grow = grow
        self.bytes, self.objects, self.process = 10_000, 50, 1_000_000
        self.numbers: list[int] = []
        self.trial = Trial(ReferenceTarget, {}, 7)
        self.slopes = Slopes(self.trial, lambda: self.bytes, lambda: {"things": self.objects}, lambda: self.process)

    async def cycle(self, number: int) -> None:
        self.numbers.append(number)
        self.grow(self, number)

    def trends(self, cycles: int, shown: int = 0, first: int = 0) -> dict[str, Trend]:
        found = asyncio.run(self.slopes.trend("it", self.cycle, cycles, shown, first))
        return dict(zip(("traced", "objects", "process") if shown else ("traced", "process"), found, strict=True))


def nothing(memory: Memory, number: int) -> None:
    """Leave nothing behind."""


def leak(memory: Memory, number: int) -> None:
    memory.bytes += 8


def every_third_object(memory: Memory, number: int) -> None:
    memory.objects += number % 3 == 0


def noise(memory: Memory, number: int) -> None:
    memory.bytes = 10_000 + round(random.Random(number + 300).gauss(0, 3_000))


def leak_in_noise(memory: Memory, number: int) -> None:
    memory.bytes = 10_000 + 60 * number + round(random.Random(number).gauss(0, 400))


def one_step(memory: Memory, number: int) -> None:
    memory.bytes = 10_000 + (5_000 if number >= 9 else 0)


def only_the_process(memory: Memory, number: int) -> None:
    memory.process += 40_960


def sawtooth(memory: Memory, number: int) -> None:
    memory.bytes = 10_000 + 300 * (number % 40)


def filling(memory: Memory, number: int) -> None:
    memory.bytes += round(300 * 0.93**number)


def filling_and_leak(memory: Memory, number: int) -> None:
    memory.bytes += 8 + round(300 * 0.93**number)


def full_after_44(memory: Memory, number: int) -> None:
    memory.bytes += 200 if number < 44 else 0


def loaded_at_first(memory: Memory, number: int) -> None:
    memory.bytes += (269, 67, 38, 12, 3, 0)[min(number, 5)]


def hoards(memory: Memory, number: int) -> None:
    memory.bytes += 250_000


@pytest.mark.parametrize("grow", [filling, full_after_44, loaded_at_first])
def test_growth_that_decays_is_no_leak(grow: Grow) -> None:
    verdict = no_steady_growth(list(Memory(grow).trends(30).values()))
    assert verdict.outcome is Outcome.PASS, verdict


def test_a_leak_beneath_growth_that_decays_is_found() -> None:
    trends = Memory(filling_and_leak).trends(30)
    assert [finding.anomaly for finding in no_steady_growth(list(trends.values())).findings] == ["memory-growth"]
    assert 4 <= trends["traced"].steady_growth <= 20


def test_what_is_there_until_a_step_of_the_loop_ends_hides_no_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(leak)

    def more(change: int) -> None:
        memory.bytes += change

    def fits(*given: Any) -> Any:
        more(4_000)
        asyncio.get_running_loop().call_soon(more, -4_000)
        return slope_of(*given)

    monkeypatch.setattr(slopes, "slope_of", fits)
    assert memory.trends(30)["traced"].steady_growth == pytest.approx(8, rel=0.1)


def test_growth_far_beyond_any_budget_takes_no_more_cycles_than_show_it() -> None:
    memory = Memory(hoards)
    assert memory.trends(300)["traced"].steady_growth == pytest.approx(250_000)
    assert len(memory.numbers) == 36


def test_what_is_flat_takes_one_series_of_the_cycles_asked_for_and_no_fewer() -> None:
    memory = Memory(nothing)
    trends = memory.trends(30, 10, first=5)
    assert memory.numbers == list(range(5, 35))
    assert [len(trend.fits) for trend in trends.values()] == [1, 1, 1]
    assert str(trends["traced"]) == "traced memory of it is flat within ±0 bytes a cycle (95%)"
    assert no_steady_growth(list(trends.values())).outcome is Outcome.PASS


def test_a_leak_of_a_pointer_a_cycle_is_found_in_three_series() -> None:
    memory = Memory(leak)
    trends = memory.trends(30, 10)
    assert memory.numbers == list(range(30 + 10 + 10))
    assert [fit.cycles for fit in trends["traced"].fits] == [30, 10, 10]
    assert trends["traced"].steady_growth == pytest.approx(8)
    assert str(trends["traced"]) == "traced memory of it grows by 8 ± 0 bytes a cycle (95%)"


@pytest.mark.parametrize(("cycles", "shown"), [(60, 60), (60, 20), (60, 10), (61, 7)])
def test_growth_is_told_by_the_cycle_however_often_objects_are_counted(cycles: int, shown: int) -> None:
    trends = Memory(every_third_object).trends(cycles, shown)
    first = trends["objects"].fits[0]
    assert len(trends["objects"].fits) == 3
    assert first.slope == pytest.approx(1 / 3, abs=0.04)
    assert cycles - cycles // shown < first.cycles <= cycles
    assert no_steady_growth(list(trends.values())).findings[0].anomaly == "object-growth"


def test_a_series_goes_on_until_its_interval_is_tight() -> None:
    memory = Memory(one_step)
    trends = memory.trends(24)
    assert 24 < len(memory.numbers) < 72
    assert len(trends["traced"].fits) == 1
    assert trends["traced"].fits[0].cycles == len(memory.numbers)
    assert no_steady_growth(list(trends.values())).outcome is Outcome.PASS


def test_an_interval_that_never_gets_tight_ends_in_unknown_after_three_times_the_cycles() -> None:
    memory = Memory(noise)
    trends = memory.trends(12)
    assert [fit.cycles for fit in trends["traced"].fits] == [36, 12, 12]
    assert memory.numbers == list(range(60))
    verdict = no_steady_growth(list(trends.values()))
    assert verdict.outcome is Outcome.UNKNOWN
    assert "after 60 cycles; 4 bytes would exclude a leak" in verdict.reason


def test_a_leak_that_noise_hides_at_first_is_found() -> None:
    memory = Memory(leak_in_noise)
    trends = memory.trends(36)
    assert [fit.cycles for fit in trends["traced"].fits] == [36, 12, 20]
    assert no_steady_growth(list(trends.values())).outcome is Outcome.FAIL


def test_what_fills_and_is_emptied_is_no_leak() -> None:
    memory = Memory(sawtooth)
    trends = memory.trends(60)
    assert no_steady_growth(list(trends.values())).outcome is Outcome.PASS


def test_memory_of_the_process_takes_no_more_cycles_and_decides_nothing() -> None:
    memory = Memory(only_the_process)
    trends = memory.trends(30, 10)
    assert len(memory.numbers) == 30
    assert str(trends["process"]).endswith("grows by 40.96 kB ± 0 bytes a cycle (95%), which alone decides nothing")
    assert no_steady_growth(list(trends.values())).outcome is Outcome.PASS


def test_memory_that_the_fitting_takes_is_not_the_works(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(leak)

    def costly(what: str, unit: str, fits: tuple[Fit, ...], decides: bool) -> Trend:
        memory.bytes += 1_000
        return Trend(what, unit, fits, decides)

    monkeypatch.setattr("lab_utils.checks.memory.slopes.Trend", costly)
    trends = memory.trends(30)
    assert [fit.floor for fit in trends["traced"].fits] == [10_008, 10_248, 10_328]


def test_what_was_read_is_shown_when_all_is_measured() -> None:
    memory = Memory(leak)
    trends = memory.trends(12, 12)
    assert not [*memory.trial.samples]
    memory.slopes.show(list(trends.values()))
    by_series = {name: [one for one in memory.trial.samples if one.series == name] for name in ("traced", "anonymous")}
    assert [one.value for one in by_series["traced"]] == [10_000 + 8 * (number + 1) for number in memory.numbers]
    assert {one.value for one in by_series["anonymous"]} == {1_000_000}
    assert len(by_series["anonymous"]) == len(memory.numbers)
    shown = [one for one in memory.trial.samples if not one.series.startswith("cycles: ")]
    assert {(one.unit, one.phase) for one in shown} == {("bytes", "work")}
    cycles = [one for one in memory.trial.samples if one.series == "cycles: traced memory of it"]
    assert [one.value for one in cycles] == [one.value for one in by_series["traced"]]
    assert [one.x for one in cycles if one.phase == "series 1"] == [str(number) for number in range(1, 13)]
    assert [one.phase for one in cycles][12::4] == ["series 2", "series 3"]
    objects = [one for one in memory.trial.samples if one.series == "cycles: the number of live objects of it"]
    assert {one.unit for one in objects} == {"objects"}
    other = Memory(leak)
    other.slopes.show(list(other.trends(12).values()), in_figures=False)
    assert {one.series.partition(":")[0] for one in other.trial.samples} == {"cycles"}
    rows = {one.metric: (one.value, one.unit) for one in memory.trial.measurements}
    assert rows["slope, of traced memory of it (95%)"] == (8.0, "bytes/cycle")
    assert rows["slope, at most, of the number of live objects of it (95%)"] == (0.0, "objects/cycle")
    assert rows["slope, at least, of anonymous memory of the process, of it (95%)"] == (0.0, "bytes/cycle")


def test_fewer_readings_than_a_slope_takes_make_no_trend() -> None:
    assert set(Memory(nothing).trends(8)) == {"traced", "process"}


def test_in_every_cycle_visitors_come_by_either_way_of_making(tmp_path: Path) -> None:
    asked: dict[str, list[str]] = {"create": [], "get_or_create": []}

    class Counting(ReferenceTarget):
        async def create(self, user: str, *arguments: Any, **options: Any) -> Handle:
            asked["create"].append(user)
            return await super().create(user, *arguments, **options)

        async def get_or_create(self, user: str, *arguments: Any, **options: Any) -> Handle:
            asked["get_or_create"].append(user)
            return await super().get_or_create(user, *arguments, **options)

        async def stop(self) -> None:
            (tmp_path / "asked.json").write_text(json.dumps(asked))
            await super().stop()

    # In a process of its own: a test session's million objects would be counted with every cycle.
    few: dict[str, int | float | str | bool] = {"cycles": 4, "long_cycles": 12, "operations_per_cycle": 2}
    run_check("long_running_session_resource_management", target=Counting, parameters=few)
    users_by_way = json.loads((tmp_path / "asked.json").read_text())
    visitors = {way: {user for user in users if user.startswith("visitor-")} for way, users in users_by_way.items()}
    assert len(visitors["create"]) == len(visitors["get_or_create"]) >= 12
    assert not visitors["create"] & visitors["get_or_create"]


@pytest.mark.parametrize(("rest", "more_objects", "grows"), [(174, 0, False), (300, 0, True), (174, 1, True)])
def test_a_growth_that_a_collection_takes_most_of_is_no_memory_growth(
    rest: float, more_objects: float, grows: bool
) -> None:
    def trend(unit: str, slope: float) -> Trend:
        return Trend(
            "it", unit, tuple(Fit(12, slope, slope, slope, 1_000 + series * 12 * slope) for series in range(3))
        )

    collected = _without_noise([trend("bytes", 512)], [trend("bytes", rest), trend("objects", more_objects)])
    assert any(one.decides and one.steady_growth > 0 for one in collected) is grows


class KeepsOneBesideGarbage(ReferenceTarget):
    """Each user who leaves leaves much garbage in a cycle, and one small object for good."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Context] = []

    async def end(self, user: str) -> EndReport:
        garbage: list[Any] = [bytes(40_000)]
        garbage.append(garbage)
        self.kept.append(Context(user, "main", {}, frozenset()))
        return await super().end(user)


def test_a_small_leak_beside_much_garbage_keeps_its_name() -> None:
    few: dict[str, int | float | str | bool] = {"cycles": 4, "long_cycles": 12, "operations_per_cycle": 2}
    result = run_check("long_running_session_resource_management", target=KeepsOneBesideGarbage, parameters=few)
    names = {finding.anomaly for finding in result.verdict.findings}
    assert names >= {"object-growth", "reference-cycle"}, result.verdict.findings
