"""Declares the columns of every frame, and fills them strictly."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import pandas as pd

from lab_utils.values.result import CheckResult
from lab_utils.values.texts import shown_lines

__all__ = ["FRAMES", "Column", "FrameError", "checked_columns", "fill", "fill_columns", "load", "which"]

Dtype = Literal["str", "int64", "float64", "bool"]
# A bool is an int to Python; a count that reads True is a mistake, so types are compared exactly.
_TAKES: Final[Mapping[Dtype, tuple[type, ...]]] = {
    "str": (str,),
    "int64": (int,),
    "float64": (float, int),
    "bool": (bool,),
}


_MOST: Final = 100_000


class FrameError(ValueError):
    """A row does not fit the declared columns; the message names the frame, the row, the column and the value."""


@dataclass(frozen=True, slots=True)
class Column:
    """One declared column: its name, its dtype, and the unit of its numbers. `later`: the files of earlier versions
    lack it; it reads "" then."""

    name: str
    dtype: Dtype
    unit: str = ""
    later: bool = False


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
        Column("printed", "str", later=True),
    ),
    "findings": (
        *_WHICH,
        Column("number", "int64"),
        Column("anomaly", "str"),
        Column("sentence", "str"),
        Column("witness", "str"),
        Column("key", "str", later=True),
        Column("fingerprint", "str", later=True),
        Column("cause", "str", later=True),
        Column("calls", "str", later=True),
        Column("types", "str", later=True),
        Column("users", "str", later=True),
        Column("token", "str", later=True),
    ),
    "involved": (*_WHICH, Column("key", "str"), Column("index", "int64")),
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
        Column("made_at", "str", later=True),
        Column("made_by", "str", later=True),
    ),
}

_LATER: Final = frozenset(("involved",))
"""Frames that earlier versions did not write."""


def which(run: str, result: CheckResult) -> dict[str, Any]:
    """The columns that every frame begins with."""
    return {"run": run, "check": result.check, "category": result.category, "target": result.target}


def fill(frame: str, rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the rows as the declared frame; no rows give an empty frame of the same dtypes.

    `attrs["units"]` names the unit of each column that has one. Raises `FrameError` for a frame that is not declared, a
    column missing or too many, and a value of another type. Characters that no file can hold or that steer a terminal
    are escaped, and texts longer than 100,000 characters are cut.
    """
    values: dict[str, list[Any]] = {column.name: [] for column in _declared(frame)}
    for number, row in enumerate(rows):
        _require_columns(f"frame {frame!r}, row {number}", values, row)
        for name, column in values.items():
            column.append(row[name])
    return fill_columns(frame, values)


def fill_columns(frame: str, values: Mapping[str, Sequence[Any]]) -> pd.DataFrame:
    """As `fill`, of whole columns of one length. A text in place of a column is the value of all its rows."""
    rows, checked = checked_columns(frame, values)
    columns = _declared(frame)
    filled = pd.DataFrame(
        {
            column.name: pd.Series(checked[column.name], index=pd.RangeIndex(rows), dtype=column.dtype)
            for column in columns
        }
    )
    filled.attrs["units"] = {column.name: column.unit for column in columns if column.unit}
    return filled


def checked_columns(frame: str, values: Mapping[str, Sequence[Any]]) -> tuple[int, dict[str, Sequence[Any]]]:
    """The number of rows, and the columns as `fill_columns` takes them: in order, of the declared types, escaped and
    cut. Raises `FrameError`."""
    columns = _declared(frame)
    _require_columns(f"frame {frame!r}", {column.name for column in columns}, values)
    rows = next((len(column) for column in values.values() if not isinstance(column, str)), 0)
    return rows, {column.name: _checked(frame, column, values[column.name]) for column in columns}


def _declared(frame: str) -> tuple[Column, ...]:
    if frame not in FRAMES:
        raise FrameError(f"unknown frame {frame!r}; known: {', '.join(FRAMES)}")
    return FRAMES[frame]


def _require_columns(where: str, declared: Collection[str], given: Collection[str]) -> None:
    missing = [name for name in declared if name not in given]
    extra = [name for name in given if name not in declared]
    if missing or extra:
        raise FrameError(f"{where}: missing {missing}, not declared {extra}")


def _checked(frame: str, column: Column, values: Sequence[Any]) -> Sequence[Any]:
    """The values of a column, all of its type, and texts escaped and cut."""
    if isinstance(values, str):
        return _escaped(values)
    if isinstance(values, array):
        # Numbers of one type, of 64 bits at most.
        return values
    if not set(map(type, values)) <= set(_TAKES[column.dtype]):
        number, value = next((n, one) for n, one in enumerate(values) if type(one) not in _TAKES[column.dtype])
        raise FrameError(
            f"frame {frame!r}, row {number}, column {column.name!r}: "
            f"{value!r} is of type {type(value).__name__}, declared is {column.dtype}"
        )
    if column.dtype == "int64" and values and not -(2**63) <= min(values) <= max(values) < 2**63:
        number, value = next((n, one) for n, one in enumerate(values) if not -(2**63) <= one < 2**63)
        raise FrameError(f"frame {frame!r}, row {number}, column {column.name!r}: {value!r} does not fit 64 bits")
    if column.dtype == "str" and not (all(map(str.isprintable, values)) and max(map(len, values), default=0) <= _MOST):
        return list(map(_escaped, values))
    return values


def _escaped(text: str) -> str:
    """The text without characters that steer a terminal or that no file can hold, and cut: some texts have several
    lines."""
    return text if text.isprintable() and len(text) <= _MOST else shown_lines(text, _MOST, longest=_MOST)


def load(folder: Path) -> dict[str, pd.DataFrame]:
    """Read a run's frames back from its `frames/` folder, those of an earlier version too. Raises `FrameError` for a
    file that is not as declared."""
    loaded = {}
    for name, columns in FRAMES.items():
        place = folder / f"{name}.parquet"
        if name in _LATER and not place.exists():
            loaded[name] = fill(name, ())
            continue
        if place.exists() and not place.is_file():
            # A pipe of that name would block whoever reads it.
            raise FrameError(f"{place} is no regular file")
        frame = pd.read_parquet(place)
        absent = [column.name for column in columns if column.later and column.name not in frame]
        if absent:
            units = frame.attrs
            frame = frame.assign(**{column: pd.Series("", frame.index, "str") for column in absent})
            frame = frame[[column.name for column in columns if column.name in frame]]
            frame.attrs = units
        found = {column: str(dtype) for column, dtype in frame.dtypes.items()}
        declared = {column.name: column.dtype for column in columns}
        if found != declared:
            raise FrameError(f"{place} has columns {found}; declared are {declared}")
        loaded[name] = frame
    return loaded
