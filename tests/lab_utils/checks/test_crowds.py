"""A target may limit how many run at once, and is not blamed for it; a lock that some users share is a finding."""

from __future__ import annotations

import pytest

from lab_utils.runner import run_check
from lab_utils.targets.planted.memory.capacity import PoolOfTen
from lab_utils.targets.planted.tenants.rows import StripedLocks
from lab_utils.values.verdict import Outcome

CHECKS = ("event_delivery_isolation_between_users", "multi_tenant_agent_execution_boundaries")
SMALL: dict[str, dict[str, int | float | str | bool]] = {
    "event_delivery_isolation_between_users": {"users": 12, "runs_per_user": 1, "transport": "inprocess"},
    "multi_tenant_agent_execution_boundaries": {"users": 24, "records_per_user": 5},
}


@pytest.mark.parametrize("check", CHECKS)
def test_a_limit_of_ten_runs_at_once_is_left_out_of_the_claim(check: str) -> None:
    result = run_check(check, target=PoolOfTen, parameters=SMALL[check], stuck_after=2.0)
    assert result.outcome is Outcome.PASS, result.verdict
    assert "the target runs no more, whoever asks" in result.claim


@pytest.mark.parametrize("check", CHECKS)
def test_users_who_share_one_of_eight_locks_wait_for_each_other(check: str) -> None:
    result = run_check(check, target=StripedLocks, parameters=SMALL[check], stuck_after=2.0)
    assert "waits-for-other" in {finding.anomaly for finding in result.verdict.findings}
