"""Makes each frame from results: one function a frame."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import sub
from pathlib import Path
from typing import Any, Final, Protocol

import pandas as pd

from lab_utils.output.frames.columns import FRAMES, checked_columns, fill, fill_columns, which
from lab_utils.output.frames.found import findings, involved
from lab_utils.output.frames.words import budget_of
from lab_utils.values.history import Op, Operations
from lab_utils.values.result import CheckResult
from lab_utils.values.texts import shown, worded

__all__ = [
    "Calibrated",
    "OperationsFile",
    "calibrations",
    "findings",
    "frames_of",
    "involved",
    "measurements",
    "operations",
    "samples",
    "verdicts",
]

_LONGEST_VALUE: Final = 200
_LONGEST_REASON: Final = 300
_PART: Final = 50_000


class Calibrated(Protocol):
    """One run of a check against a planted registry, as the store keeps it."""

    @property
    def planted(self) -> str: ...
    @property
    def defect(self) -> str: ...
    @property
    def expected(self) -> tuple[str, ...]: ...
    @property
    def caught(self) -> bool: ...
    @property
    def result(self) -> CheckResult: ...
    @property
    def made_at(self) -> str: ...
    @property
    def made_by(self) -> str: ...


def measurements(run: str, results: Iterable[CheckResult]) -> pd.DataFrame:
    """One row a measurement; a metric with an asked and a lab budget has two. Without a budget, limit is NaN."""
    return fill(
        "measurements",
        (
            {
                **which(run, result),
                "metric": measured.metric,
                "value": measured.value,
                "unit": measured.unit,
                "comparison": measured.budget.comparison if measured.budget else "",
                "limit": measured.budget.limit if measured.budget else float("nan"),
                "budget_source": measured.budget.source if measured.budget else "",
                "decides": measured.decides and measured.budget is not None,
                "verdict": measured.outcome.value if measured.outcome else "",
                "budget": budget_of(measured.budget, measured.unit),
            }
            for result in results
            for measured in result.measurements
        ),
    )


def operations(run: str, results: Iterable[CheckResult]) -> pd.DataFrame:
    """One row an operation, in the order of invocation within a check; `latency` in seconds."""
    return pd.concat(list(_operations(run, results)), ignore_index=True)


def _operations(run: str, results: Iterable[CheckResult]) -> Iterator[pd.DataFrame]:
    """The frame of operations in parts of some thousand rows; the first part is empty."""
    yield fill("operations", ())
    for columns in _parts(run, results):
        yield fill_columns("operations", columns)


def _parts(run: str, results: Iterable[CheckResult]) -> Iterator[dict[str, Sequence[Any]]]:
    for result in results:
        kept = result.operations if isinstance(result.operations, Operations) else Operations(result.operations)
        for start in range(0, len(kept), _PART):
            yield _columns(run, result, kept, slice(start, start + _PART))


def _columns(run: str, result: CheckResult, kept: Operations, rows: slice) -> dict[str, Sequence[Any]]:
    field = {name: kept.column(name)[rows] for name in Op.__struct_fields__}
    start, end = field.pop("start_s"), field.pop("end_s")
    changed = {
        "type": list(map(str.__str__, field["type"])),
        "start": start,
        "end": end,
        "latency": list(map(sub, end, start)),
        # The most by far are short texts, and a call for each of a million would take as long as writing them.
        "value": [one if type(one) is str and len(one) <= _LONGEST_VALUE else _shown(one) for one in field["value"]],
    }
    return {**which(run, result), **field, **changed}


def _shown(value: Any) -> str:
    text = "" if value is None else value if isinstance(value, str) else worded(repr, value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


class OperationsFile:
    """The frame of a run's operations, which is written part by part and never in memory as a whole."""

    def __init__(self, run: str, results: Iterable[CheckResult]) -> None:
        self._run = run
        self._results = tuple(results)

    def to_parquet(self, path: Path) -> None:
        """Write the same file as `operations(...).to_parquet(path)`, but for the size of its parts."""
        # A kernel shows frames and writes none.
        import pyarrow as pa
        import pyarrow.parquet as pq

        # Its schema is that of an empty frame, with all that pandas adds to read it back.
        fill("operations", ()).to_parquet(path)
        schema = pq.read_schema(path)
        # Values differ from row to row: a dictionary of them would be made in vain.
        names = [column.name for column in FRAMES["operations"] if column.dtype == "str" and column.name != "value"]
        with pq.ParquetWriter(path, schema, use_dictionary=names) as writer:
            for part in _parts(self._run, self._results):
                # Not by a frame of pandas, which would double the time.
                rows, columns = checked_columns("operations", part)
                arrays = [
                    pa.repeat(pa.scalar(column, kind), rows) if isinstance(column, str) else pa.array(column, kind)
                    for column, kind in zip(columns.values(), schema.types, strict=True)
                ]
                writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def verdicts(run: str, results: Iterable[CheckResult]) -> pd.DataFrame:
    """One row a check; `duration` in seconds."""
    return fill(
        "verdicts",
        (
            {
                **which(run, result),
                "profile": result.profile,
                "seed": result.seed,
                "verdict": result.outcome.value,
                "reason": result.verdict.reason,
                "findings": len(result.verdict.findings),
                "measurements": len(result.measurements),
                "operations": len(result.operations),
                "duration": result.duration_s,
                "started_at": result.started_at,
                "claim": result.claim,
                "protects": result.protects,
                "notes": "\n".join(result.notes),
                "traceback": result.traceback,
                "printed": result.printed,
            }
            for result in results
        ),
    )


def samples(run: str, results: Iterable[CheckResult]) -> pd.DataFrame:
    """One row a point of a series; `at` is seconds since the trial began.

    `attrs["verdicts"]` has the verdict of each check, so that no figure of its samples contradicts it.
    """
    kept = tuple(results)
    filled = fill(
        "samples",
        (
            {
                **which(run, result),
                **{name: getattr(sample, name) for name in ("series", "value", "unit", "phase", "x", "y")},
                "at": sample.at_s,
            }
            for result in kept
            for sample in result.samples
        ),
    )
    verdicts = {result.check: f"{result.outcome}: {shown(result.verdict.reason, _LONGEST_REASON)}" for result in kept}
    filled.attrs["verdicts"] = verdicts
    return filled


def calibrations(run: str, calibrated: Iterable[Calibrated]) -> pd.DataFrame:
    """One row a planted registry; `caught`: whether the check failed on it with the planted anomaly."""
    return fill("calibrations", (_calibration(run, one) for one in calibrated))


def _calibration(run: str, one: Calibrated) -> dict[str, Any]:
    found = one.result.verdict.findings
    # The planted anomaly's own witness shows more than that of one it caused.
    shown = next((finding for finding in found if finding.anomaly in one.expected), found[0] if found else None)
    return {
        **which(run, one.result),
        "planted": one.planted,
        "defect": one.defect,
        "expected": " or ".join(one.expected),
        "verdict": one.result.outcome.value,
        "caught": one.caught,
        "anomalies": ", ".join(dict.fromkeys(finding.anomaly for finding in found)),
        "reason": one.result.verdict.reason,
        "sentence": shown.sentence if shown else "",
        "witness": "\n".join(shown.witness) if shown else "",
        "duration": one.result.duration_s,
        "made_at": one.made_at,
        "made_by": one.made_by,
    }


_MAKERS: Final[Mapping[str, Callable[[str, Iterable[CheckResult]], pd.DataFrame]]] = {
    "measurements": measurements,
    "verdicts": verdicts,
    "findings": findings,
    "involved": involved,
    "samples": samples,
}


def frames_of(
    run: str, results: Iterable[CheckResult], calibrated: Iterable[Calibrated] = ()
) -> dict[str, pd.DataFrame]:
    """Every frame of a run by name, but that of its operations, which may be long: see `OperationsFile`."""
    kept = tuple(results)
    return {**{name: make(run, kept) for name, make in _MAKERS.items()}, "calibrations": calibrations(run, calibrated)}
