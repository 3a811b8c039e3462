"""Where a planted registry is named, by hand, for a part of a check or for a call: the names are right.

That the part or the call shows the defect by itself is held by the calibrations, which try nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from lab_utils.checks import CHECKS
from lab_utils.checks.isolation.cuts import CALLS
from lab_utils.checks.isolation.interrupted import SHOWN_BY
from lab_utils.checks.memory.capacity import SHOWN_BY as CAPACITY_SHOWN_BY
from lab_utils.targets import PLANTED
from lab_utils.targets.planted.base import planted_by
from lab_utils.targets.reference import ReferenceTarget
from lab_utils.trial import Check

OF_PARTS = [check for check in CHECKS.values() if len(check.parts) > 1]


@pytest.mark.parametrize("check", OF_PARTS, ids=lambda check: str(check.name))
def test_a_planted_registry_is_named_for_one_part_at_most(check: Check) -> None:
    named = [planted for part in check.parts for planted in part.planted]
    assert named
    assert len(named) == len(set(named))
    assert set(named) <= PLANTED.keys() & set(check.planted)


@pytest.mark.parametrize(
    ("check", "shown_by"),
    [
        ("interrupted_calls_leave_nothing_to_others", SHOWN_BY),
        ("capacity_given_back_by_interrupted_calls", CAPACITY_SHOWN_BY),
    ],
)
def test_a_planted_registry_that_one_call_shows_is_of_the_check_and_the_call_is_one(
    check: str, shown_by: Mapping[str, str]
) -> None:
    assert shown_by.keys() <= PLANTED.keys() & set(CHECKS[check].planted)
    assert set(shown_by.values()) <= CALLS.keys() - {"nothing"}
    # One that a part is named for is tried by that part, whatever call is named.
    assert shown_by.keys().isdisjoint(planted for part in CHECKS[check].parts for planted in part.planted)


@pytest.mark.parametrize(("defect", "anomalies"), [("", ("wrong-count",)), ("It counts twice.", ())])
def test_a_planted_registry_without_a_defect_or_an_anomaly_is_refused(defect: str, anomalies: tuple[str, ...]) -> None:
    """No check could catch it, and nobody would know what to look for."""
    kind = type("Unnamed", (ReferenceTarget,), {"__doc__": defect})
    with pytest.raises(ValueError, match="planted Unnamed"):
        planted_by(kind, *anomalies)
    assert (
        planted_by(type("Named", (ReferenceTarget,), {"__doc__": "It counts twice."}), "wrong-count").twin
        == "reference"
    )
