"""Two runs compared: new, fixed and worse values are found, and normal variation is not."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from lab_utils.judges.comparison import Change, compare
from lab_utils.values.digest import CheckDigest, Digest, FoundDigest, MeasuredDigest, read_digest, written_digest
from lab_utils.values.verdict import Outcome


def found(fingerprint: str, count: int = 1, key: str = "F1") -> FoundDigest:
    return FoundDigest(fingerprint, "double-activation", count, key, "two were given", "Callers were given two agents.")


def check(
    name: str = "a", *findings: FoundDigest, outcome: Outcome | None = None, measured: Iterable[MeasuredDigest] = ()
) -> CheckDigest:
    word = outcome or (Outcome.FAIL if findings else Outcome.PASS)
    return CheckDigest(name, "user_isolation", word, "r", 1.0, findings, tuple(measured))


def run(*checks: CheckDigest, run_id: str = "r1", **fields: Any) -> Digest:
    usual = Digest(1, run_id, "passed", "2026-01-02T03:04:05+00:00", 9.0, "mine:T", "smoke", 7, "c0ffee", "3.11.4", "Linux", {"user_isolation": {"users": 8}}, checks)  # fmt: skip
    return msgspec.structs.replace(usual, **fields)


def one(
    value: float | None,
    unit: str = "bytes",
    budget: tuple[str, float] = ("<=", 500_000.0),
    metric: str = "growth",
    *,
    decides: bool = True,
) -> MeasuredDigest:
    return MeasuredDigest(metric, value, unit, *budget, "lab", decides)


def measured(before: MeasuredDigest, after: MeasuredDigest, *earlier: MeasuredDigest) -> Any:
    runs = [run(check(measured=[each]), run_id=f"e{number}") for number, each in enumerate(earlier)]
    made = compare(run(check(measured=[before])), run(check(measured=[after]), run_id="r2"), runs)
    (change,) = made.measured
    return change


def test_findings_are_new_fixed_still_there_or_not_looked_for() -> None:
    before = run(check("a", found("old"), found("both", 3)), check("b", found("lost")), check("c", found("gone")))
    after = run(check("a", found("new"), found("both", 5)), check("b", outcome=Outcome.UNKNOWN), run_id="r2")
    made = compare(before, after)
    assert [(change.change, change.found.fingerprint, change.before, change.after) for change in made.findings] == [
        (Change.NEW, "new", 0, 1),
        (Change.STILL, "both", 3, 5),
        (Change.FIXED, "old", 1, 0),
        (Change.UNSEEN, "lost", 1, 0),
        (Change.UNSEEN, "gone", 1, 0),
    ]
    assert [(each.check, each.before, each.after, each.is_worse) for each in made.verdicts] == [
        ("b", "FAIL", "UNKNOWN", True),
        ("c", "FAIL", "", False),
    ]
    assert made.is_worse


@pytest.mark.parametrize(
    ("before", "after", "is_worse"),
    [
        (run(check("a")), run(check("a")), False),
        (run(check("a", found("x"))), run(check("a")), False),
        (run(check("a", found("x"))), run(check("a", found("x", 90))), False),
        (run(check("a")), run(check("a", found("x"))), True),
        (run(check("a")), run(check("a"), check("b", found("x"))), True),
        (run(check("a")), run(check("a", outcome=Outcome.UNKNOWN)), True),
        (run(check("a")), run(check("a", outcome=Outcome.NOT_APPLICABLE)), False),
        (run(check(measured=[one(100_000)])), run(check(measured=[one(300_000)])), True),
        (run(check(measured=[one(300_000)])), run(check(measured=[one(100_000)])), False),
    ],
)
def test_what_is_worse(before: Digest, after: Digest, is_worse: bool) -> None:
    assert compare(before, after).is_worse is is_worse


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        (one(100_000), one(105_000), Change.SAME),
        (one(100_000), one(200_000), Change.WORSE),
        (one(200_000), one(100_000), Change.BETTER),
        (one(1_000), one(4_000), Change.SAME),  # less than 1% of the budget
        (one(0), one(4_000), Change.SAME),
        (one(0), one(100_000), Change.WORSE),
        (one(100.0, "ms", ("", 0.0)), one(250.0, "ms", ("", 0.0)), Change.SAME),
        (one(100.0, "ms", ("", 0.0)), one(900.0, "ms", ("", 0.0)), Change.WORSE),
        (one(0.0, "tasks", ("==", 0.0)), one(1.0, "tasks", ("==", 0.0)), Change.WORSE),
        (one(100.0, "%", (">", 95.0)), one(97.0, "%", (">", 95.0)), Change.WORSE),
        (one(97.0, "%", (">", 95.0)), one(100.0, "%", (">", 95.0)), Change.BETTER),
        (one(50.0, "agents", ("", 0.0)), one(90.0, "agents", ("", 0.0)), Change.SAME),
        (one(30_000, decides=False), one(60_000, decides=False), Change.SAME),
        (one(30_000, decides=False), one(400_000, decides=False), Change.WORSE),
    ],
)  # fmt: skip
def test_a_measurement_is_worse_beyond_noise_only(
    before: MeasuredDigest, after: MeasuredDigest, change: Change
) -> None:
    assert measured(before, after).change is change


def test_earlier_runs_show_how_much_a_value_varies() -> None:
    steady = [one(value) for value in (100_000, 101_000, 99_000, 100_500, 99_500)]
    wild = [one(value) for value in (60_000, 150_000, 90_000, 120_000, 200_000)]
    assert measured(one(100_000), one(125_000), *steady).change is Change.WORSE
    noisy = measured(one(100_000), one(125_000), *wild)
    assert (noisy.change, noisy.why) == (Change.SAME, "6 earlier runs")
    assert noisy.low < 1 < noisy.high
    unlike = [run(check(measured=[each]), run_id=f"e{each.value}", profile="stress") for each in wild]
    before, after = (run(check(measured=[one(value)]), run_id=f"r{value}") for value in (100_000, 200_000))
    (change,) = compare(before, after, unlike).measured
    assert (change.change, change.why) == (Change.WORSE, compare(before, after).measured[0].why)


def test_a_slope_is_judged_by_its_own_interval() -> None:
    def slopes(value: float, low: float, high: float, of: str = "traced memory of x (95%)") -> list[MeasuredDigest]:
        names = (f"slope, of {of}", f"slope, at least, of {of}", f"slope, at most, of {of}")
        return [MeasuredDigest(name, each, "bytes/cycle") for name, each in zip(names, (value, low, high), strict=True)]

    def change(before: list[MeasuredDigest], after: list[MeasuredDigest]) -> Change:
        (made,) = compare(run(check(measured=before)), run(check(measured=after), run_id="r2")).measured
        return made.change

    assert change(slopes(0, 0, 2), slopes(100, 90, 110)) is Change.WORSE
    assert change(slopes(100, 90, 110), slopes(0, 0, 2)) is Change.BETTER
    assert change(slopes(0, 0, 200), slopes(100, 90, 110)) is Change.SAME
    assert change(slopes(0, 0, 2), slopes(5, 5, 6)) is Change.SAME
    without_end = run(check(measured=slopes(0, 0, 2)[:2]))
    assert compare(without_end, without_end).measured == ()
    wide = "anonymous memory of the process, of x (95%)"
    assert change(slopes(0, 0, 2, wide), slopes(9_000, 8_000, 9_900, wide)) is Change.SAME


@pytest.mark.parametrize(
    "fields",
    [
        {"target": "other"},
        {"profile": "stress"},
        {"python": "3.12.1"},
        {"parameters": {"user_isolation": {"users": 9}}},
    ],
)
def test_runs_that_are_unlike_are_compared_by_their_findings_only(fields: dict[str, Any]) -> None:
    made = compare(
        run(check(measured=[one(1)])), run(check("a", found("x"), measured=[one(9e5)]), run_id="r2", **fields)
    )
    assert (made.measured, bool(made.why_not)) == ((), True)
    assert len(made.of(Change.NEW)) == 1


def test_a_value_that_is_not_known_is_not_compared_and_a_digest_reads_back() -> None:
    digest = run(check("a", found("x"), measured=[one(None), one(3, metric="other")]))
    assert read_digest(written_digest(digest)) == digest
    assert compare(digest, digest).measured[0].change is Change.SAME
    assert math.isnan(measured(one(0), one(0)).ratio)
    with pytest.raises(ValueError, match="format 2"):
        read_digest(written_digest(run(format=2)))
    with pytest.raises(ValueError, match="missing required field"):
        read_digest(b'{"format": 1}')
