"""Known findings pass as known until their day is over; anything else does not."""

from __future__ import annotations

from datetime import date

import pytest

from lab_utils.judges.baseline import Baseline, read_known, written_known
from lab_utils.values.verdict import Outcome
from tests.lab_utils.judges.test_comparison import check, found, one, run

TODAY = date(2026, 3, 1)
FILE = """
[[known]]
fingerprint = "x"
check = "a"
reason = "ticket 7"
expires = 2026-03-01
"""


def test_a_known_finding_passes_until_its_last_day() -> None:
    baseline = read_known(FILE, "known.toml")
    judged = baseline.judge(run(check("a", found("x"))), TODAY)
    assert ([entry.reason for _, _, entry in judged.known], judged.passes) == (["ticket 7"], True)
    late = baseline.judge(run(check("a", found("x"))), date(2026, 3, 2))
    assert ([entry.expires for _, _, entry in late.expired], late.passes) == (["2026-03-01"], False)


def test_a_new_finding_beside_a_known_one_does_not_pass() -> None:
    run_of = run(check("a", found("x"), found("y")), check("b", found("x")))
    judged = read_known(FILE, "f").judge(run_of, TODAY)
    assert [each.fingerprint for _, each in judged.new] == ["y"]
    assert not judged.passes
    assert [judged.is_known(each) for each in run_of.checks] == [False, True]
    assert not judged.is_known(check("c", outcome=Outcome.UNKNOWN))


def test_what_is_known_and_gone_is_said_where_it_was_looked_for() -> None:
    baseline = read_known(FILE, "f")
    assert [each.fingerprint for each in baseline.judge(run(check("a")), TODAY).gone] == ["x"]
    assert baseline.judge(run(check("a", outcome=Outcome.UNKNOWN)), TODAY).gone == ()
    assert baseline.judge(run(), TODAY).gone == ()


def test_a_run_as_baseline_knows_its_findings_and_its_measurements() -> None:
    baseline = Baseline.of_run(run(check("a", found("x"), measured=[one(100_000)])))
    good = baseline.judge(run(check("a", found("x", 9), measured=[one(101_000)]), run_id="r2"), TODAY)
    worse = baseline.judge(run(check("a", found("x"), measured=[one(300_000)]), run_id="r2"), TODAY)
    assert good.passes
    assert [change.metric for change in worse.regressions] == ["growth"]
    assert not worse.passes


def test_a_file_that_was_written_reads_back() -> None:
    text = written_known([("a", found("x")), ("b", found("y"))], 'a "quoted" \\ reason\n\x1b é', "2026-12-31")
    baseline = read_known(text, "f")
    assert [(each.fingerprint, each.check, each.anomaly, each.expires) for each in baseline.known.values()] == [
        ("x", "a", "double-activation", "2026-12-31"),
        ("y", "b", "double-activation", "2026-12-31"),
    ]
    assert baseline.known["x"].reason == 'a "quoted" \\ reason\n\x1b é'


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("known = 3", "[[known]] entries"),
        ("[[knwon]]", "nothing else"),
        ("[[known]]\nfingerprint = 'x'\nreason = '  '", "entry 1: it needs a fingerprint and a reason"),
        ("[[known]]\nfingerprint = 'x'\nreason = 'r'\nexpires = 'soon'", "expires = 'soon' is not a date"),
        ("[[known]]\nfingerprint = 7\nreason = 'r'", "fingerprint = 7 is not text"),
        ("[[known]]\nfingerprint = 'x'\nreason = 'r'\nuntil = 2026-01-01", "entry 1: an entry has"),
        ("[[known", "is not TOML"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(text: str, why: str) -> None:
    with pytest.raises(ValueError, match="f") as caught:
        read_known(text, "f")
    assert why in str(caught.value)
