"""The stage of a service: ids too short to be recognised in any text are recognised by their place in a list, or left
out of the claim, never passed in silence."""

from __future__ import annotations

import pytest

pytest.importorskip("httpx2")

from lab_utils.checks.service import stage
from lab_utils.runner import run_check
from lab_utils.values.verdict import Outcome


@pytest.mark.parametrize(
    ("check", "judged"),
    [
        ("service_answers_isolation", "values answered to their own writers"),
        ("service_access_denial", "kinds without effect"),
        ("service_session_end", "expectations held"),
    ],
)
def test_the_part_about_lists_is_left_out_without_such_a_place(
    check: str, judged: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "_TELLING", 1_000)
    monkeypatch.setattr(stage, "id_keys", lambda value, known: set())
    result = run_check(check, target="right_service", parameters={"users": 2, "requests_per_user": 2}, in_process=True)
    assert result.outcome is Outcome.PASS, result.verdict
    assert "left out: session ids in lists" in result.verdict.reason
    assert judged in result.verdict.reason


@pytest.mark.parametrize(
    ("target", "outcome"), [("ListCacheWithoutUser", Outcome.FAIL), ("right_service", Outcome.PASS)]
)
def test_short_ids_are_recognised_by_their_place_in_a_list(
    target: str, outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "_TELLING", 1_000)
    parameters = {"users": 2, "requests_per_user": 2}
    result = run_check("service_answers_isolation", target=target, parameters=parameters, in_process=True)
    assert result.outcome is outcome, result.verdict
    assert {one.anomaly for one in result.verdict.findings} <= {"foreign-session-listed"}
    assert "left out" not in result.verdict.reason
