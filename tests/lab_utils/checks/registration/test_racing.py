"""Whose fault it is that a caller beside a cancelled one fails."""

from __future__ import annotations

import asyncio

import pytest

from lab_utils.checks.registration.racing import Races
from lab_utils.targets.reference import ReferenceTarget
from lab_utils.trial import Trial


def caused(error: BaseException, cause: BaseException | None) -> BaseException:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("failures", "cancelled", "anomaly"),
    [
        ([RuntimeError("own"), asyncio.CancelledError()], {"caller 0"}, "cancelled-others"),
        ([caused(RuntimeError("not made"), asyncio.CancelledError())], {"caller 0"}, "cancelled-others"),
        ([caused(RuntimeError("not made"), asyncio.CancelledError())], set(), "failed-operation"),
        ([RuntimeError("own"), caused(RuntimeError("own"), ValueError("own"))], {"caller 0"}, "failed-operation"),
    ],
)
def test_a_failure_that_stems_from_another_callers_cancellation_is_named_so(
    failures: list[BaseException], cancelled: set[str], anomaly: str
) -> None:
    trial = Trial(ReferenceTarget, {"racers": 2}, 7)
    races = Races(trial)
    races.cancelled = cancelled
    races.require_one_agent(failures, "callers")
    assert [finding.anomaly for verdict in trial.verdicts for finding in verdict.findings] == [anomaly]
