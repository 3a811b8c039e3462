"""What is left, and what grows, told from what only looks like it."""

from __future__ import annotations

from typing import Any

import pytest

from lab_utils.checkers.leaks import Fit, Survivor, Trend, all_freed, counts_are_back, no_steady_growth
from lab_utils.verdict import Outcome

BEFORE = {"registry.session.UserAgentSession": 1, "tasks": 2, "timers": 1, "threads": 3, "descriptors": 9}


def test_counts_back_at_the_baseline_pass() -> None:
    assert counts_are_back(BEFORE, BEFORE, 7).outcome is Outcome.PASS
    assert counts_are_back(BEFORE, {**BEFORE, "tasks": 1}, 7).outcome is Outcome.PASS


def test_counts_around_no_work_are_unknown() -> None:
    assert counts_are_back(BEFORE, BEFORE, 0).outcome is Outcome.UNKNOWN


@pytest.mark.parametrize(
    ("kind", "anomaly"),
    [
        ("tasks", "leaked-task"),
        ("timers", "leaked-timer"),
        ("threads", "leaked-thread"),
        ("descriptors", "leaked-descriptor"),
        ("connections", "leaked-connection"),
        ("registry.session.UserAgentSession", "retained-object"),
        ("a type that was not there before", "retained-object"),
    ],
)
def test_one_too_many_is_named_by_its_kind(kind: str, anomaly: str) -> None:
    after = {**BEFORE, kind: BEFORE.get(kind, 0) + 1}
    (finding,) = counts_are_back(BEFORE, after, 7, {kind: ["a hint"]}).findings
    assert finding.anomaly == anomaly
    assert finding.witness[-1] == "a hint"


def test_freed_objects_pass_and_nothing_watched_is_unknown() -> None:
    assert all_freed(3, ()).outcome is Outcome.PASS
    assert all_freed(0, ()).outcome is Outcome.UNKNOWN


def test_a_cycle_is_told_apart_from_what_is_held() -> None:
    held, cycle = Survivor("agent of 'ann'", False, "list"), Survivor("agent of 'bob'", True, "Agent")
    found = {finding.anomaly: finding.witness for finding in all_freed(5, (held, cycle)).findings}
    assert found == {"retained-object": ("agent of 'ann': list",), "reference-cycle": ("agent of 'bob': Agent",)}


def trend(*fits: tuple[float, float, float, float], cycles: int = 60, unit: str = "bytes") -> Trend:
    return Trend("memory", unit, tuple(Fit(cycles, *fit) for fit in fits))


FLAT = {
    "flat": trend((0, 0, 0, 100)),
    "an interval that holds zero": trend((3, -1, 8, 100)),
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


def test_a_leak_below_a_sawtooth_is_found() -> None:
    leak = trend((350, 300, 400, 1_000), (350, 300, 400, 13_000), (350, 300, 400, 25_000))
    assert leak.steady_growth == pytest.approx(200)


def test_short_series_can_show_a_leak() -> None:
    leak = trend((100, 95, 105, 1_000), (100, 95, 105, 1_400), (100, 95, 105, 1_800), cycles=4)
    assert leak.steady_growth == 95


@pytest.mark.parametrize("nothing", [[], [Trend("memory", "bytes", ())]])
def test_no_series_is_unknown(nothing: list[Any]) -> None:
    assert no_steady_growth(nothing).outcome is Outcome.UNKNOWN
