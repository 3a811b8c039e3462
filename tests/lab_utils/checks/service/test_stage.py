"""The stage of a service: ids too short to be recognised in a list are left out of the claim, never passed in silence."""

from __future__ import annotations

import pytest

pytest.importorskip("httpx2")

from lab_utils.checks.service import stage
from lab_utils.runner import run_check
from lab_utils.values.verdict import Outcome


@pytest.mark.parametrize("check", ["service_answers_isolation", "service_access_denial", "service_session_end"])
def test_the_part_about_lists_is_left_out(check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "_TELLING", 1_000)
    result = run_check(check, target="right_service", parameters={"users": 2, "requests_per_user": 2}, in_process=True)
    assert result.outcome is Outcome.PASS, result.verdict
    assert "left out: session ids in lists" in result.verdict.reason
