"""The content of run.json, and its reader: by its declared shape, or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final, NotRequired, TypedDict, cast

import msgspec

from lab_utils.output.store.files import read
from lab_utils.output.store.results import StoreError
from lab_utils.values.decoding import decodable

__all__ = ["FORMAT", "CheckRecord", "Git", "Process", "Provenance", "RunRecord", "read_record", "reason"]

FORMAT: Final = 1


class Git(TypedDict):
    """The commit of the lab's own tree, and whether the tree was clean; None where git did not say."""

    commit: str | None
    clean: bool | None


class Machine(TypedDict):
    """The machine of the run."""

    system: str
    release: str
    architecture: str
    processor: str | None
    cpus: int | None
    memory_bytes: int


class Provenance(TypedDict):
    """The code and the packages of the run. `git` is None where the lab does not run from a clone."""

    git: Git | None
    python: str
    implementation: str
    packages: dict[str, str]
    machine: Machine


class CategoryRecord(TypedDict):
    """A category that was to be run."""

    name: str
    question: str
    notebook: str


class CheckRecord(TypedDict):
    """A check that was to be run."""

    check: str
    category: str
    claim: str
    looks_like: NotRequired[str]
    protects: str


class NotebookRecord(TypedDict):
    """How a notebook ended."""

    status: str
    seconds: float
    message: str


class Process(TypedDict):
    """The process that makes the run: its number, and when it was made in seconds since 1970."""

    pid: int
    created: float


class Calibrated(TypedDict):
    """How many planted registries there were, and how many of them were caught."""

    planted: int
    caught: int


class KnownRecord(TypedDict):
    """A finding that passed as known: why, and until when ("" for ever)."""

    check: str
    fingerprint: str
    reason: str
    expires: str


class BaselineRecord(TypedDict):
    """The judge of the run, and the number of findings of each kind that did not pass."""

    source: str
    known: list[KnownRecord]
    new: int
    expired: int
    regressions: int
    gone: int


class RunRecord(TypedDict):
    """The record of a run. Optional fields are added as the run goes on, or may be missing in an older one.

    `only_checks` names the checks that were asked for alone; it is empty where all of the categories were. `shard`:
    their share of all checks, as `2/3`. `seconds`: how long each check took. `lab`: its version, with a digest of its
    code. `resumed_from`, `merged_from`: the runs whose results were taken over.
    """

    format: int
    run_id: str
    status: str
    started_at: str
    finished_at: str | None
    command: str
    target: str
    profile: str
    seed: int
    categories: list[str]
    only_checks: NotRequired[list[str]]
    parameters: dict[str, dict[str, int | float | str | bool]]
    catalog: list[CategoryRecord]
    checks: list[CheckRecord]
    files: dict[str, str]
    kernel_mode: str
    calibrate: NotRequired[str]
    lab: NotRequired[str]
    provenance: Provenance
    process: Process
    notebooks: NotRequired[dict[str, NotebookRecord]]
    outcomes: NotRequired[dict[str, int]]
    calibrated: NotRequired[Calibrated]
    baseline: NotRequired[BaselineRecord]
    seconds: NotRequired[dict[str, float]]
    shard: NotRequired[str]
    resumed_from: NotRequired[str]
    merged_from: NotRequired[list[str]]


def reason(error: BaseException) -> str:
    """The error's text without the path of a file, for pages that are given to others."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


decodable(RunRecord)


def read_record(folder: Path) -> RunRecord:
    """Read run.json. Raises `StoreError`, which names a newer format, or the place that does not fit."""
    # Not the whole path: a run's fault stands in the list of runs, which may be given to others.
    path = (folder / "run.json").relative_to(folder.parent)
    try:
        data = json.loads(read(folder / "run.json"))
        form = data.get("format") if isinstance(data, dict) else None
        if isinstance(form, int) and form != FORMAT:
            raise StoreError(
                f"{path} has format {form}, this version reads {FORMAT}; read it with the version that wrote it"
            )
        msgspec.convert(data, RunRecord)
    except (OSError, ValueError, RecursionError, msgspec.ValidationError) as error:
        raise StoreError(f"{path} is not a run of this version: {reason(error)}") from error
    # The data as it is: fields that somebody else has added stay.
    return cast(RunRecord, data)
