"""The sum of several verdicts."""

from __future__ import annotations

import pytest

from lab_utils.target import Recipe
from lab_utils.values.verdict import Finding, Outcome, Verdict

LEAK = Finding("leak", "it is still there", ("w",))
RACE = Finding("race", "there are two", ("w",))


def test_a_failure_names_each_anomaly_once_and_counts_the_findings_of_all() -> None:
    parts = [Verdict.of([RACE, LEAK], 1, ""), Verdict.passed("3 things"), Verdict.of([LEAK], 1, "")]
    combined = Verdict.combined(parts)
    assert combined.outcome is Outcome.FAIL
    assert combined.reason == "3 findings: leak, race"
    assert combined.findings == (RACE, LEAK, LEAK)


@pytest.mark.parametrize(
    ("parts", "outcome", "reason"),
    [
        ([Verdict.passed("3 things"), Verdict.passed("2 more")], Outcome.PASS, "3 things; 2 more"),
        ([Verdict.passed("3 things"), Verdict.unknown("no figure")], Outcome.UNKNOWN, "no figure"),
        ([Verdict.not_applicable("no events"), Verdict.passed("3 things")], Outcome.PASS, "3 things"),
        ([], Outcome.UNKNOWN, "the check judged nothing"),
    ],
)
def test_the_worst_decides_and_says_why(parts: list[Verdict], outcome: Outcome, reason: str) -> None:
    combined = Verdict.combined(parts)
    assert (combined.outcome, combined.reason) == (outcome, reason)


def test_a_plain_type_is_taken_and_one_that_not_every_framework_takes_is_refused() -> None:
    names = ["helper-1", "data_helper", "v1.2"]
    assert [Recipe(name).agent_type for name in names] == names
    for name in ("held in a run", "", "caf\u00e9", "a/b", "a:b"):
        with pytest.raises(ValueError, match="use letters, digits"):
            Recipe(name)
