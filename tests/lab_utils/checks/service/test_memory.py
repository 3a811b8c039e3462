"""A run that its caller has dropped may hold its session for a while: such runs pile up, and are no leak once all is
given back."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

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


def test_what_dropped_runs_hold_for_an_hour_is_kept(tmp_path: Path) -> None:
    result = memory(tmp_path, 3_600.0, 1.0)
    assert {finding.anomaly for finding in result.verdict.findings} == {"memory-kept"}, result.verdict
    assert any("after a rest" in line for line in result.verdict.findings[0].witness)
