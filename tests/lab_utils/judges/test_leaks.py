"""Leftovers and growth, distinguished from look-alikes."""

from __future__ import annotations

import pytest

from lab_utils.judges.leaks import (
    Fit,
    Survivor,
    Trend,
    all_freed,
    counts_are_back,
    is_decided,
    no_steady_growth,
    repeated_growth,
)
from lab_utils.values.verdict import Outcome

BEFORE = {"registry._sessions.session.UserAgentSession": 1, "tasks": 2, "timers": 1, "threads": 3, "descriptors": 9}


def test_counts_back_at_the_baseline_pass() -> None:
    assert counts_are_back(BEFORE, BEFORE, 7).outcome is Outcome.PASS
    assert counts_are_back(BEFORE, {**BEFORE, "tasks": 1}, 7).outcome is Outcome.PASS


@pytest.mark.parametrize(
    ("kind", "anomaly"),
    [
        ("tasks", "leaked-task"),
        ("timers", "leaked-timer"),
        ("handles", "leaked-handle"),
        ("threads", "leaked-thread"),
        ("descriptors", "leaked-descriptor"),
        ("sockets", "leaked-socket"),
        ("connections", "leaked-connection"),
        ("registry._sessions.session.UserAgentSession", "retained-object"),
        ("a type that was not there before", "retained-object"),
    ],
)
def test_one_too_many_is_named_by_its_kind(kind: str, anomaly: str) -> None:
    after = {**BEFORE, kind: BEFORE.get(kind, 0) + 1}
    (finding,) = counts_are_back(BEFORE, after, 7, {kind: ["a hint"]}).findings
    assert finding.anomaly == anomaly
    assert finding.witness[-1] == "a hint"


def test_freed_objects_pass_and_a_cycle_is_told_apart_from_what_is_held() -> None:
    assert all_freed(3, ()).outcome is Outcome.PASS
    held, cycle = Survivor("agent of 'ann'", False, "list"), Survivor("agent of 'bob'", True, "Agent")
    found = {finding.anomaly: finding.witness for finding in all_freed(5, (held, cycle)).findings}
    assert found == {"retained-object": ("agent of 'ann': list",), "reference-cycle": ("agent of 'bob': Agent",)}


def trend(*fits: tuple[float, float, float, float], cycles: int = 60, unit: str = "bytes") -> Trend:
    return Trend("memory", unit, tuple(Fit(cycles, *fit) for fit in fits))


FLAT = {
    "flat": trend((0, 0, 0, 100)),
    "an interval that holds zero": trend((1, -1, 3.9, 100)),
    "a wide interval, and a later series goes as low": trend((3, -1, 8, 100), (3, -1, 8, 340)),
    "half an object in ten cycles": trend((0.05, 0, 0.09, 100), unit="objects"),
    "shrinking": trend((-9, -12, -4, 100)),
    "the second series is flat": trend((5, 4, 6, 100), (0, 0, 0, 400)),
    "less than any object takes": trend((1, 0.7, 1.3, 100), (1, 0.7, 1.3, 160), (1, 0.7, 1.3, 220)),
    "a sawtooth comes back to its floor": trend((350, 300, 400, 1_000), (360, 310, 410, 1_400), (350, 300, 400, 900)),
    "a sawtooth read some cycles late": trend((350, 300, 400, 1_000), (360, 310, 410, 2_900), (350, 300, 400, 4_000)),
}


@pytest.mark.parametrize("name", FLAT)
def test_what_does_not_grow_in_every_series_passes(name: str) -> None:
    assert FLAT[name].steady_growth == 0
    assert no_steady_growth([FLAT[name]]).outcome is Outcome.PASS


@pytest.mark.parametrize(("unit", "anomaly"), [("bytes", "memory-growth"), ("objects", "object-growth")])
def test_what_grows_in_every_series_is_found(unit: str, anomaly: str) -> None:
    leak = trend((100, 95, 105, 1_000), (100, 95, 105, 7_000), (100, 95, 105, 13_000), unit=unit)
    (finding,) = no_steady_growth([leak], ["module.py:3: +500 bytes"]).findings
    assert leak.steady_growth == 95
    assert finding.anomaly == anomaly
    assert finding.witness[-1] == "module.py:3: +500 bytes"
    assert len(finding.witness) == 4


def test_a_leak_is_found_below_a_sawtooth_and_in_short_series() -> None:
    leak = trend((350, 300, 400, 1_000), (350, 300, 400, 13_000), (350, 300, 400, 25_000))
    assert leak.steady_growth == pytest.approx(200)
    leak = trend((100, 95, 105, 1_000), (100, 95, 105, 1_400), (100, 95, 105, 1_800), cycles=4)
    assert leak.steady_growth == 95


def test_a_table_that_doubles_in_one_series_hides_no_leak() -> None:
    leak = Trend("memory", "bytes", (Fit(12, 503, 492, 516, 67_425), Fit(4, 1_516, 492, 6_636, 73_977)))
    assert leak.steady_growth == 492


OPEN = {
    "one wide interval": trend((3, -1, 4, 100)),
    "objects in a wide interval": trend((0, 0, 0.1, 100), unit="objects"),
    "wide intervals over a floor that rises": trend((3, -1, 8, 100), (3, -1, 8, 341)),
    "a very wide interval excuses no floor that rises": trend((30, -1, 100, 100), (30, -1, 100, 500)),
    "the last of three is wide": trend((5, 4.5, 6, 100), (5, 4.5, 6, 400), (3, -1, 8, 700)),
    "growth around the least that matters": trend((5, 3, 7, 100), (5, 3, 7, 400), (5, 3, 7, 700)),
}


@pytest.mark.parametrize("name", OPEN)
def test_growth_that_is_neither_shown_nor_excluded_is_unknown(name: str) -> None:
    assert OPEN[name].is_open
    assert OPEN[name].steady_growth == 0
    verdict = no_steady_growth([FLAT["flat"], OPEN[name]])
    assert verdict.outcome is Outcome.UNKNOWN
    assert "would exclude a leak" in verdict.reason


def test_what_grows_is_no_less_found_beside_what_is_open() -> None:
    leak = trend((100, 95, 105, 1_000), (100, 95, 105, 7_000))
    assert no_steady_growth([OPEN["one wide interval"], leak]).outcome is Outcome.FAIL


PROCESS_GROWS = Trend("memory of the process", "bytes", (Fit(60, 9_000, 8_000, 9_500, 100),), decides=False)


def test_memory_of_the_process_is_told_of_and_decides_nothing() -> None:
    verdict = no_steady_growth([FLAT["flat"], PROCESS_GROWS])
    assert verdict.outcome is Outcome.PASS
    words = "memory of the process grows by 9 ± 1 kB a cycle (95%), which alone decides nothing"
    assert verdict.reason.endswith(words)
    wide = Trend("memory of the process", "bytes", (Fit(60, 0, -5, 9_500, 100),), decides=False)
    verdict = no_steady_growth([FLAT["flat"], wide])
    assert verdict.outcome is Outcome.PASS
    assert verdict.reason.endswith("memory of the process is flat within ±9.5 kB a cycle (95%)")
    leak = trend((100, 95, 105, 1_000), (100, 95, 105, 7_000))
    (finding,) = no_steady_growth([leak, PROCESS_GROWS], ["+5 builtins.tuple"]).findings
    assert finding.witness[-2:] == (words, "+5 builtins.tuple")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (FLAT["an interval that holds zero"], "is flat within ±3.9 bytes a cycle (95%)"),
        (trend((-1, -7, 2, 100)), "is flat within ±7 bytes a cycle (95%)"),
        (FLAT["shrinking"], "shrinks by 9 ± 5 bytes a cycle (95%)"),
        (FLAT["a sawtooth comes back to its floor"], "comes back to its floor of 900 bytes"),
        (trend((100, 95, 107, 1_000), (90, 80, 99, 7_000)), "grows by 100 ± 7 bytes a cycle (95%)"),
        (OPEN["one wide interval"], "no more than flat within ±4 bytes a cycle (95%) after 60 cycles; 4 bytes would"),
    ],
)
def test_a_trend_says_how_sure_it_is(said: Trend, words: str) -> None:
    assert words in str(said)


@pytest.mark.parametrize(
    ("unit", "low", "high", "decided"),
    [
        ("bytes", -50, 3.9, True),
        ("bytes", -50, 4, False),
        ("bytes", 3.9, 9, False),
        ("bytes", 4, 900, True),
        ("objects", -5, 0.09, True),
        ("objects", 0, 0.1, False),
        ("objects", 0.01, 0.2, True),
    ],
)
def test_an_interval_is_tight_enough_when_it_excludes_the_least_leak_or_shows_one(
    unit: str, low: float, high: float, decided: bool
) -> None:
    assert is_decided(unit, low, high) is decided


@pytest.mark.parametrize(
    ("steps", "growth"),
    [
        ([0, 0, 1_900_000, 0, 0], 0),
        ([50, 50, 1_900_000, 50, 50], 250),
        ([300_000, 0, 0, 300_000, 0, 0], 600_000),
        ([0, 100, 0, 200, 0, 0, 0, 400, 0], 500),
        ([40, 40, -80, 40, 40, -80], 0),
        ([700], 700),
        ([], 0),
    ],
    ids=["a table", "a table and a leak", "bursts", "doublings", "a buffer", "one step", "none"],
)
def test_growth_is_more_than_one_step(steps: list[int], growth: int) -> None:
    assert repeated_growth([1_000, *(1_000 + sum(steps[: place + 1]) for place in range(len(steps)))]) == growth
