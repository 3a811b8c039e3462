"""A target whose failed runs keep nothing of the cause is not blamed for the errors that the lab has planted."""

from __future__ import annotations

from typing import Any

import pytest

from lab_utils.runner.runner import run_check
from lab_utils.target import Command, Handle, Refused
from lab_utils.targets.reference import ReferenceTarget
from lab_utils.values.verdict import Outcome


class LosesReasons(ReferenceTarget):
    """Every error of a run becomes the same one, as where a framework keeps a status alone."""

    async def run(self, handle: Handle, command: Command) -> Any:
        try:
            return await super().run(handle, command)
        except Refused:
            raise
        except Exception:
            status = "failed"
        # Beyond the handler, so that it has no context.
        raise RuntimeError(f"the run {status}")


@pytest.mark.parametrize(
    ("check", "parameters"),
    [
        ("shared_state_contamination_detection", {"users": 4}),
        ("idle_and_over_age_session_ending", {}),
        ("capacity_given_back_by_interrupted_calls", {"interruptions": 3}),
        ("resource_cleanup_after_user_session_termination", {"users": 4}),
        ("long_running_session_resource_management", {"long_cycles": 10, "operations_per_cycle": 2}),
    ],
)
def test_it_passes(check: str, parameters: dict[str, int | float | str | bool]) -> None:
    result = run_check(check, target=LosesReasons, parameters=parameters)
    assert result.verdict.outcome is Outcome.PASS, result.verdict
