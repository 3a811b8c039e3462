"""Computes the results of `expected_figures` from a CSV file of a user's own records, in typed columns.

A second, independent reading: pandas parses the file, and no row becomes a Python object beyond the chunk that is
being read. Needs the extra `lab`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lab_utils.usage.expected_figures import (
    SLOW_MS,
    TARGET_MODEL,
    TARGET_PRICE,
    THRESHOLD,
    Gathered,
    report_figures,
    top_calls,
)

__all__ = ["FrameFigures"]

_TEXTS = ("at", "model", "feature", "user_id")
_NUMBERS = {"tokens_in": "int64", "tokens_out": "int64", "latency_ms": "float64", "cost_usd": "float64"}
_CHUNK = 100_000  # Rows.
_DAY_US = 86_400_000_000


class FrameFigures:
    """The expected figures of each user in a file that `lab_utils.usage.csv_file` accepts.

    About 60 bytes a row: a million take 60 MB, and up to 270 MB while they are read and one user's figures computed.
    """

    def __init__(self, path: Path, one_user: str, chunk: int = _CHUNK) -> None:
        names = pd.read_csv(path, nrows=0, encoding="utf-8-sig", index_col=False).columns
        kinds = {name: "str" for name in _TEXTS if name in names} | _NUMBERS
        reader = pd.read_csv(
            path,
            usecols=list(kinds),
            dtype=kinds,
            chunksize=chunk,
            encoding="utf-8-sig",
            index_col=False,
            na_filter=False,
        )
        with reader:
            frame = pd.concat([_compact(part, one_user) for part in reader], ignore_index=True)
        # One table of models and of users, in place of one a chunk.
        users, self._users = pd.factorize(frame.pop("user_id"))
        models, self._models = pd.factorize(frame["model"])
        frame["model"] = models.astype("int32")
        frame["feature"] = pd.factorize(frame["feature"])[0].astype("int32")
        order = np.argsort(users, kind="stable")
        self._frame = frame.iloc[order]
        self._ends = np.searchsorted(users[order], np.arange(len(self._users) + 1))

    @property
    def users(self) -> Mapping[str, int]:
        """The records of each user."""
        return {str(user): int(self._ends[key + 1] - self._ends[key]) for key, user in enumerate(self._users)}

    def expected(self, user: str, since: datetime | None, focus: frozenset[str]) -> dict[str, Any]:
        """Return the `figures` that a report on this user's records must have; see `expected_figures`."""
        key = list(self._users).index(user)
        rows = self._frame.iloc[self._ends[key] : self._ends[key + 1]]
        if since is not None:
            rows = rows[rows["at"] >= round(since.timestamp() * 1_000_000)]
        # Stable: rows of one moment stay in the order of the file.
        return report_figures(_gather(rows.sort_values("at", kind="stable"), self._models), focus)


def _compact(part: pd.DataFrame, one_user: str) -> pd.DataFrame:
    moments = pd.to_datetime(part["at"], format="ISO8601", utc=True)
    # A fraction beyond the microsecond is cut off.
    part["at"] = moments.dt.floor("us").dt.as_unit("us").astype("int64")
    for name, absent in (("feature", ""), ("user_id", one_user)):
        part[name] = part.get(name, absent)
    return part.astype(dict.fromkeys(("model", "feature", "user_id"), "str"))


def _gather(rows: pd.DataFrame, models: Any) -> Gathered:
    names = {int(code): str(models[code]) for code in rows["model"].unique()}
    costs = rows["cost_usd"].to_numpy()
    cached = rows.duplicated(["model", "feature", "tokens_in", "tokens_out"]).to_numpy()
    price = (rows["tokens_in"] * TARGET_PRICE[0] + rows["tokens_out"] * TARGET_PRICE[1]) / 1e6
    gains = costs - price.to_numpy()
    short = (rows["tokens_in"] + rows["tokens_out"] <= THRESHOLD).to_numpy()
    codes = rows["model"].to_numpy()
    other = np.isin(codes, [code for code, name in names.items() if name != TARGET_MODEL])
    switched = ~cached & short & other & (gains > 0)
    latencies = np.sort(rows["latency_ms"].to_numpy())
    days = rows["at"].to_numpy() // _DAY_US
    return Gathered(
        totals=_sums(rows),
        by_model={name: _sums(rows[codes == code]) for code, name in names.items()},
        by_day={str(np.datetime64(int(day), "D")): _sums(rows.iloc[part]) for day, part in _runs(days)},
        latency_ms={
            f"p{p}": float(latencies[math.ceil(p * len(rows) / 100) - 1]) if len(rows) else None for p in (50, 95, 99)
        },
        slow_calls=int((latencies > SLOW_MS).sum()),
        dearest_usd=math.fsum(np.sort(costs)[len(rows) - top_calls(len(rows)) :]),
        cached=_by_model(costs, codes, cached, names),
        switched=_by_model(gains, codes, switched, names),
    )


def _sums(rows: pd.DataFrame) -> dict[str, Any]:
    return {
        "calls": len(rows),
        "tokens_in": _whole(rows["tokens_in"].to_numpy()),
        "tokens_out": _whole(rows["tokens_out"].to_numpy()),
        "cost_usd": math.fsum(rows["cost_usd"].to_numpy()),
        "latency_ms_mean": math.fsum(rows["latency_ms"].to_numpy()) / len(rows) if len(rows) else None,
    }


def _whole(values: Any) -> int:
    # In parts, whose sums of numbers up to 10**12 fit into 64 bits however many there are.
    return sum(int(values[start : start + _CHUNK].sum()) for start in range(0, len(values), _CHUNK))


def _runs(days: Any) -> Iterator[tuple[int, slice]]:
    """Each day with where its rows stand; the days are in ascending order."""
    starts = [0, *(np.flatnonzero(np.diff(days)) + 1), len(days)]
    for start, end in pairwise(starts):
        if start < end:
            yield int(days[start]), slice(start, end)


def _by_model(values: Any, codes: Any, chosen: Any, names: Mapping[int, str]) -> dict[str, Any]:
    of_model = {name: values[chosen & (codes == code)] for code, name in names.items()}
    return {name: kept for name, kept in of_model.items() if len(kept)}
