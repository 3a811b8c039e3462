"""The whole flow on a user's own records: judged by a second reading, calibrated on made-up ones, lazy throughout."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import pytest

pytest.importorskip("pandas")

from lab_utils.checks.golden_path.records import flow_records
from lab_utils.runner import run_check, runner, was_caught
from lab_utils.target import Command, Recipe, Row
from lab_utils.targets.agent_registry import AgentRegistryTarget
from lab_utils.trial import Trial
from lab_utils.usage import expected_figures_frame
from lab_utils.values.profiles import parameters_for
from lab_utils.values.result import CheckResult, encode
from lab_utils.values.verdict import Outcome

CHECK = "complete_agent_orchestration_flow_per_user"
NAMES = ("at", "model", "tokens_in", "tokens_out", "latency_ms", "cost_usd", "feature", "user_id")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Records of four users; the first holds more than a session reads before it opens its database."""
    rng = random.Random(5)
    path = tmp_path / "own.csv"
    with path.open("w") as file:
        file.write(",".join(("team", *NAMES)) + "\n")
        for number in range(1_600):
            user = ("acme", "acme:1", "ACME", "7")[number % 4 if number < 400 else 0]
            at = f"2026-0{rng.randrange(1, 10)}-1{rng.randrange(10)}T0{rng.randrange(10)}:00:00+02:00"
            tokens = f"{rng.randrange(5)}00,{rng.randrange(3)}00"
            file.write(f"x,{at},m{rng.randrange(3)},{tokens},{rng.random() * 4_000},{rng.random() / 30},,{user}\n")
    return path


def checked(path: Path, target: str = "agent_registry") -> CheckResult:
    given: dict[str, Any] = {"usage_csv": str(path), "transport": "inprocess"}
    return run_check(CHECK, target=target, parameters=given, in_process=True)


def test_the_registry_passes_on_own_records_and_the_result_says_which(own: Path) -> None:
    result = checked(own)
    assert result.outcome is Outcome.PASS, (result.verdict, result.traceback)
    measured = {one.metric: one.value for one in result.measurements}
    assert (measured["users at once"], measured["reports right"]) == (4, 1.0)
    assert measured["figures recomputed"] > 4 * 100
    notes = "\n".join(result.notes)
    assert f"1,600 records of 4 users from {own.name} (SHA-256 " in notes
    assert str(own.parent) not in encode(replace(result, operations=())).decode()
    assert "columns that mean nothing here: team" in notes
    assert "users and records_per_user count for the calibration alone" in notes
    assert "hold no canaries" in notes


def test_a_defect_is_found_in_own_records_as_well(own: Path) -> None:
    result = checked(own, "RowsOfFirstUser")
    assert result.outcome is Outcome.FAIL
    assert was_caught(result)
    assert "wrong-figure" in {finding.anomaly for finding in result.verdict.findings}


def test_the_calibration_is_on_made_up_records(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(runner, "run_check", lambda name, **given: asked.append(given["parameters"]))
    monkeypatch.setattr(runner, "was_caught", lambda result: True)
    runner.calibrate(CHECK, parameters={"usage_csv": "own.csv", "users": 3})
    assert asked == [{"users": 3}] * len(asked)
    assert asked


def test_a_malformed_file_is_unknown_and_says_where(own: Path) -> None:
    with own.open("a") as file:
        file.write("x,y\n")
    result = checked(own)
    assert result.outcome is Outcome.UNKNOWN
    assert "own.csv: line 1602: 2 fields" in result.verdict.reason


def test_readings_that_differ_judge_nothing(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expected_figures_frame.FrameFigures, "users", {"acme": 1})
    result = checked(own)
    assert result.outcome is Outcome.UNKNOWN
    assert "two readings of" in result.verdict.reason


def test_a_long_file_is_given_the_time_that_it_needs(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = parameters_for("golden_path", "smoke", {"usage_csv": str(own)})
    trial = Trial(AgentRegistryTarget, parameters, 1, stuck_after=0.1)
    with flow_records(trial) as records:
        assert trial.waiting.stuck_after == 1_600 * 5e-4
        *users, unlucky = records.rows
        assert users == ["acme", "acme:1", "ACME", "7"]
        assert unlucky not in users
        assert records.canaries == 0
    patient = Trial(AgentRegistryTarget, parameters, 1, stuck_after=30.0)
    with flow_records(patient):
        assert patient.waiting.stuck_after == 30.0


class Counted(Sequence[Row]):
    """Rows that count how often they were read through."""

    def __init__(self, rows: list[Row]) -> None:
        self.reads = 0
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        self.reads += 1
        return iter(self._rows)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | Sequence[Row]:
        raise AssertionError("nobody needs a single row")


async def test_the_target_reads_lazy_rows_when_a_session_needs_them_and_only_its_own() -> None:
    row = {"at": "2026-01-31T12:00:00Z", "model": "m", "tokens_in": 1, "tokens_out": 2, "latency_ms": 1.0}
    ada, bob = (Counted([row | {"cost_usd": cost}] * 1_500) for cost in (1.0, 2.0))

    async def scenario() -> list[float]:
        target = AgentRegistryTarget()
        await target.start([Recipe("helper")], {"ada": ada, "bob": bob, "eve": []}, 1.0)
        try:
            assert (ada.reads, bob.reads) == (0, 0)
            totals = []
            for user in ("ada", "ada", "eve", "nobody"):
                handle = await target.create(user, "helper")
                totals.append(
                    await target.run(handle, Command("tool", {"name": "total", "parameters": {"column": "cost_usd"}}))
                )
            return totals
        finally:
            await target.stop()

    assert await scenario() == [1_500.0, 1_500.0, 0.0, 0.0]
    assert (ada.reads, bob.reads) == (1, 0)
