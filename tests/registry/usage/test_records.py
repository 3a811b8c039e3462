"""Records, filters and sources: the refusals, and the place of each bound."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Any

import pytest
from inline_snapshot import snapshot

from registry.errors import (
    InvalidUsageRecord,
    SessionClosed,
)
from registry.usage.database import InMemoryUsage, UsageDatabase, UsageFilter, UsageRecord
from registry.usage.records import from_microseconds, parse_records, parse_time, to_microseconds
from tests.registry.refusing import Refusals

START = datetime(2025, 3, 1, tzinfo=UTC)
ROW: dict[str, Any] = {**UsageRecord(START, "large", 10, 20, 150.0, 0.25, "chat").as_row()}
NAIVE = datetime(2025, 3, 1)  # noqa: DTZ001


# ------------------------------------------------------------------------------------------------------------ records

WRONG: dict[str, list[Any]] = {
    "tokens_in": [-1, True, 1.0, "7"],
    "tokens_out": [10**12 + 1, None],
    "latency_ms": [-0.5, 1.1e12, float("inf")],
    "cost_usd": [float("nan"), False, None, "x" * 200, 10**400],
    "model": ["", 3, "a\nb", "\ud800", "m" * 257],
    "feature": [" a", 0, None],
    "at": [5, None, "soon", "2025-03-01T00:00:00", NAIVE, "9999-12-31T23:30:00-01:00"],
}


def test_a_refusal_names_record_column_value_and_remedy_and_nothing_is_added() -> None:
    alone, in_a_list, appended = Refusals(), Refusals(), Refusals()
    database = UsageDatabase("ada", [ROW])
    for column, value in [(column, value) for column, values in WRONG.items() for value in values]:
        row = ROW | {column: value}
        alone.by(InvalidUsageRecord, partial(UsageRecord, **row))
        in_a_list.by(InvalidUsageRecord, partial(parse_records, [ROW, row]))
        appended.by(InvalidUsageRecord, partial(database.append, [ROW, UsageRecord(**ROW), row]))
        assert alone.texts[-1].startswith(column)
    assert in_a_list.texts == [f"record 1: {text}" for text in alone.texts]
    assert appended.texts == [f"record 2: {text}" for text in alone.texts]
    assert len(database) == database.totals()["calls"] == 1
    database.close()
    rows: list[Any] = [3, "at", {}, ROW | {"user_id": "bob", "id": 1}]
    alone.by(InvalidUsageRecord, *(partial(UsageDatabase, "ada", [row]) for row in rows))
    assert alone.texts == snapshot(
        [
            "tokens_in -1 is not a count; pass an int from 0 to 1000000000000",
            "tokens_in True is not a count; pass an int from 0 to 1000000000000",
            "tokens_in 1.0 is not a count; pass an int from 0 to 1000000000000",
            "tokens_in '7' is not a count; pass an int from 0 to 1000000000000",
            "tokens_out 1000000000001 is not a count; pass an int from 0 to 1000000000000",
            "tokens_out None is not a count; pass an int from 0 to 1000000000000",
            "latency_ms -0.5 is not an amount; pass a finite number from 0 to 1e+12",
            "latency_ms 1100000000000.0 is not an amount; pass a finite number from 0 to 1e+12",
            "latency_ms inf is not an amount; pass a finite number from 0 to 1e+12",
            "cost_usd nan is not an amount; pass a finite number from 0 to 1e+12",
            "cost_usd False is not an amount; pass a finite number from 0 to 1e+12",
            "cost_usd None is not an amount; pass a finite number from 0 to 1e+12",
            "cost_usd 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' is not an amount; pass a finite number from 0 to 1e+12",
            "cost_usd 100000000000000000...0000000000000000000 is not an amount; pass a finite number from 0 to 1e+12",
            "model '' is empty; pass at least one character",
            "model 3 is a int; pass a str",
            "model 'a\\nb' holds '\\n' at position 1; control characters are not allowed",
            "model '\\ud800' holds '\\ud800' at position 0; control characters are not allowed",
            "model 'mmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmm...(177 more)...mmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmm' has 257 characters; at most 256 are allowed",
            "feature ' a' begins or ends with white space; strip it where the id is made",
            "feature 0 is a int; pass a str",
            "feature None is a NoneType; pass a str",
            "at: 5 is a int; pass an aware datetime or ISO 8601 text",
            "at: None is a NoneType; pass an aware datetime or ISO 8601 text",
            "at: Invalid isoformat string: 'soon'",
            "at: datetime.datetime(2025, 3, 1, 0, 0) has no time zone; pass an aware datetime, such as 2026-01-31T12:00:00+00:00",
            "at: datetime.datetime(2025, 3, 1, 0, 0) has no time zone; pass an aware datetime, such as 2026-01-31T12:00:00+00:00",
            "at: datetime.datetime(9999, 12, 31, 23, 30...ime.timedelta(days=-1, seconds=82800))) lies outside the years 1 to 9999 in UTC",
            "record 0 is a int; pass a UsageRecord or a mapping of at, model, tokens_in, tokens_out, latency_ms, cost_usd, feature",
            "record 0 is a str; pass a UsageRecord or a mapping of at, model, tokens_in, tokens_out, latency_ms, cost_usd, feature",
            "record 0 lacks at, cost_usd, latency_ms, model, tokens_in, tokens_out",
            "record 0 has unknown columns 'id', 'user_id'; known: at, model, tokens_in, tokens_out, latency_ms, cost_usd, feature",
        ]
    )


def test_a_value_that_cannot_be_shown_is_refused_all_the_same() -> None:
    class Mute:
        def __repr__(self) -> str:
            raise RuntimeError("no repr")

    with pytest.raises(InvalidUsageRecord, match=r"^tokens_in <Mute instance at .*> is not a count"):
        UsageRecord(**(ROW | {"tokens_in": Mute()}))


def test_the_greatest_and_the_least_of_every_column_are_taken() -> None:
    most = UsageRecord(START, "m" * 256, 10**12, 10**12, 1e12, 1e12, "f" * 256)
    least = UsageRecord(START, "m", 0, 0, 0, -0.0)
    assert (most.tokens_in, most.tokens_out, most.latency_ms, most.cost_usd) == (10**12, 10**12, 1e12, 1e12)
    assert (least.tokens_in, least.tokens_out, least.latency_ms, least.feature) == (0, 0, 0.0, "")
    assert str(least.cost_usd) == "0.0"
    without_feature = {name: value for name, value in ROW.items() if name != "feature"}
    assert parse_records([without_feature])[0].feature == ""


def test_a_number_is_an_int_of_any_kind() -> None:
    class Own:
        def __index__(self) -> int:
            return 7

    assert UsageRecord(**(ROW | {"tokens_in": Own()})).tokens_in == 7


def test_times_are_microseconds_since_1970_in_utc() -> None:
    assert to_microseconds(datetime(1970, 1, 1, 0, 0, 1, 2, tzinfo=UTC)) == 1_000_002
    assert to_microseconds(datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)) == -1
    assert from_microseconds(1_000_002) == "1970-01-01T00:00:01.000002+00:00"
    elsewhere = parse_time("2025-03-01T12:00:00+02:00")
    assert (elsewhere, elsewhere.tzinfo) == (datetime(2025, 3, 1, 10, tzinfo=UTC), UTC)


# ------------------------------------------------------------------------------------------------------------ filters


def test_a_filter_keeps_its_limits_in_utc_and_its_models_in_a_tuple() -> None:
    at = datetime(2025, 3, 1, 1, tzinfo=timezone(timedelta(hours=1)))
    chosen = UsageFilter(since=at, until=at, models=["a", "b"])  # type: ignore[arg-type]
    assert chosen == UsageFilter(START, START, ("a", "b"))
    assert chosen.since is not None
    assert chosen.until is not None
    assert (chosen.since.tzinfo, chosen.until.tzinfo) == (UTC, UTC)
    assert (UsageFilter().since, UsageFilter().until, UsageFilter().models) == (None, None, None)


def test_filters_that_cannot_be_are_refused() -> None:
    wrong: list[dict[str, Any]] = [{"since": NAIVE}, {"until": NAIVE}, {"models": "large"}]
    refused = Refusals()
    refused.by(ValueError, *(partial(UsageFilter, **each) for each in wrong), lambda: parse_time(["2025"]))
    assert refused.texts == snapshot(
        [
            "datetime.datetime(2025, 3, 1, 0, 0) has no time zone; pass an aware datetime, such as 2026-01-31T12:00:00+00:00",
            "datetime.datetime(2025, 3, 1, 0, 0) has no time zone; pass an aware datetime, such as 2026-01-31T12:00:00+00:00",
            "models='large' is a single string; pass a tuple of names",
            "['2025'] is a list; pass an aware datetime or ISO 8601 text",
        ]
    )


# ------------------------------------------------------------------------------------------------------------ sources


def test_a_source_says_how_much_it_holds_and_of_a_bad_record_takes_none() -> None:
    assert repr(InMemoryUsage()) == "<InMemoryUsage users=0 records=0>"
    source = InMemoryUsage({"ada": [UsageRecord(**ROW)], "bob": []})
    source.add("ada", [ROW])  # type: ignore[list-item]
    assert repr(source) == "<InMemoryUsage users=2 records=2>"
    with pytest.raises(InvalidUsageRecord, match=r"^record 1 lacks at, "):
        source.add("ada", [UsageRecord(**ROW), {}])  # type: ignore[list-item]
    assert source.records_for("ada") == (UsageRecord(**ROW),) * 2
    assert source.records_for("eve") == ()


def test_a_database_says_how_much_it_holds_and_how_to_go_on_after_its_end() -> None:
    database = UsageDatabase("ada", [UsageRecord(**ROW)])
    assert repr(database) == "<UsageDatabase user='ada' records=1>"
    database.totals()
    assert repr(database) == "<UsageDatabase user='ada' records=1>"
    database.close()
    with pytest.raises(SessionClosed, match=r"^the usage database of user 'ada' is closed; open a new session$"):
        database.totals()
