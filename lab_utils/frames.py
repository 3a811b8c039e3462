"""Fills frames with declared columns: one function a frame, and nothing is guessed from the data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import pandas as pd

from lab_utils.history import Op
from lab_utils.result import Budget, CheckResult

__all__ = [
    "FRAMES",
    "Calibrated",
    "Column",
    "FrameError",
    "budget_of",
    "calibrations",
    "fill",
    "findings",
    "frames_of",
    "load",
    "measurements",
    "number",
    "operations",
    "quantity",
    "samples",
    "verdicts",
]

Dtype = Literal["str", "int64", "float64", "bool"]
# A bool is an int to Python; a count that reads True is a mistake, so types are compared exactly.
_TAKES: Final[Mapping[Dtype, tuple[type, ...]]] = {
    "str": (str,),
    "int64": (int,),
    "float64": (float, int),
    "bool": (bool,),
}
_LONGEST_VALUE: Final = 200


class FrameError(ValueError):
    """A row does not fit the declared columns; the message names the frame, the row, the column and the value."""


@dataclass(frozen=True, slots=True)
class Column:
    """One declared column: its name, its dtype, and the unit of its numbers."""

    name: str
    dtype: Dtype
    unit: str = ""


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


_WHICH: Final = (Column("run", "str"), Column("check", "str"), Column("category", "str"), Column("target", "str"))

FRAMES: Final[Mapping[str, tuple[Column, ...]]] = {
    "measurements": (
        *_WHICH,
        Column("metric", "str"),
        Column("value", "float64"),
        Column("unit", "str"),
        Column("comparison", "str"),
        Column("limit", "float64"),
        Column("budget_source", "str"),
        Column("decides", "bool"),
        Column("verdict", "str"),
        Column("budget", "str"),
    ),
    "operations": (
        *_WHICH,
        Column("index", "int64"),
        Column("client", "str"),
        Column("user", "str"),
        Column("action", "str"),
        Column("agent_type", "str"),
        Column("thread", "str"),
        Column("type", "str"),
        Column("invoked", "int64"),
        Column("completed", "int64"),
        Column("start", "float64", unit="s"),
        Column("end", "float64", unit="s"),
        Column("latency", "float64", unit="s"),
        Column("value", "str"),
        Column("error", "str"),
    ),
    "verdicts": (
        *_WHICH,
        Column("profile", "str"),
        Column("seed", "int64"),
        Column("verdict", "str"),
        Column("reason", "str"),
        Column("findings", "int64", unit="findings"),
        Column("measurements", "int64", unit="measurements"),
        Column("operations", "int64", unit="operations"),
        Column("duration", "float64", unit="s"),
        Column("started_at", "str"),
        Column("claim", "str"),
        Column("protects", "str"),
        Column("notes", "str"),
        Column("traceback", "str"),
    ),
    "findings": (
        *_WHICH,
        Column("number", "int64"),
        Column("anomaly", "str"),
        Column("sentence", "str"),
        Column("witness", "str"),
    ),
    "samples": (
        *_WHICH,
        Column("series", "str"),
        Column("value", "float64"),
        Column("unit", "str"),
        Column("at", "float64", unit="s"),
        Column("phase", "str"),
        Column("x", "str"),
        Column("y", "str"),
    ),
    "calibrations": (
        *_WHICH,
        Column("planted", "str"),
        Column("defect", "str"),
        Column("expected", "str"),
        Column("verdict", "str"),
        Column("caught", "bool"),
        Column("anomalies", "str"),
        Column("reason", "str"),
        Column("sentence", "str"),
        Column("witness", "str"),
        Column("duration", "float64", unit="s"),
    ),
}


def fill(frame: str, rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the rows as the declared frame; no rows give an empty frame of the same dtypes.

    `attrs["units"]` names the unit of each column that has one. Raises `FrameError` for a frame that is not declared, a
    column missing or too many, and a value of another type. Lone surrogates, which no file can hold, are escaped.
    """
    if frame not in FRAMES:
        raise FrameError(f"unknown frame {frame!r}; known: {', '.join(FRAMES)}")
    columns = FRAMES[frame]
    names = [column.name for column in columns]
    values: dict[str, list[Any]] = {name: [] for name in names}
    for number, row in enumerate(rows):
        if row.keys() != values.keys():
            missing = [name for name in names if name not in row]
            extra = [name for name in row if name not in values]
            raise FrameError(f"frame {frame!r}, row {number}: missing {missing}, not declared {extra}")
        for column in columns:
            values[column.name].append(_checked(frame, number, column, row[column.name]))
    filled = pd.DataFrame({column.name: pd.Series(values[column.name], dtype=column.dtype) for column in columns})
    filled.attrs["units"] = {column.name: column.unit for column in columns if column.unit}
    return filled


def _checked(frame: str, number: int, column: Column, value: Any) -> Any:
    if type(value) not in _TAKES[column.dtype]:
        raise FrameError(
            f"frame {frame!r}, row {number}, column {column.name!r}: "
            f"{value!r} is a {type(value).__name__}, declared is {column.dtype}"
        )
    if column.dtype == "int64" and not -(2**63) <= value < 2**63:
        raise FrameError(f"frame {frame!r}, row {number}, column {column.name!r}: {value!r} does not fit 64 bits")
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    return value


def _which(run: str, result: CheckResult) -> dict[str, Any]:
    return {"run": run, "check": result.check, "category": result.category, "target": result.target}


def measurements(run: str, results: Iterable[CheckResult]) -> pd.DataFrame:
    """One row a measurement; a metric with an asked and a lab budget has two. Without a budget, limit is NaN."""
    return fill(
        "measurements",
        (
            {
                **_which(run, result),
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
    return fill("operations", (_operation(run, result, op) for result in results for op in result.operations))


def _operation(run: str, result: CheckResult, op: Op) -> dict[str, Any]:
    value = "" if op.value is None else op.value if isinstance(op.value, str) else repr(op.value)
    return {
        **_which(run, result),
        **{name: getattr(op, name) for name in ("index", "client", "user", "action", "agent_type", "thread")},
        "type": op.type.value,
        "invoked": op.invoked,
        "completed": op.completed,
        "start": op.start_s,
        "end": op.end_s,
        "latency": op.end_s - op.start_s,
        "value": value if len(value) <= _LONGEST_VALUE else f"{value[:_LONGEST_VALUE]}…",
        "error": op.error,
    }


def verdicts(run: str, results: Iterable[CheckResult]) -> pd.DataFrame:
    """One row a check; `duration` in seconds."""
    return fill(
        "verdicts",
        (
            {
                **_which(run, result),
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
            }
            for result in results
        ),
    )


def findings(run: str, results: Iterable[CheckResult]) -> pd.DataFrame:
    """One row a finding; `witness` is one line an operation or object."""
    return fill(
        "findings",
        (
            {
                **_which(run, result),
                "number": number,
                "anomaly": finding.anomaly,
                "sentence": finding.sentence,
                "witness": "\n".join(finding.witness),
            }
            for result in results
            for number, finding in enumerate(result.verdict.findings, 1)
        ),
    )


def samples(run: str, results: Iterable[CheckResult]) -> pd.DataFrame:
    """One row a point of a series; `at` is seconds since the trial began."""
    return fill(
        "samples",
        (
            {
                **_which(run, result),
                **{name: getattr(sample, name) for name in ("series", "value", "unit", "phase", "x", "y")},
                "at": sample.at_s,
            }
            for result in results
            for sample in result.samples
        ),
    )


def calibrations(run: str, calibrated: Iterable[Calibrated]) -> pd.DataFrame:
    """One row a planted registry; `caught` says whether the check failed on it with the planted anomaly."""
    return fill("calibrations", (_calibration(run, one) for one in calibrated))


def _calibration(run: str, one: Calibrated) -> dict[str, Any]:
    found = one.result.verdict.findings
    # The planted anomaly's own witness tells more than that of one it caused.
    shown = next((finding for finding in found if finding.anomaly in one.expected), found[0] if found else None)
    return {
        **_which(run, one.result),
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
    }


_MAKERS: Final[Mapping[str, Callable[[str, Iterable[CheckResult]], pd.DataFrame]]] = {
    "measurements": measurements,
    "operations": operations,
    "verdicts": verdicts,
    "findings": findings,
    "samples": samples,
}


def frames_of(
    run: str, results: Iterable[CheckResult], calibrated: Iterable[Calibrated] = ()
) -> dict[str, pd.DataFrame]:
    """Every frame of a run, by name."""
    kept = tuple(results)
    return {**{name: make(run, kept) for name, make in _MAKERS.items()}, "calibrations": calibrations(run, calibrated)}


def load(folder: Path) -> dict[str, pd.DataFrame]:
    """Read a run's frames back from its `frames/` folder. Raises `FrameError` for a file that is not as declared."""
    loaded = {}
    for name, columns in FRAMES.items():
        frame = pd.read_parquet(folder / f"{name}.parquet")
        found = {column: str(dtype) for column, dtype in frame.dtypes.items()}
        declared = {column.name: column.dtype for column in columns}
        if found != declared:
            raise FrameError(f"{folder / name}.parquet has columns {found}; declared are {declared}")
        loaded[name] = frame
    return loaded


def number(value: float) -> str:
    """A measured value as people read it: whole numbers in full, others to four digits; NaN as 'none'."""
    if math.isnan(value):
        return "none"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 10_000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def quantity(value: float, unit: str) -> str:
    """A value with its unit, as people read it: `227.4 kB` for 227,421 bytes, `100%` for a share of 1."""
    if unit == "share" and math.isfinite(value):
        return f"{number(value * 100)}%"
    of, slash, per = unit.partition("/")
    if of == "bytes" and math.isfinite(value):
        for size, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
            if abs(value) >= size:
                return f"{value / size:.4g} {name}{slash}{per}"
    return f"{number(value)} {unit}".strip()


def budget_of(budget: Budget | None, unit: str) -> str:
    """A budget in the same words as its measurement: `< 50 MB`."""
    return f"{budget.comparison} {quantity(budget.limit, unit)}" if budget else ""
