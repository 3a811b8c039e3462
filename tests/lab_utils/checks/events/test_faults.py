"""Breaks and restarts alone: a new process that lets a client go on as if nothing had been is found by its own name."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("websockets")

from lab_utils.checks.events.faults import breaks_and_restarts
from lab_utils.targets import make_target
from lab_utils.trial import Trial
from lab_utils.values.verdict import Outcome, Verdict

USERS = ["ada", "grace"]
"""One comes back to a process that has emitted nothing, the other to one that has emitted as much as they had."""


def judged(name: str, stuck_after: float = 30.0) -> Trial:
    trial = Trial(lambda: make_target(name), {"transport": "websocket"}, 5, stuck_after=stuck_after)

    async def conduct() -> None:
        try:
            await breaks_and_restarts(trial, USERS)
        finally:
            await trial.stop_all()

    asyncio.run(conduct())
    return trial


def test_a_restart_that_nobody_was_told_of_is_found_for_each_user() -> None:
    findings = Verdict.combined(judged("RestartKeepsStreamName").verdicts).findings
    assert [finding.anomaly for finding in findings] == ["undetected-restart"] * len(USERS)
    for user, finding in zip(USERS, sorted(findings, key=lambda one: one.sentence), strict=True):
        assert finding.sentence.startswith(f"the phone of {user!r} came back to a new process with number ")
        assert all(f" client of {user}:" in line for line in finding.witness)


@pytest.mark.parametrize(
    ("name", "anomaly"),
    [
        ("DuplicateAfterReconnect", "duplicate-event"),
        ("ForgetsMissed", "lost-event"),
        ("AckOfOneDevicePrunes", "lost-event"),
    ],
)
def test_what_a_break_in_a_run_costs_a_client_is_found(name: str, anomaly: str) -> None:
    assert anomaly in {finding.anomaly for finding in Verdict.combined(judged(name, 1.0).verdicts).findings}


def test_a_restart_that_everybody_is_told_of_is_none() -> None:
    trial = judged("agent_registry")
    assert Verdict.combined(trial.verdicts).outcome is Outcome.PASS
    counts = {one.metric: one.value for one in trial.measurements}
    assert counts["clients told of a new process"] == len(USERS)
