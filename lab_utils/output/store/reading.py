"""Reads runs back, finished or not."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from lab_utils.output.store.files import read
from lab_utils.output.store.record import CheckRecord, Process, RunRecord, read_record, reason
from lab_utils.output.store.results import Calibration, StoreError, load_category
from lab_utils.values.digest import Digest, read_digest
from lab_utils.values.quantities import counted
from lab_utils.values.result import CheckResult
from lab_utils.values.verdict import Verdict

__all__ = [
    "DIGEST",
    "GRID",
    "LATEST",
    "PARTIAL",
    "RUN_VARIABLE",
    "Run",
    "Summary",
    "find_run",
    "open_run",
    "place",
    "read_run",
    "summaries",
]

DIGEST: Final = "digest.json"
LATEST: Final = "latest"
PARTIAL: Final = ".partial"
GRID: Final = "grid.json"
RUN_VARIABLE: Final = "REGISTRY_LAB_RUN"


@dataclass(frozen=True, slots=True)
class Run:
    """A run as it was read: `about` is run.json; a check that left no result is there as UNKNOWN."""

    folder: Path
    about: RunRecord
    results: tuple[CheckResult, ...]
    calibrations: tuple[Calibration, ...]

    @property
    def run_id(self) -> str:
        return self.about["run_id"]


@dataclass(frozen=True, slots=True)
class Summary:
    """One line of the list of runs. `state`: passed, findings, error, cancelled, running, interrupted, unreadable.

    `about` is None for an unreadable one, and `why` names its fault. It is None for a grid of runs, too, which has its
    `page`, its subject in `why`, the verdicts of all its runs in `outcomes`, and its `times`: when it began and ended.
    """

    run_id: str
    folder: str
    state: str
    about: RunRecord | None
    why: str = ""
    path: Path | None = None
    page: str = ""
    outcomes: Mapping[str, int] = field(default_factory=dict)
    times: tuple[str | None, str | None] = (None, None)

    @property
    def digest(self) -> Digest | None:
        """The run's digest for comparisons; None for a run without one, as of an earlier version."""
        try:
            return read_digest(read(self.path / DIGEST)) if self.path else None
        except (OSError, ValueError):
            return None


def place(text: str) -> Path:
    """The path that `text` names; `$REGISTRY_LAB_RUN` at its beginning is the folder of the run this kernel serves.

    A notebook that is kept with its parameters names the run so: the folder is renamed when the run ends, and a person
    who receives the notebook has none of that name. Raises `StoreError` where this kernel serves no run.
    """
    beginning, *parts = Path(text).parts or (text,)
    if beginning != f"${RUN_VARIABLE}":
        return Path(text)
    if not (folder := os.environ.get(RUN_VARIABLE)):
        raise StoreError(f"{text} is known only while `registry-lab run` runs; name a folder, or leave it as it was")
    return Path(folder, *parts)


def summaries(outputs: Path) -> list[Summary]:
    """Every run of the folder, newest first, unfinished and unreadable ones and grids of runs included."""
    folders = [path for path in outputs.iterdir() if path.is_dir() and not path.is_symlink()]
    found = [_summary(path) for path in folders if (path / "run.json").exists() or path.name.endswith(PARTIAL)]
    found += [_grid(path) for path in folders if (path / GRID).exists()]
    return sorted(found, key=lambda run: run.run_id.removeprefix("grid-"), reverse=True)


def _grid(folder: Path) -> Summary:
    try:
        about = json.loads(read(folder / GRID))
        state = str(about["status"])
        if state == "running" and not _alive(about["process"]):
            state = "interrupted"
        runs = about["repeats"] * math.prod(len(axis["values"]) for axis in about["axes"])
        of = f"{counted(runs, 'run')}: {about['target']}, {about['profile']}, {about['command']}"
        # A grid of an earlier version, or one under way, has no outcomes.
        outcomes = {str(word): int(count) for word, count in about.get("outcomes", {}).items()}
        times = str(about["started_at"]), str(about["finished_at"] or "")
    except (OSError, AttributeError, ValueError, KeyError, TypeError, RecursionError) as error:
        return Summary(folder.name, folder.name, "unreadable", None, f"{type(error).__name__}: {reason(error)}")
    page = f"{folder.name}/index.html"
    return Summary(folder.name, folder.name, state, None, of, page=page, outcomes=outcomes, times=times)


def _summary(folder: Path) -> Summary:
    run_id = folder.name.removesuffix(PARTIAL)
    try:
        about = read_record(folder)
    except StoreError as error:
        return Summary(run_id, folder.name, "unreadable", None, str(error), folder)
    state = about["status"]
    if state == "running" and not _alive(about["process"]):
        state = "interrupted"
    # A folder that still has its working name was never finished, whatever its record says.
    if folder.name.endswith(PARTIAL) and state not in ("running", "cancelled", "error"):
        state = "interrupted"
    return Summary(run_id, folder.name, state, about, path=folder)


def _alive(process: Process) -> bool:
    try:
        return abs(psutil.Process(process["pid"]).create_time() - process["created"]) < 1.0
    except (psutil.Error, ValueError, OverflowError):
        return False


def find_run(outputs: Path, name: str = LATEST) -> Path:
    """The folder of a finished run, by its name or as `latest`. Raises `StoreError`, naming the runs that there are."""
    place = outputs / name
    if name == LATEST and place.is_file():
        place = outputs / place.read_text(encoding="utf-8").strip()
    if not (place / "run.json").is_file():
        known = [run.folder for run in summaries(outputs) if not run.page] if outputs.is_dir() else []
        there = (
            f"there is {', '.join(known[:5])}" if known else "no run was made there yet; `registry-lab run` makes one"
        )
        raise StoreError(f"no run {name!r} in {outputs}; {there}; name one elsewhere by the path of its folder")
    return place.resolve()


def open_run(outputs: Path, name: str) -> Run:
    """Read a run by the path of its folder, or by its name below `outputs`, an unfinished one too; `latest` is the last
    finished one. Raises `StoreError`, naming the runs that there are."""
    for folder in (Path(name), outputs / f"{name}{PARTIAL}"):
        if name != LATEST and (folder / "run.json").is_file():
            return read_run(folder.resolve())
    return read_run(find_run(outputs, name))


def read_run(folder: Path) -> Run:
    """Read a run, finished or not: every check it was to run, in order; one without a readable result is UNKNOWN.

    Raises `StoreError` for a folder whose run.json is not there or cannot be read.
    """
    about = read_record(folder)
    expected = {row["check"]: row for row in about["checks"]}
    found: dict[str, CheckResult] = {}
    calibrations: list[Calibration] = []
    why: dict[str, str] = {}
    for category in about["categories"]:
        ended = about.get("notebooks", {}).get(category)
        why[category] = f"it left no result; how its notebook ended: {ended['status'] if ended else 'not started'}"
        try:
            loaded = load_category(folder, category)
        except StoreError as error:
            why[category] = str(error)
            continue
        if loaded is not None:
            found |= {result.check: result for result in loaded.results}
            calibrations += loaded.calibrations
    results = {check: found.get(check) or _absent(about, row, why[row["category"]]) for check, row in expected.items()}
    return Run(folder, about, tuple((results | found).values()), tuple(calibrations))


def _absent(about: RunRecord, row: CheckRecord, reason: str) -> CheckResult:
    return CheckResult(
        check=row["check"],
        category=row["category"],
        claim=row["claim"],
        protects=row["protects"],
        target=about["target"],
        profile=about["profile"],
        seed=about["seed"],
        parameters=about["parameters"].get(row["category"], {}),
        verdict=Verdict.unknown(reason),
        duration_s=0.0,
        started_at=about["started_at"],
    )
