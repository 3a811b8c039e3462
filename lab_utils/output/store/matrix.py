"""The matrix of frameworks and anomalies: made from the results of runs, kept as JSON, one such record with the lab."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final

import msgspec

from lab_utils.checks import CHECKS
from lab_utils.judges.anomalies import severity
from lab_utils.output.store.files import read
from lab_utils.output.store.results import StoreError
from lab_utils.targets import PLANTED
from lab_utils.values.decoding import decodable
from lab_utils.values.result import REST_OF_THE_CHECK, CheckResult
from lab_utils.values.verdict import REPLAY, Outcome

__all__ = [
    "LEGEND",
    "RECORD",
    "Cell",
    "Cost",
    "Found",
    "Judged",
    "Matrix",
    "Row",
    "cell",
    "found_anomalies",
    "read_matrix",
    "row_of",
    "written_matrix",
]

RECORD: Final = Path(__file__).with_name("frameworks.json")
"""The recorded matrix that comes with the lab."""

FORMAT: Final = 1
_ENDS_A_CHECK: Final = frozenset({"process-died", "loop-blocked", "never-ends", "failed-operation"})
"""Findings after which a check goes no further, or not for every user."""
_COUNT: Final = "budget-exceeded"
_MOST_WITNESSES: Final = 8
_LONGEST: Final = 240


class Found(msgspec.Struct, frozen=True):
    """The first finding of an anomaly, and how many there were of it."""

    check: str
    sentence: str
    witness: tuple[str, ...]
    count: int


class Judged(msgspec.Struct, frozen=True, omit_defaults=True):
    """One check on one target. `in_part`: a part of the check was left out, for want of a capability or of time.
    `ended_early`: what follows its last finding was left out."""

    outcome: Outcome
    anomalies: tuple[str, ...] = ()
    in_part: bool = False
    ended_early: bool = False


class Cost(msgspec.Struct, frozen=True):
    """Processor time a user in microseconds, and traced bytes; None where the target has no such call.

    `floor`: the same calls of a plain dict with a lock for each user, in the same process, in turns.
    """

    create_us: float
    get_us: float | None
    end_us: float | None
    live_bytes: float
    left_bytes: float | None
    floor_create_us: float
    floor_get_us: float
    floor_end_us: float


class Row(msgspec.Struct, frozen=True):
    """One target: the findings of each check on it, and the environment in which it ran. `packages` has every
    version."""

    target: str
    version: str
    python: str
    made_on: str
    profile: str
    seed: int
    checks: dict[str, Judged]
    found: dict[str, Found]
    cost: Cost | None = None
    packages: dict[str, str] = {}


class Matrix(msgspec.Struct, frozen=True):
    """Rows of targets, our own registry first."""

    format: int
    rows: tuple[Row, ...]

    def row(self, target: str) -> Row | None:
        """The row of a target, None for none."""
        return next((row for row in self.rows if row.target == target), None)


decodable(Matrix)

_SIGNS: Final = {Outcome.PASS: "✓", Outcome.FAIL: "✗", Outcome.UNKNOWN: "?", Outcome.NOT_APPLICABLE: "–"}
LEGEND: Final = (
    "✓ PASS, (✓) PASS in part, ? UNKNOWN, – not applicable. ✗ FAIL: p breaks its own promise, u an unsafe default, "
    "a left to the app."
)


class Cell(msgspec.Struct, frozen=True):
    """One anomaly on one target. `checks`: those that look for it and apply. `in_part`: one of them left a part out."""

    outcome: Outcome
    checks: tuple[str, ...] = ()
    in_part: bool = False
    found: Found | None = None

    def __str__(self) -> str:
        is_limited = self.in_part and self.outcome is Outcome.PASS
        return f"{self.outcome.replace('_', ' ')}{' in part' if is_limited else ''}"

    @property
    def sign(self) -> str:
        """The cell in a few letters: ✓, (✓) for a PASS in part, ✗, ? for UNKNOWN, and – where nothing applies."""
        return f"({_SIGNS[self.outcome]})" if str(self).endswith("in part") else _SIGNS[self.outcome]


def row_of(
    results: Iterable[CheckResult],
    *,
    target: str,
    version: str,
    python: str,
    made_on: str,
    cost: Cost | None = None,
    packages: Mapping[str, str] | None = None,
) -> Row:
    """Make a row of a run's results."""
    every = list(results)
    found: dict[str, Found] = {}
    for result in every:
        for finding in result.verdict.findings:
            anomaly = finding.anomaly
            if anomaly in found:
                found[anomaly] = msgspec.structs.replace(found[anomaly], count=found[anomaly].count + 1)
            # A count of things that the check's other findings are about is not a finding of its own.
            elif anomaly != _COUNT or all(one.anomaly == _COUNT for one in result.verdict.findings):
                witness = tuple(line[:_LONGEST] for line in finding.witness if not line.startswith(REPLAY))
                found[anomaly] = Found(result.check, finding.sentence, witness[:_MOST_WITNESSES], 1)
    return Row(
        target=target,
        version=version,
        python=python,
        made_on=made_on,
        profile=every[0].profile if every else "",
        seed=every[0].seed if every else 0,
        checks={result.check: judged(result) for result in every},
        found={anomaly: found[anomaly] for anomaly in sorted(found, key=severity)},
        cost=cost,
        packages=dict(packages or {}),
    )


def judged(result: CheckResult) -> Judged:
    """The summary of a result, without its evidence."""
    anomalies = tuple(sorted({finding.anomaly for finding in result.verdict.findings}))
    is_in_part, ended_early = "Not part of this result" in result.claim, REST_OF_THE_CHECK in result.claim
    return Judged(result.outcome, anomalies, is_in_part, ended_early)


def cell(matrix: Matrix, row: Row, anomaly: str) -> Cell:
    """Judge one anomaly on one target by the checks that look for it: those that are calibrated on a planted registry
    with this anomaly, and those that found it on any target of the matrix.

    FAIL if one found it. Else UNKNOWN if one came to no verdict, or ended early; PASS if one ran; NOT_APPLICABLE if
    none did.
    """
    lookers = {*_calibrated(anomaly), *(name for one in matrix.rows for name in _finders(one, anomaly))}
    applied = {
        name: row.checks[name]
        for name in sorted(lookers)
        if name in row.checks and row.checks[name].outcome is not Outcome.NOT_APPLICABLE
    }
    if anomaly in row.found:
        return Cell(Outcome.FAIL, tuple(applied), found=row.found[anomaly])
    if not applied:
        return Cell(Outcome.NOT_APPLICABLE)
    has_no_verdict = any(
        one.outcome is Outcome.UNKNOWN or one.ended_early or _ENDS_A_CHECK & {*one.anomalies}
        for one in applied.values()
    )
    outcome = Outcome.UNKNOWN if has_no_verdict else Outcome.PASS
    return Cell(outcome, tuple(applied), in_part=any(one.in_part for one in applied.values()))


def found_anomalies(matrix: Matrix) -> list[str]:
    """Each anomaly that was found on any target, the most serious first."""
    return sorted({anomaly for row in matrix.rows for anomaly in row.found}, key=severity)


def _finders(row: Row, anomaly: str) -> Sequence[str]:
    return [name for name, one in row.checks.items() if anomaly in one.anomalies]


@cache
def _calibrated(anomaly: str) -> frozenset[str]:
    return frozenset(
        name for name, check in CHECKS.items() if any(anomaly in PLANTED[one].anomalies for one in check.planted)
    )


def written_matrix(matrix: Matrix) -> bytes:
    """The matrix as JSON, with a line for each value, so that two records can be compared."""
    return msgspec.json.format(msgspec.json.encode(matrix), indent=1) + b"\n"


def read_matrix(path: Path = RECORD) -> Matrix:
    """Read it back. Raises `StoreError`, which names the file and the place that does not fit."""
    try:
        matrix = msgspec.json.decode(read(path), type=Matrix)
    except (OSError, msgspec.DecodeError) as error:
        raise StoreError(f"{path.name} is no matrix of frameworks: {error}; `make frameworks` writes one") from error
    if matrix.format != FORMAT:
        raise StoreError(f"{path.name} has format {matrix.format}, this version reads {FORMAT}")
    return matrix
