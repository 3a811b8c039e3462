"""A check of memory reports how far it has come."""

from __future__ import annotations

import pytest

from lab_utils.checks import CHECKS
from lab_utils.runner import run_check
from lab_utils.values.verdict import Outcome


@pytest.mark.parametrize("check", [name for name in CHECKS if CHECKS[name].category == "memory_management"])
def test_steps_and_how_much_is_done_are_reported(check: str) -> None:
    told: list[tuple[str, float]] = []
    few = {"users": 3, "cycles": 4, "operations_per_cycle": 8, "long_cycles": 10, "interruptions": 5}
    result = run_check(check, parameters=few, on_progress=lambda step, done: told.append((step, done)))
    assert result.outcome is Outcome.PASS
    assert told
    assert all(step and 0 <= done <= 1 for step, done in told)
