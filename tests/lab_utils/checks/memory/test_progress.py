"""A check of memory reports how far it has come."""

from __future__ import annotations

import pytest

from lab_utils.checks import CHECKS
from lab_utils.runner import run_check
from lab_utils.values.verdict import Outcome


@pytest.mark.parametrize("check", [name for name in CHECKS if CHECKS[name].category == "memory_management"])
def test_steps_and_how_much_is_done_are_reported(check: str) -> None:
    told: list[tuple[str, float]] = []
    result = run_check(check, on_progress=lambda step, done: told.append((step, done)))
    assert result.outcome is Outcome.PASS
    assert told
    assert all(step and 0 <= done <= 1 for step, done in told)
