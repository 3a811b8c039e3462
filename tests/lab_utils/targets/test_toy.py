"""The toy of the tutorial: its leak is found by name, and without it the same check passes."""

from __future__ import annotations

import pytest

from lab_utils.checks import CONTRACT
from lab_utils.runner import run_check
from lab_utils.values.verdict import Outcome

SHARED = "shared_state_contamination_detection"


@pytest.mark.parametrize("check", [CONTRACT.name, SHARED])
def test_without_its_leak_it_passes(check: str) -> None:
    assert run_check(check, target="lab_utils.targets.toy:FixedChatTarget").outcome is Outcome.PASS


def test_its_leak_is_found_by_name() -> None:
    result = run_check(SHARED, target="lab_utils.targets.toy:ChatTarget", parameters={"users": 3})
    assert "cross-user-data" in {finding.anomaly for finding in result.verdict.findings}
    assert "left out: the objects users can reach" in result.verdict.reason
