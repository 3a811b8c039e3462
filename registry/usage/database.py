"""UsageDatabase: one user's AI-usage records, in an embedded database that no other user's can be reached from."""

from __future__ import annotations

import math
import sqlite3
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from itertools import chain, islice
from typing import Any, Final, TypedDict, cast

from registry.errors import SessionClosed
from registry.identity import check_user_id
from registry.usage.prices import Price
from registry.usage.records import (
    ALL_RECORDS,
    InMemoryUsage,
    UsageFilter,
    UsageRecord,
    UsageRow,
    UsageSource,
    from_microseconds,
    iter_records,
    to_microseconds,
)

__all__ = [
    "ALL_RECORDS",
    "DayUsage",
    "ExactSum",
    "InMemoryUsage",
    "ModelSavings",
    "ModelUsage",
    "SavingsEstimate",
    "UsageDatabase",
    "UsageFilter",
    "UsageRecord",
    "UsageSignals",
    "UsageSource",
    "UsageSums",
    "UsageTotals",
]

_SCHEMA: Final = """
    CREATE TABLE usage (
        id INTEGER PRIMARY KEY, at_us INTEGER NOT NULL, day TEXT NOT NULL, model TEXT NOT NULL, feature TEXT NOT NULL,
        tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL, latency_ms REAL NOT NULL, cost_usd REAL NOT NULL
    )"""
_INSERT: Final = """
    INSERT INTO usage (at_us, day, model, feature, tokens_in, tokens_out, latency_ms, cost_usd)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""
_BATCH: Final = 1_000
_SUMS: Final = """
    count(*) AS calls, coalesce(sum(tokens_in), 0) AS tokens_in, coalesce(sum(tokens_out), 0) AS tokens_out,
    fsum(cost_usd) AS cost_usd, fsum(latency_ms) AS latency_ms"""


_Row = dict[str, Any]  # As SQLite gives it, by the names of the columns.


class UsageSums(TypedDict):
    """Sums over records; the mean is None where there is none."""

    calls: int
    tokens_in: int
    tokens_out: int
    cost_usd: float
    latency_ms_mean: float | None


class UsageTotals(UsageSums):
    """Sums over all chosen records, with the times of the first and the last in ISO 8601."""

    first_at: str | None
    last_at: str | None


class ModelUsage(UsageSums):
    """Sums over the records of one model."""

    model: str


class DayUsage(UsageSums):
    """Sums over the records of one day in UTC, YYYY-MM-DD."""

    day: str


class UsageSignals(TypedDict):
    """The figures that rank goals; see `UsageDatabase.signals`."""

    calls: int
    tokens_in: int
    tokens_out: int
    cost_usd: float
    slow_calls: int
    top_calls: int
    top_calls_cost_usd: float
    top_model: str | None
    top_model_cost_usd: float


class ModelSavings(TypedDict):
    """The saving that two changes would have made on the records of one model."""

    model: str
    cache_calls: int
    cache_saving_usd: float
    switch_calls: int
    switch_saving_usd: float


class SavingsEstimate(TypedDict):
    """The saving that two changes would have made; see `UsageDatabase.savings`."""

    cost_usd: float
    cache_calls: int
    cache_saving_usd: float
    switch_calls: int
    switch_saving_usd: float
    saving_usd: float
    projected_cost_usd: float
    saving_share: float
    by_model: list[ModelSavings]


class UsageDatabase:
    """One user's records, and the questions that can be asked of them.

    Guarantees: it knows no source and no other user. Every sum of dollars or milliseconds is `math.fsum` of the rows'
    values, which does not depend on their order: anyone with the rows can recompute each figure exactly. Nothing is
    rounded. Times are text in ISO 8601, in UTC; days are days in UTC. Equal rows keep the order in which they were
    added. For one thread at a time.

    The engine is opened by the first question, so a user who asks nothing costs only the records. More than 1,000 that
    come from an iterator go into it at once, and never all become Python objects; nor do they for any question but
    `records` and `most_expensive`. A million take about 65 MB there and some seconds to go there, in which nothing else
    runs. Appended records live as long as this object. `close()` it; afterwards every call raises `SessionClosed`.
    """

    __slots__ = ("__weakref__", "_closed", "_connection", "_waiting", "user_id")

    def __init__(self, user_id: str, records: Iterable[UsageRecord | Mapping[str, object]] = ()) -> None:
        self._connection: sqlite3.Connection | None = None
        self._closed = False
        self.user_id = check_user_id(user_id)
        self._waiting: tuple[UsageRecord, ...] = ()
        few, more = _first(records)
        if more is None:
            self._waiting = few
        else:
            # Here and not at the first question: an iterator may hold the source, which nothing here may keep.
            try:
                _insert(self._open(), chain(few, more))
            except BaseException:
                self.close()
                raise

    def append(self, records: Iterable[UsageRecord | Mapping[str, object]]) -> int:
        """Add the records, all or none; return how many. Raises `InvalidUsageRecord`, naming record and column."""
        few, more = _first(records)
        return _insert(self._open(), few if more is None else chain(few, more))

    def prune(self, before: datetime) -> int:
        """Delete the records older than `before`; return how many."""
        return self._open().execute("DELETE FROM usage WHERE at_us < ?", (to_microseconds(before),)).rowcount

    def records(self, chosen: UsageFilter = ALL_RECORDS, limit: int | None = None) -> list[UsageRow]:
        """The records as rows, oldest first; at most `limit` of them."""
        return self._rows(chosen, "ORDER BY at_us, id", limit)

    def most_expensive(self, chosen: UsageFilter = ALL_RECORDS, limit: int = 5) -> list[UsageRow]:
        """The dearest records as rows, dearest first, older before newer."""
        return self._rows(chosen, "ORDER BY cost_usd DESC, at_us, id", limit)

    def totals(self, chosen: UsageFilter = ALL_RECORDS) -> UsageTotals:
        """`calls`, `tokens_in`, `tokens_out`, `cost_usd`, `latency_ms_mean` (the sum over `calls`), `first_at` and
        `last_at`; the last three are None where there is no record."""
        row = self._ask(chosen, f"SELECT {_SUMS}, min(at_us) AS first_us, max(at_us) AS last_us FROM usage {{where}}")[
            0
        ]
        return {
            **_summary(row),
            "first_at": None if row["first_us"] is None else from_microseconds(row["first_us"]),
            "last_at": None if row["last_us"] is None else from_microseconds(row["last_us"]),
        }

    def by_model(self, chosen: UsageFilter = ALL_RECORDS) -> list[ModelUsage]:
        """For each `model` the sums and the mean of `totals`; the dearest model first, then by name."""
        query = f"SELECT model, {_SUMS} FROM usage {{where}} GROUP BY model ORDER BY cost_usd DESC, model"
        # The name of a group's column wins over the table's in ORDER BY, so this is the order of the sums.
        return [{"model": row["model"], **_summary(row)} for row in self._ask(chosen, query)]

    def by_day(self, chosen: UsageFilter = ALL_RECORDS) -> list[DayUsage]:
        """For each `day` (YYYY-MM-DD) that has records the sums and the mean of `totals`; the earliest day first."""
        query = f"SELECT day, {_SUMS} FROM usage {{where}} GROUP BY day ORDER BY day"
        return [{"day": row["day"], **_summary(row)} for row in self._ask(chosen, query)]

    def latency_percentiles(
        self, chosen: UsageFilter = ALL_RECORDS, percentiles: Sequence[int] = (50, 95, 99)
    ) -> dict[str, float | None]:
        """`{"p50": milliseconds, ...}` by nearest rank: the value at place `ceil(p * n / 100)`, from 1, of the n
        values in ascending order, so always a value that was measured. None where there is no record."""
        count = self._ask(chosen, "SELECT count(*) AS calls FROM usage {where}")[0]["calls"]
        places = {p: -(-p * count // 100) for p in percentiles}
        found: dict[int, float] = {}
        # One pass over one sort. A query with LIMIT 1 OFFSET n for each place took fifteen times as long.
        with self._ascending(chosen, "latency_ms") as values:
            passed = 0
            for place in sorted(set(places.values()) if count else ()):
                found[place] = next(islice(values, place - passed - 1, None))
                passed = place
        return {f"p{p}": found.get(place) for p, place in places.items()}

    def signals(self, chosen: UsageFilter = ALL_RECORDS, *, latency_limit_ms: float, top_percent: int) -> UsageSignals:
        """The figures that rank goals: `calls`, `tokens_in`, `tokens_out`, `cost_usd`; `slow_calls`, those above the
        limit; `top_calls`, `ceil(top_percent * calls / 100)`, and `top_calls_cost_usd`, the sum of as many dearest
        calls; `top_model` (None without records) and `top_model_cost_usd`, the first of `by_model`."""
        totals = self.totals(chosen)
        slow = "SELECT count(*) AS calls FROM usage {where} AND latency_ms > :limit_ms"
        top_calls = -(-top_percent * totals["calls"] // 100)
        with self._ascending(chosen, "-cost_usd") as costs:
            top_cost = -math.fsum(islice(costs, top_calls)) + 0.0  # Not -0.0 where there is no call.
        models = self.by_model(chosen)
        return {
            "calls": totals["calls"],
            "tokens_in": totals["tokens_in"],
            "tokens_out": totals["tokens_out"],
            "cost_usd": totals["cost_usd"],
            "slow_calls": self._ask(chosen, slow, limit_ms=latency_limit_ms)[0]["calls"],
            "top_calls": top_calls,
            "top_calls_cost_usd": top_cost,
            "top_model": models[0]["model"] if models else None,
            "top_model_cost_usd": models[0]["cost_usd"] if models else 0.0,
        }

    def savings(
        self, chosen: UsageFilter = ALL_RECORDS, *, token_threshold: int, target_model: str, price: Price
    ) -> SavingsEstimate:
        """The saving that two changes would have made on the chosen records; each record counts for one of them at
        most.

        *Cache*: a record equal in (model, feature, tokens_in, tokens_out) to an earlier chosen one (by `at`, then as
        added) could have been answered from a cache, and saves its `cost_usd`.
        *Switch*: any other record whose model is not `target_model`, with `tokens_in + tokens_out <= token_threshold`,
        saves `cost_usd - price.cost(tokens_in, tokens_out)` where that is above 0; else it is not switched.

        Returns `cost_usd`, `cache_calls`, `cache_saving_usd`, `switch_calls`, `switch_saving_usd`, `saving_usd` (the
        two added), `projected_cost_usd` (cost minus saving), `saving_share` (saving over cost, 0.0 where the cost is
        0) and `by_model`: the four figures of each `model` that would save something, by name.
        """
        values = {
            "threshold": token_threshold,
            "target": target_model,
            "price_in": price.per_million_in,
            "price_out": price.per_million_out,
        }
        (whole,) = self._ask(
            chosen, _SAVINGS.format(columns="fsum(cost_usd) AS cost_usd,", group="", where="{where}"), **values
        )
        models = self._ask(chosen, _SAVINGS.format(columns="model,", group="GROUP BY model", where="{where}"), **values)
        cost = whole["cost_usd"] or 0.0
        saving = whole["cache_saving_usd"] + whole["switch_saving_usd"]
        return {
            "cost_usd": cost,
            "cache_calls": whole["cache_calls"],
            "cache_saving_usd": whole["cache_saving_usd"],
            "switch_calls": whole["switch_calls"],
            "switch_saving_usd": whole["switch_saving_usd"],
            "saving_usd": saving,
            "projected_cost_usd": cost - saving,
            "saving_share": saving / cost if cost else 0.0,
            "by_model": [cast(ModelSavings, row) for row in models if row["cache_calls"] or row["switch_calls"]],
        }

    def close(self) -> None:
        """Forget everything. Safe to call again."""
        self._closed = True
        self._waiting = ()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __del__(self) -> None:
        # Absent where __init__ never ran.
        if getattr(self, "_connection", None) is not None:
            # Closed first: a warning may be an error. An open connection is a reference cycle, so this frees it, too.
            self.close()
            warnings.warn(
                f"the usage database of user {self.user_id!r} was never closed", ResourceWarning, stacklevel=2
            )

    def __len__(self) -> int:
        """How many records there are now."""
        if self._connection is None and not self._closed:
            return len(self._waiting)
        count: int = self._open().execute("SELECT count(*) FROM usage").fetchone()[0]
        return count

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"records={len(self)}"
        return f"<UsageDatabase user={self.user_id!r} {state}>"

    def _open(self) -> sqlite3.Connection:
        if self._closed:
            raise SessionClosed(f"the usage database of user {self.user_id!r} is closed; open a new session")
        if self._connection is None:
            # Any thread may close it: that of the loop it was opened in may have ended before.
            connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            try:
                connection.create_aggregate("fsum", 1, ExactSum)  # type: ignore[arg-type]  # Typeshed has sums of int only.
                connection.execute(_SCHEMA)
                _insert(connection, self._waiting)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
            self._waiting = ()
        return self._connection

    def _ask(self, chosen: UsageFilter, query: str, **more: object) -> list[_Row]:
        condition, values = chosen.where()
        cursor = self._open().execute(query.format(where=f"WHERE {condition}"), values | more)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    @contextmanager
    def _ascending(self, chosen: UsageFilter, value: str) -> Iterator[Iterator[float]]:
        """The values in ascending order, one at a time."""
        condition, values = chosen.where()
        query = f"SELECT {value} FROM usage WHERE {condition} ORDER BY 1"
        with closing(self._open().execute(query, values)) as cursor:
            yield (row[0] for row in cursor)

    def _rows(self, chosen: UsageFilter, order: str, limit: int | None) -> list[UsageRow]:
        query = f"""
            SELECT at_us, model, tokens_in, tokens_out, latency_ms, cost_usd, feature FROM usage {{where}}
            {order} LIMIT :limit"""
        rows = self._ask(chosen, query, limit=-1 if limit is None else limit)
        return [cast(UsageRow, {"at": from_microseconds(row.pop("at_us"))} | row) for row in rows]


_SAVINGS: Final = """
    WITH calls AS (
        SELECT model, cost_usd,
            row_number() OVER (PARTITION BY model, feature, tokens_in, tokens_out ORDER BY at_us, id) > 1 AS cached,
            CASE WHEN model <> :target AND tokens_in + tokens_out <= :threshold
                THEN cost_usd - (tokens_in * :price_in + tokens_out * :price_out) / 1000000.0 ELSE 0.0 END AS gain
        FROM usage {where}
    )
    SELECT {columns}
        coalesce(sum(cached), 0) AS cache_calls,
        coalesce(fsum(CASE WHEN cached THEN cost_usd END), 0.0) AS cache_saving_usd,
        coalesce(sum(NOT cached AND gain > 0), 0) AS switch_calls,
        coalesce(fsum(CASE WHEN NOT cached AND gain > 0 THEN gain END), 0.0) AS switch_saving_usd
    FROM calls {group}"""


def _first(
    records: Iterable[UsageRecord | Mapping[str, object]],
) -> tuple[tuple[UsageRecord, ...], Iterator[UsageRecord] | None]:
    """The records, checked; of an iterator with more than a batch, the first of them, and the others as they come."""
    parsed = iter_records(records)
    if isinstance(records, (list, tuple)):
        return tuple(parsed), None
    few = tuple(islice(parsed, _BATCH + 1))
    return few, parsed if len(few) > _BATCH else None


def _insert(connection: sqlite3.Connection, records: Iterable[UsageRecord]) -> int:
    """Insert the records as they come, all or none; return how many."""
    with connection:
        connection.execute("BEGIN")
        inserted = connection.executemany(
            _INSERT,
            (
                (
                    to_microseconds(record.at),
                    record.at.date().isoformat(),
                    record.model,
                    record.feature,
                    record.tokens_in,
                    record.tokens_out,
                    record.latency_ms,
                    record.cost_usd,
                )
                for record in records
            ),
        )
    return inserted.rowcount


def _summary(row: _Row) -> UsageSums:
    calls = row["calls"]
    return {
        "calls": calls,
        "tokens_in": row["tokens_in"],
        "tokens_out": row["tokens_out"],
        "cost_usd": row["cost_usd"] or 0.0,
        "latency_ms_mean": row["latency_ms"] / calls if calls else None,
    }


class ExactSum:
    """An SQL aggregate: correctly rounded, whatever the order of the rows. NULL values do not count.

    Guarantees: `finalize()` is `math.fsum` of all the values, exactly. At most `most` floats are held, 128 kB for the
    default: then those that are there become the few (at most 40 for any doubles, mostly two) that add up to the same
    without an error. Values are finite, and so are their sums; `OverflowError` where one is not.
    """

    __slots__ = ("_most", "_values")

    def __init__(self, most: int = 4_096) -> None:
        if most < 100:
            raise ValueError(f"most={most} floats could not hold every sum exactly; allow 100")
        self._values: list[float] = []
        self._most = most

    def step(self, value: float | None) -> None:
        if value is not None:
            values = self._values
            values.append(value)
            if len(values) >= self._most:
                self._values = _parts(values)

    def finalize(self) -> float:
        return math.fsum(self._values)

    def __len__(self) -> int:
        """How many floats are held."""
        return len(self._values)


def _parts(values: list[float]) -> list[float]:
    """The fewest floats with the same exact sum: each is the rounded rest that the ones before it leave over."""
    parts = []
    while part := math.fsum(values):
        parts.append(part)
        # Twice as fast as adding one by one in Python: both the sum and its rest are taken at C speed.
        values.append(-part)
    return parts
