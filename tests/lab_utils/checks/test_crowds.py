"""A target may limit how many run at once, and is not blamed for it; a lock that some users share is a finding."""

from __future__ import annotations

from typing import Any

import pytest

from lab_utils.runner import run_check
from lab_utils.target import Command, Handle
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
    assert "the target runs no more, for any users" in result.claim


def test_users_who_share_one_of_eight_locks_wait_for_each_other() -> None:
    result = run_check(CHECKS[0], target=StripedLocks, parameters=SMALL[CHECKS[0]], stuck_after=2.0)
    assert "waits-for-other" in {finding.anomaly for finding in result.verdict.findings}


class FailsWhenAskedAgain(PoolOfTen):
    """Ten at once, and after the 24 runs of the check itself every run fails."""

    begun = 0

    async def run(self, handle: Handle, command: Command) -> Any:
        self.begun += 1
        if self.begun > 24:
            raise RuntimeError("no more today")
        return await super().run(handle, command)


def test_a_run_that_fails_among_fewer_is_a_failure_and_nobody_s_wait() -> None:
    result = run_check(CHECKS[0], target=FailsWhenAskedAgain, parameters=SMALL[CHECKS[0]], stuck_after=2.0)
    anomalies = {finding.anomaly for finding in result.verdict.findings}
    assert "failed-operation" in anomalies
    assert "waits-for-other" not in anomalies
