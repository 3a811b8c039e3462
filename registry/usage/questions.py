"""The questions that can be asked of one user's records by name, with their parameters checked."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final, TypedDict

from registry.errors import ContextBoundaryError, InvalidParameters, a_type
from registry.usage.database import ModelUsage, SavingsEstimate, UsageDatabase, UsageTotals
from registry.usage.prices import PRICES, Price, cheapest
from registry.usage.records import UsageFilter, UsageRecord, parse_time
from registry.usage.synthetic import synthetic_records

__all__ = ["ADMIN", "QUESTIONS", "Question"]

ADMIN: Final = "admin"
"""The permission that the `corpus_...` questions require."""

MAX_ROWS: Final = 1_000
MAX_ADDED: Final = 10_000
SYNTHETIC_END: Final = datetime(2026, 1, 1, tzinfo=UTC)

_Convert = Callable[[object], object]
_REQUIRED: Final = object()


class SavingsAnswer(SavingsEstimate):
    """The answer of `savings_estimate`: the savings, and the inputs they were computed with."""

    token_threshold: int
    target_model: str
    target_price: list[float]


class Generated(TypedDict):
    """The answer of `generate_synthetic_usage`."""

    added: int
    seed: int
    first_at: str
    last_at: str
    models: list[str]
    cost_usd: float
    records_after: int


class CorpusStatistics(TypedDict):
    """The answer of `corpus_statistics`."""

    totals: UsageTotals
    by_model: list[ModelUsage]
    days: int


class Imported(TypedDict):
    """The answer of `corpus_import`."""

    imported: int
    records_after: int


class Pruned(TypedDict):
    """The answer of `corpus_prune`."""

    deleted: int
    records_after: int


@dataclass(frozen=True, slots=True)
class Question:
    """One question: `fields` name its parameters, each with its check, its conversion and its default."""

    name: str
    description: str
    answer: Callable[..., Any]
    fields: Mapping[str, tuple[_Convert, object]] = field(default_factory=dict)
    requires: frozenset[str] = frozenset()

    def ask(self, database: UsageDatabase, parameters: Mapping[str, object]) -> Any:
        """Return the answer, as plain JSON data.

        Every parameter is checked before anything is done: `InvalidParameters` for one that is unknown, missing or of
        the wrong kind. A `user_id` may be given and changes nothing, for the records are those of the database in any
        case; `ContextBoundaryError` for another user's.
        """
        given = dict(parameters)
        user_id = given.pop("user_id", database.user_id)
        if user_id != database.user_id:
            raise ContextBoundaryError(f"{self.name} was asked for user {user_id!r}, but serves {database.user_id!r}")
        for name in given:
            if name not in self.fields:
                near = difflib.get_close_matches(str(name), self.fields, n=1)
                remedy = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(self.fields) or 'none'}"
                raise InvalidParameters(f"{self.name} has no parameter {name!r}; {remedy}")
        values: dict[str, object] = {}
        for name, (convert, default) in self.fields.items():
            value = given.get(name)
            if value is None and default is _REQUIRED:
                raise InvalidParameters(f"{self.name} needs the parameter {name!r}")
            try:
                values[name] = default if value is None else convert(value)
            except (ValueError, TypeError) as error:
                raise InvalidParameters(f"{self.name}: {name}: {error}") from None
        return self.answer(database, **values)


def _whole(least: int, most: int) -> _Convert:
    def convert(value: object) -> int:
        if type(value) is not int or not least <= value <= most:
            raise ValueError(f"{value!r} is not a whole number from {least} to {most}")
        return value

    return convert


def _number(value: object) -> float:
    if (type(value) is int or type(value) is float) and 0 <= value < math.inf:
        return float(value)
    raise ValueError(f"{value!r} is not a finite number of at least 0")


def _text(value: object) -> str:
    if type(value) is not str:
        raise ValueError(f"{value!r} is {a_type(value)}; pass a str")
    return value


def _list_of(convert: _Convert, most: int) -> _Convert:
    def convert_all(value: object) -> tuple[object, ...]:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{value!r} is {a_type(value)}; pass a list")
        if len(value) > most:
            raise ValueError(f"{len(value)} items are more than the {most} that one call may carry; make several calls")
        return tuple(convert(item) for item in value)

    return convert_all


def _prices(value: object) -> dict[str, Price]:
    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"{value!r} is not a mapping of model to [US dollars per million in, per million out]")
    prices: dict[str, Price] = {}
    for model, pair in value.items():
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise ValueError(f"the price of {model!r} is {pair!r}; pass [per million in, per million out]")
        prices[_text(model)] = Price(*pair)
    return prices


def _chosen(since: datetime | None, until: datetime | None, models: tuple[str, ...] | None) -> UsageFilter:
    if since is not None and until is not None and since > until:
        raise InvalidParameters(f"since {since.isoformat()} lies after until {until.isoformat()}; exchange them")
    return UsageFilter(since, until, models)


def _filtered(answer: Callable[..., object]) -> Callable[..., object]:
    """Lets an answer take one filter in the place of the three parameters that make it up."""

    def with_filter(
        database: UsageDatabase,
        *,
        since: datetime | None,
        until: datetime | None,
        models: tuple[str, ...] | None,
        **values: object,
    ) -> object:
        return answer(database, _chosen(since, until, models), **values)

    return with_filter


def _savings(
    database: UsageDatabase,
    chosen: UsageFilter,
    *,
    token_threshold: int,
    target_model: str | None,
    prices: Mapping[str, Price],
) -> SavingsAnswer:
    target = cheapest(prices) if target_model is None else target_model
    if target not in prices:
        raise InvalidParameters(f"target_model {target!r} has no price; priced: {', '.join(sorted(prices))}")
    price = prices[target]
    return {
        "token_threshold": token_threshold,
        "target_model": target,
        "target_price": [price.per_million_in, price.per_million_out],
        **database.savings(chosen, token_threshold=token_threshold, target_model=target, price=price),
    }


def _generate(database: UsageDatabase, *, count: int, days: int, seed: int, end: datetime | None) -> Generated:
    if end is None:
        newest = database.totals()["last_at"]
        end = SYNTHETIC_END if newest is None else parse_time(newest)
    try:
        made = synthetic_records(seed, count, end=end, days=days)
    except OverflowError:
        raise InvalidParameters(f"{days} days before {end.isoformat()} lie before the year 1; pass fewer") from None
    database.append(made)
    return {
        "added": len(made),
        "seed": seed,
        "first_at": made[0].at.isoformat(),
        "last_at": made[-1].at.isoformat(),
        "models": sorted({record.model for record in made}),
        "cost_usd": math.fsum(record.cost_usd for record in made),
        "records_after": len(database),
    }


def _statistics(database: UsageDatabase) -> CorpusStatistics:
    return {"totals": database.totals(), "by_model": database.by_model(), "days": len(database.by_day())}


def _import(database: UsageDatabase, *, records: tuple[UsageRecord | Mapping[str, object], ...]) -> Imported:
    return {"imported": database.append(records), "records_after": len(database)}


def _prune(database: UsageDatabase, *, before: datetime) -> Pruned:
    return {"deleted": database.prune(before), "records_after": len(database)}


_WINDOW: Final[Mapping[str, tuple[_Convert, object]]] = {
    "since": (parse_time, None),
    "until": (parse_time, None),
    "models": (_list_of(_text, MAX_ROWS), None),
}
_ADMIN: Final = frozenset({ADMIN})

_ALL: Final = (
    Question(
        "query_usage",
        "records, oldest first",
        _filtered(UsageDatabase.records),
        {**_WINDOW, "limit": (_whole(1, MAX_ROWS), 100)},
    ),
    Question("usage_totals", "sums over all chosen records", _filtered(UsageDatabase.totals), _WINDOW),
    Question("usage_by_model", "sums for each model", _filtered(UsageDatabase.by_model), _WINDOW),
    Question("usage_by_day", "sums for each day in UTC", _filtered(UsageDatabase.by_day), _WINDOW),
    Question(
        "latency_percentiles",
        "latency in milliseconds at the given percentiles, by nearest rank",
        _filtered(UsageDatabase.latency_percentiles),
        {**_WINDOW, "percentiles": (_list_of(_whole(1, 100), 100), (50, 95, 99))},
    ),
    Question(
        "most_expensive_calls",
        "the dearest records",
        _filtered(UsageDatabase.most_expensive),
        {**_WINDOW, "limit": (_whole(1, MAX_ROWS), 5)},
    ),
    Question(
        "usage_signals",
        "the figures that rank goals",
        _filtered(UsageDatabase.signals),
        {**_WINDOW, "latency_limit_ms": (_number, 2_000.0), "top_percent": (_whole(1, 100), 5)},
    ),
    Question(
        "savings_estimate",
        "the saving that a cache and a cheaper model would have made",
        _filtered(_savings),
        {
            **_WINDOW,
            "token_threshold": (_whole(0, 10**12), 1_000),
            "target_model": (_text, None),
            "prices": (_prices, PRICES),
        },
    ),
    Question(
        "generate_synthetic_usage",
        "adds made-up records; `end` defaults to the time of the newest record",
        _generate,
        {
            "count": (_whole(1, MAX_ADDED), 100),
            "days": (_whole(1, 3_650), 30),
            "seed": (_whole(0, 2**63), 0),
            "end": (parse_time, None),
        },
    ),
    Question("corpus_statistics", "the content of the user's corpus of records", _statistics, requires=_ADMIN),
    Question(
        "corpus_import",
        "adds records, all or none",
        _import,
        {"records": (_list_of(lambda row: row, MAX_ADDED), _REQUIRED)},
        _ADMIN,
    ),
    Question(
        "corpus_prune", "deletes the records older than `before`", _prune, {"before": (parse_time, _REQUIRED)}, _ADMIN
    ),
)

QUESTIONS: Final[Mapping[str, Question]] = MappingProxyType({question.name: question for question in _ALL})
"""Every question by its name."""
