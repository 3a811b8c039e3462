"""Endings across layers: each part alone finds its planted defects, and passes right targets."""

from __future__ import annotations

import pytest

from lab_utils.checks.registration.teardown import _lived
from lab_utils.targets import PLANTED, make_target
from lab_utils.targets.planted.registration import teardown


@pytest.mark.parametrize("name", [one.name for one in teardown.PLANTED])
def test_an_ending_that_is_wrong_in_one_way_is_found_by_that_name_alone(name: str) -> None:
    findings, left_out, done = _lived(lambda: make_target(name))
    assert {finding.anomaly for finding in findings} == PLANTED[name].anomalies
    assert (left_out, done) == ([], 6)


@pytest.mark.parametrize("name", ["reference", "agent_registry"])
def test_what_is_right_has_nothing_to_find(name: str) -> None:
    findings, left_out, done = _lived(lambda: make_target(name))
    assert (findings, left_out, done) == ([], [], 6)
