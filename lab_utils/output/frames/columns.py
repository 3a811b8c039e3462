"""Declares the columns of every frame, and fills them strictly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import pandas as pd

__all__ = ["FRAMES", "Column", "FrameError", "fill", "load"]

Dtype = Literal["str", "int64", "float64", "bool"]
# A bool is an int to Python; a count that reads True is a mistake, so types are compared exactly.
_TAKES: Final[Mapping[Dtype, tuple[type, ...]]] = {
    "str": (str,),
    "int64": (int,),
    "float64": (float, int),
    "bool": (bool,),
}


class FrameError(ValueError):
    """A row does not fit the declared columns; the message names the frame, the row, the column and the value."""


@dataclass(frozen=True, slots=True)
class Column:
    """One declared column: its name, its dtype, and the unit of its numbers."""

    name: str
    dtype: Dtype
    unit: str = ""


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
