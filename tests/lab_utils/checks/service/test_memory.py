"""A run that its caller has dropped may hold its session for a while: such runs pile up, and are no leak once all is
given back."""

from __future__ import annotations

import itertools
from pathlib import Path

import msgspec
import pytest

from lab_utils.checks.service import load
from lab_utils.judges.services import limit_of
from lab_utils.probes.tree import Tree
from lab_utils.runner import run_check
from lab_utils.targets.planted.services import planted_file
from lab_utils.values.result import CheckResult
from lab_utils.values.verdict import Outcome

pytest.importorskip("httpx")

HOLDS = '''
import asyncio
import sys

import uvicorn

from lab_utils.service.planted.defects import _SlowToLeavers


class HeldByRuns(_SlowToLeavers):
    """A run of a caller who has left goes on, with its prompt and its session, for {seconds} seconds."""

    async def think(self, session, text):
        held = session, text
        asyncio.get_running_loop().call_later({seconds}, lambda held: None, held)
        return await super().think(session, text)


uvicorn.run(
    HeldByRuns(), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", lifespan="off", ws="none", http="h11"
)
'''
FEW = {"users": 2, "cycles": 6}


def memory(folder: Path, held_s: float, promised_s: float) -> CheckResult:
    """The verdict on a server whose dropped runs hold what they got for so long, and which promises as much."""
    from lab_utils.service.target import ServiceTarget

    script = folder / "server.py"
    script.write_text(HOLDS.replace("{seconds}", str(held_s)))
    service = planted_file("right")
    promises = msgspec.structs.replace(service.promises, run_outlives_caller_s=promised_s)
    command = ("{python}", str(script), "{port}")
    service = msgspec.structs.replace(service, promises=promises, command=command)
    return run_check("service_memory", target=lambda: ServiceTarget(service), parameters=FEW)


def test_what_dropped_runs_hold_for_as_long_as_is_promised_is_not_kept(tmp_path: Path) -> None:
    result = memory(tmp_path, 8.0, 8.0)
    assert result.outcome is Outcome.PASS, result.verdict


def test_where_the_bounds_leave_no_time_for_two_rests_the_verdict_says_so(tmp_path: Path) -> None:
    result = memory(tmp_path, 8.0, 299.0)
    assert result.outcome is Outcome.UNKNOWN
    assert "bounds.seconds = 600 leaves no time for 3 rests of 301 s" in result.verdict.reason


def test_what_dropped_runs_hold_for_an_hour_is_kept(tmp_path: Path) -> None:
    result = memory(tmp_path, 3_600.0, 1.0)
    assert {finding.anomaly for finding in result.verdict.findings} == {"memory-kept"}, result.verdict
    assert any("from one rest to the next" in line for line in result.verdict.findings[0].witness)


@pytest.mark.parametrize(
    ("is_kept", "outcome"), [(True, Outcome.FAIL), (False, Outcome.PASS)], ids=["kept", "an allocator's steps"]
)
def test_where_few_cycles_leave_it_open_a_longer_series_decides(
    is_kept: bool, outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = {**FEW, "payload_kb": 1}
    limit = limit_of(parameters["users"] * 1024.0 * parameters["payload_kb"])
    cycles, rests = itertools.count(), list[int]()

    def tree(_: int) -> Tree:
        # Nothing grows in the cycles without a payload; in the others all goes up and down by more than it grows.
        number = max(0, next(cycles) - FEW["cycles"])
        sway = 8 * (number % 2)
        grown = 3 * (number if is_kept else min(number, 2 * FEW["cycles"]))
        return Tree(1, int(1e8 + limit * (sway + grown - 500 * bool(rests))), 0, 5, 1, 0)

    async def at_once(*_: object) -> None:
        """The first rest gives back more than has been kept: a trim of memory that nobody had used for long."""
        rests.append(1)

    monkeypatch.setattr(load, "tree_now", tree)
    monkeypatch.setattr(load, "_rest", at_once)
    result = run_check("service_memory", target="right_service", parameters=parameters, in_process=True)
    assert result.outcome is outcome, result.verdict
    assert {one.phase for one in result.samples if one.series == "tree:memory"} >= {"series 2", "a longer series"}
