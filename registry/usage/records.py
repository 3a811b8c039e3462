"""One call of an AI model as a checked value, and where a user's records come from."""

from __future__ import annotations

import math
import operator
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol, SupportsIndex, TypedDict

from registry.errors import InvalidIdentifier, InvalidUsageRecord, a_type
from registry.identity import check_id, check_user_id

__all__ = [
    "ALL_RECORDS",
    "InMemoryUsage",
    "UsageFilter",
    "UsageRecord",
    "UsageRow",
    "UsageSource",
    "from_microseconds",
    "iter_records",
    "parse_records",
    "parse_time",
    "to_microseconds",
]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
# Bounds that no true record meets, and under which no sum of a user's records can overflow.
_MAX_TOKENS: Final = 10**12
_MAX_AMOUNT: Final = 1e12
_SHORT: Final = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80
_show = _SHORT.repr  # Survives a value whose repr raises, and cuts a long one.


class UsageRow(TypedDict):
    """A record as plain JSON data: `at` is text in ISO 8601, in UTC; else as in `UsageRecord`."""

    at: str
    model: str
    tokens_in: int
    tokens_out: int
    latency_ms: float
    cost_usd: float
    feature: str


@dataclass(frozen=True, slots=True)
class UsageRecord:
    """One call of a model.

    `at`: an aware datetime (or ISO 8601 text with an offset), kept in UTC to the microsecond. `model`: as
    `registry.identity` allows. `tokens_in`, `tokens_out`: counts. `latency_ms`: milliseconds. `cost_usd`: US dollars,
    as billed. `feature`: the purpose of the call, "" where that is not known.
    Raises `InvalidUsageRecord`, naming the column: numbers are finite and not negative, whole numbers are not floats.
    """

    at: datetime
    model: str
    tokens_in: int
    tokens_out: int
    latency_ms: float
    cost_usd: float
    feature: str = ""

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "at", _time("at", self.at))
        put(self, "model", _name("model", self.model))
        put(self, "tokens_in", _count("tokens_in", self.tokens_in))
        put(self, "tokens_out", _count("tokens_out", self.tokens_out))
        put(self, "latency_ms", _amount("latency_ms", self.latency_ms))
        put(self, "cost_usd", _amount("cost_usd", self.cost_usd))
        if self.feature != "" or type(self.feature) is not str:
            put(self, "feature", _name("feature", self.feature))

    def as_row(self) -> UsageRow:
        """The record as plain JSON data, with `at` in ISO 8601."""
        return {
            "at": self.at.isoformat(),
            "model": self.model,
            "tokens_in": self.tokens_in,
            "tokens_out": self.tokens_out,
            "latency_ms": self.latency_ms,
            "cost_usd": self.cost_usd,
            "feature": self.feature,
        }


_COLUMNS: Final = tuple(field.name for field in fields(UsageRecord))
_REQUIRED: Final = frozenset(_COLUMNS) - {"feature"}


@dataclass(frozen=True, slots=True)
class UsageFilter:
    """Which records are meant: `since` included, `until` excluded (aware datetimes), of any of `models`.

    None: no limit; an empty `models` means no record. Raises `ValueError` for a time without a zone and for models
    that are a single string.
    """

    since: datetime | None = None
    until: datetime | None = None
    models: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("since", "until"):
            limit = getattr(self, name)
            if limit is not None:
                object.__setattr__(self, name, parse_time(limit))
        if isinstance(self.models, str):
            raise ValueError(f"models={self.models!r} is a single string; pass a tuple of names")
        if self.models is not None:
            object.__setattr__(self, "models", tuple(self.models))

    def where(self) -> tuple[str, dict[str, object]]:
        """The filter as an SQL condition and its parameters."""
        terms, values = ["1"], dict[str, object]()
        for name, sign, limit in (("since", ">=", self.since), ("until", "<", self.until)):
            if limit is not None:
                terms.append(f"at_us {sign} :{name}")
                values[name] = to_microseconds(limit)
        if self.models is not None:
            marks = {f"model{number}": model for number, model in enumerate(self.models)}
            terms.append(f"model IN ({', '.join(f':{mark}' for mark in marks)})")
            values |= marks
        return " AND ".join(terms), values


ALL_RECORDS: Final = UsageFilter()


class UsageSource(Protocol):
    """Where records are kept beyond a session. It is queried once a session, and no object of a session holds it."""

    def records_for(self, user_id: str) -> Iterable[UsageRecord]:
        """The user's records, in any order; none for an unknown user. An iterator is read at once."""
        ...


class InMemoryUsage:
    """A source in this process: the owner of every user's records. Keep it where the registry is made."""

    __slots__ = ("_records",)

    def __init__(self, records: Mapping[str, Iterable[UsageRecord]] | None = None) -> None:
        self._records: dict[str, list[UsageRecord]] = {}
        for user_id, of_user in (records or {}).items():
            self.add(user_id, of_user)

    def add(self, user_id: str, records: Iterable[UsageRecord]) -> None:
        """Add records of one user, all or none. Sessions that are open have read theirs already."""
        checked = parse_records(records)
        self._records.setdefault(check_user_id(user_id), []).extend(checked)

    def records_for(self, user_id: str) -> tuple[UsageRecord, ...]:
        return tuple(self._records.get(user_id, ()))

    def __repr__(self) -> str:
        return f"<InMemoryUsage users={len(self._records)} records={sum(map(len, self._records.values()))}>"


def parse_records(records: Iterable[UsageRecord | Mapping[str, object]]) -> tuple[UsageRecord, ...]:
    """Return the records; mappings, such as `UsageRecord.as_row` gives, become records.

    Raises `InvalidUsageRecord`, naming the record by its position, from 0, and the column.
    """
    return tuple(iter_records(records))


def iter_records(records: Iterable[UsageRecord | Mapping[str, object]]) -> Iterator[UsageRecord]:
    """Yield the results of `parse_records`, each record when it is asked for."""
    for position, record in enumerate(records):
        yield record if type(record) is UsageRecord else _parse(record, position)


def parse_time(value: object) -> datetime:
    """Return an aware datetime, given as one or as ISO 8601 text, in UTC. Raises `ValueError`."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if not isinstance(value, datetime):
        raise ValueError(f"{_show(value)} is {a_type(value)}; pass an aware datetime or ISO 8601 text")
    if value.utcoffset() is None:
        raise ValueError(f"{_show(value)} has no time zone; pass an aware datetime, such as 2026-01-31T12:00:00+00:00")
    try:
        # Built anew, so that neither a subclass nor a time zone of the caller's, which may carry state, is kept.
        return _EPOCH + to_microseconds(value) * _MICROSECOND
    except OverflowError:
        raise ValueError(f"{_show(value)} lies outside the years 1 to 9999 in UTC") from None


def to_microseconds(value: datetime) -> int:
    """An aware datetime as microseconds since 1970 in UTC."""
    return (value - _EPOCH) // _MICROSECOND


def from_microseconds(microseconds: int) -> str:
    """Microseconds since 1970 in UTC as ISO 8601 text."""
    return (_EPOCH + microseconds * _MICROSECOND).isoformat()


def _parse(row: object, position: int) -> UsageRecord:
    if not isinstance(row, Mapping):
        raise InvalidUsageRecord(
            f"record {position} is {a_type(row)}; pass a UsageRecord or a mapping of {', '.join(_COLUMNS)}"
        )
    names = set(row)
    if missing := _REQUIRED - names:
        raise InvalidUsageRecord(f"record {position} lacks {', '.join(sorted(missing))}")
    if unknown := names - set(_COLUMNS):
        shown = ", ".join(sorted(map(_show, unknown)))
        raise InvalidUsageRecord(f"record {position} has unknown columns {shown}; known: {', '.join(_COLUMNS)}")
    try:
        return UsageRecord(**row)
    except InvalidUsageRecord as error:
        raise InvalidUsageRecord(f"record {position}: {error}") from None


def _time(column: str, value: object) -> datetime:
    try:
        return parse_time(value)
    except ValueError as error:
        raise InvalidUsageRecord(f"{column}: {error}") from None


def _name(column: str, value: object) -> str:
    try:
        return check_id(column, value)
    except InvalidIdentifier as error:
        raise InvalidUsageRecord(str(error)) from None


def _count(column: str, value: SupportsIndex) -> int:
    try:
        number = -1 if isinstance(value, bool) else int(operator.index(value))
    except TypeError:
        number = -1
    if not 0 <= number <= _MAX_TOKENS:
        raise InvalidUsageRecord(f"{column} {_show(value)} is not a count; pass an int from 0 to {_MAX_TOKENS}")
    return number


def _amount(column: str, value: object) -> float:
    number = math.nan
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            number = float(value) + 0.0  # Makes -0.0 a plain zero.
        except OverflowError:
            number = math.inf
    if not 0.0 <= number <= _MAX_AMOUNT:
        raise InvalidUsageRecord(
            f"{column} {_show(value)} is not an amount; pass a finite number from 0 to {_MAX_AMOUNT:g}"
        )
    return number
