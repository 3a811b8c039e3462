"""Observations that others change, and those that only differ in their ids."""

from __future__ import annotations

import pytest

from lab_utils.judges.interference import Observed, normalised, not_interfered
from lab_utils.values.verdict import Outcome

ALONE = [Observed("create", "desk", ("#1",)), Observed("rows", "[1, 2]"), Observed("get", "desk", ("#1",))]
WRONG = {
    "another order": [ALONE[1], ALONE[0], ALONE[2]],
    "one less": ALONE[:2],
    "one more": [*ALONE, Observed("event", "number 1")],
    "another step": [ALONE[0], Observed("total", "[1, 2]"), ALONE[2]],
    "not the agent that was created": [*ALONE[:2], Observed("get", "desk", ("#2",))],
}


def test_ids_may_differ() -> None:
    beside = [Observed("create", "desk", ("#57",)), ALONE[1], Observed("get", "desk", ("#57",))]
    verdict = not_interfered({"ann": ALONE}, {"ann": beside})
    assert verdict.outcome is Outcome.PASS
    assert verdict.reason.startswith("3 observations")


@pytest.mark.parametrize("beside", WRONG.values(), ids=WRONG)
def test_nothing_else_may(beside: list[Observed]) -> None:
    verdict = not_interfered({"ann": ALONE}, {"ann": beside})
    assert [finding.anomaly for finding in verdict.findings] == ["interference"]


def test_the_first_difference_is_the_witness() -> None:
    beside = [ALONE[0], Observed("rows", "[9]"), Observed("get", "nothing")]
    (finding,) = not_interfered({"ann": ALONE}, {"ann": beside}).findings
    assert finding.witness == ("both:   create -> desk <id 1>", "alone:  rows -> [1, 2]", "beside: rows -> [9]")


def test_a_user_who_is_only_in_one_world_is_a_difference() -> None:
    assert not_interfered({"ann": ALONE}, {}).outcome is Outcome.FAIL
    assert not_interfered({}, {"ann": ALONE}).outcome is Outcome.FAIL


def test_random_ids_within_texts_are_normalised_and_numbers_are_not() -> None:
    one = [Observed("fail", "agent-0123456789abcdef failed"), Observed("event", "number 7 of 'user-123456789'")]
    other = [Observed("fail", "agent-fedcba9876543210 failed"), one[1]]
    assert normalised(one) == normalised(other)
    assert normalised(one)[1] == one[1]
    assert normalised([Observed("a", "0123456789abcdef"), Observed("b", "0123456789abcdef")])[1].what == "<id 1>"
