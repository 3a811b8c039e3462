"""Trials conducted and results made by hand, for the tests of findings and of the code that formats and keeps them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, cast

from lab_utils.output.store import Calibration, CategoryResults, RunRecord, Store, save_category
from lab_utils.trial import Trial
from lab_utils.values.history import Op, OpType
from lab_utils.values.profiles import CATEGORIES, parameters_for
from lab_utils.values.result import Budget, CheckResult, Measurement, Sample
from lab_utils.values.verdict import Finding, Verdict

CATEGORY = "user_isolation"
HOSTILE = "<script>alert(1)</script>\x1b[31m\x00 $15K+ | `x` \ud800"
LEAK = Finding(
    "canary-leak", "bo read what ada wrote", ("op 3: write ada -> ok 'ada/1'", "op 9: read bo -> ok 'ada/1'")
)


def op(index: int, user: str = "ada", *, took: float = 0.25, action: str = "run", value: Any = None) -> Op:
    """An operation that began `index` seconds after the trial did."""
    return Op(
        index, "c", user, action, "triage", "main", OpType.OK, 2 * index, 2 * index + 1, index, index + took, value
    )


MEASURED = (
    Measurement("growth", 0.42, "MB", Budget("<", 50, "asked")),
    Measurement("growth", 0.42, "MB", Budget("<", 0.5, "lab")),
    Measurement("rss", 70.0, "MB", Budget("<", 50, "asked"), decides=False),
    Measurement("agents", 12, "agents"),
)


def result(check: str = "first", verdict: Verdict | None = None, **fields: Any) -> CheckResult:
    """A result of a check that passed, unless a verdict says otherwise."""
    usual: dict[str, Any] = {
        "check": check,
        "category": CATEGORY,
        "claim": f"{check} holds",
        "protects": "customers' data",
        "target": "agent_registry",
        "profile": "smoke",
        "seed": 7,
        "parameters": parameters_for(CATEGORY, "smoke"),
        "verdict": Verdict.passed("210 pairs compared") if verdict is None else verdict,
        "duration_s": 0.5,
        "started_at": "2026-01-02T03:04:05+00:00",
        "measurements": MEASURED,
        "operations": (op(0), op(1, "bo", value={"rows": [1]})),
        "samples": (Sample("delivered", 3, "events", x="ada", y="ada"),),
    }
    return CheckResult(**{**usual, **fields})


def conducted(trial: Trial, part: Coroutine[Any, Any, None]) -> Verdict:
    """The verdict of one part of a check, on a loop of its own; all that the trial started is stopped."""

    async def main() -> None:
        try:
            await part
        finally:
            await trial.stop_all()

    asyncio.run(main())
    if trial.expectations:
        trial.judge(Verdict.passed("expectations held"))
    return Verdict.combined(trial.verdicts)


def failed(*findings: Finding) -> Verdict:
    """FAIL with these findings."""
    return Verdict.of(findings or (LEAK,), 1, "")


def calibration(check: str = "first", *, caught: bool = True) -> Calibration:
    """A planted registry, caught or missed."""
    verdict = failed(Finding("shared-object", "both hold it", ("ada.tools", "bo.tools"))) if caught else failed(LEAK)
    return Calibration("SharedDispatcher", "one for all", ("shared-object",), result(check, verdict))


def record(**fields: Any) -> RunRecord:
    """The record of a run that has just begun."""
    process = {"pid": 7, "created": 1.5}
    begun = {"format": 1, "run_id": "r1", "status": "running", "started_at": "2026-01-02", "finished_at": None}
    return cast(RunRecord, {**begun, **about(), "process": process, **fields})


def about(*checks: str, category: str = CATEGORY) -> dict[str, Any]:
    """A run's own record when it begins."""
    known = CATEGORIES[category]
    rows = [
        {"check": check, "category": category, "claim": "c", "looks_like": "an outage", "protects": "p"}
        for check in checks or ("first",)
    ]
    provenance: Mapping[str, Any] = {
        "git": {"commit": "0123456789abcdef", "clean": False},
        "python": "3.11.0",
        "implementation": "CPython",
        "packages": {"pandas": "3.1"},
        "machine": {
            "system": "Linux",
            "release": "6",
            "architecture": "x86_64",
            "processor": None,
            "cpus": 2,
            "memory_bytes": 2**33,
        },
    }
    return {
        "command": f"registry-lab run {category} --seed 7",
        "target": "agent_registry",
        "profile": "smoke",
        "seed": 7,
        "categories": [category],
        "parameters": {category: parameters_for(category, "smoke")},
        "catalog": [{"name": category, "question": known.question, "notebook": known.notebook}],
        "checks": rows,
        "files": {category: known.notebook},
        "kernel_mode": "spawned",
        "provenance": provenance,
    }


def finished(
    outputs: Path,
    *results: CheckResult,
    calibrations: tuple[Calibration, ...] = (),
    status: str = "findings",
    **fields: Any,
) -> Path:
    """The folder of a finished run with these results."""
    category = results[0].category
    run = Store(outputs).begin({**about(*(one.check for one in results), category=category), **fields})
    save_category(run.folder, CategoryResults(category, True, results, calibrations))
    return run.finish(status, lambda runs: "")


def notebook(*sources: str) -> str:
    """A notebook of these code cells, of which the first is that of the parameters."""
    usual: dict[str, Any] = {"cell_type": "code", "metadata": {}, "execution_count": None, "outputs": []}
    cells = [{**usual, "id": f"cell-{number}", "source": source} for number, source in enumerate(sources)]
    cells[0]["metadata"] = {"tags": ["parameters"]}
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return json.dumps({"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5})
