"""Breaks and restarts alone: a new process that lets a client go on as if nothing had been is found by its own name."""

from __future__ import annotations

import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("websockets")

from lab_utils.checks.events.faults import breaks_and_restarts
from lab_utils.targets import make_target
from lab_utils.trial import Trial
from lab_utils.values.verdict import Outcome, Verdict
from tests.lab_utils.made import conducted

USERS = ["ada", "grace"]
"""One comes back to a process that has emitted nothing, the other to one that has emitted as much as they had."""


def judged(name: str) -> tuple[Trial, Verdict]:
    trial = Trial(lambda: make_target(name), {"transport": "websocket"}, 5, stuck_after=30.0)
    return trial, conducted(trial, breaks_and_restarts(trial, USERS))


def test_a_restart_that_nobody_was_told_of_is_found_for_each_user() -> None:
    findings = judged("RestartKeepsStreamName")[1].findings
    assert [finding.anomaly for finding in findings] == ["undetected-restart"] * len(USERS)
    for user, finding in zip(USERS, sorted(findings, key=lambda one: one.sentence), strict=True):
        assert finding.sentence.startswith(f"the phone of {user!r} came back to a new process with number ")
        assert all(f" client of {user}:" in line for line in finding.witness)


def test_a_restart_that_everybody_is_told_of_is_none() -> None:
    trial, verdict = judged("agent_registry")
    assert verdict.outcome is Outcome.PASS
    counts = {one.metric: one.value for one in trial.measurements}
    assert counts["clients warned of a new process"] == len(USERS)
