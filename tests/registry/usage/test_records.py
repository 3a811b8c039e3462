"""Records, filters, prices and made-up records: the refusals, and the place of each bound."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Any

import pytest
from inline_snapshot import snapshot

from registry.errors import (
    InvalidUsageRecord,
)
from registry.usage.database import UsageDatabase, UsageFilter, UsageRecord
from registry.usage.prices import PRICES, Price, cheapest
from registry.usage.records import from_microseconds, parse_records, parse_time, to_microseconds
from registry.usage.synthetic import SYNTHETIC_FEATURES, synthetic_records
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


# ------------------------------------------------------------------------------------------- prices and made-up records


END = datetime(2025, 6, 1, tzinfo=UTC)


def test_the_default_prices() -> None:
    assert {"large": Price(10.0, 30.0), "medium": Price(3.0, 15.0), "small": Price(0.5, 1.5)} == PRICES
    with pytest.raises(TypeError):
        PRICES["free"] = Price(0, 0)  # type: ignore[index]


def test_a_price_is_two_finite_numbers_of_dollars() -> None:
    assert Price(0, 0) == Price(0.0, 0.0)
    assert [type(price) for price in (Price(1, 2).per_million_in, Price(1, 2).per_million_out)] == [float, float]
    assert (Price(2.0, 3.0).cost(1_000, 100), Price(3, 15).cost(0, 2_000_000)) == (0.0023, 30.0)


def test_what_is_no_price_is_named() -> None:
    wrong: list[Any] = [(-1, 1), (1, math.inf), (math.nan, 1), (1, "3"), (True, 1), (1, None)]
    refused = Refusals()
    refused.by(ValueError, *(partial(Price, *given) for given in wrong))
    assert refused.texts == snapshot(
        [
            "per_million_in -1 is not a price; pass finite US dollars, at least 0",
            "per_million_out inf is not a price; pass finite US dollars, at least 0",
            "per_million_in nan is not a price; pass finite US dollars, at least 0",
            "per_million_out '3' is a str; pass US dollars as a number",
            "per_million_in True is a bool; pass US dollars as a number",
            "per_million_out None is a NoneType; pass US dollars as a number",
        ]
    )


def test_the_cheapest_is_so_for_a_million_both_ways_and_the_first_by_name() -> None:
    assert cheapest({"in": Price(1, 9), "out": Price(5, 4)}) == "out"
    assert cheapest({"in": Price(5, 4), "out": Price(1, 9)}) == "in"
    assert cheapest({"b": Price(1, 2), "a": Price(2, 1)}) == "a"
    assert cheapest(PRICES) == "small"


FIRST_TWELVE = """\
30 01:39:25.031998 large synthetic/search 192 149 890.464747 0.0063900
30 05:48:51.841093 medium synthetic/summary 276 749 3154.981724 0.0120630
30 05:49:01.148115 large synthetic/summary 317 261 1449.651793 0.0110000
30 11:36:17.813441 medium synthetic/summary 831 10 396.439833 0.0026430
30 15:46:43.931914 small synthetic/summary 2040 980 4105.239849 0.0024900
30 17:57:55.531450 large synthetic/search 192 149 742.211544 0.0063900
30 19:54:59.194240 large synthetic/search 208 43 525.700717 0.0033700
31 11:33:03.626324 large synthetic/search 192 149 809.732384 0.0063900
31 13:51:57.602820 small synthetic/summary 506 255 1472.643172 0.0006355
31 16:46:13.481928 medium synthetic/summary 322 177 1081.944263 0.0036210
31 19:45:04.073510 large synthetic/chat 2016 974 4336.238129 0.0493800
31 21:52:43.957436 large synthetic/chat 1334 552 2573.813011 0.0299000
"""


def test_a_seed_s_records_figure_by_figure() -> None:
    # Examples and notebooks show the share of repeated calls, the spread of sizes and the latency.
    records = synthetic_records(3, 12, end=END, days=2)
    assert [
        f"{r.at:%d %H:%M:%S.%f} {r.model} {r.feature} {r.tokens_in} {r.tokens_out} {r.latency_ms:.6f} {r.cost_usd:.7f}"
        for r in records
    ] == FIRST_TWELVE.splitlines()
    assert SYNTHETIC_FEATURES == ("synthetic/chat", "synthetic/search", "synthetic/summary")


def test_records_are_of_the_models_that_have_a_price_and_cost_that() -> None:
    prices = {"b": Price(1, 2), "a": Price(3, 4)}
    records = synthetic_records(1, 40, end=END, days=1, prices=prices)
    assert {record.model for record in records} == {"a", "b"}
    assert all(r.cost_usd == prices[r.model].cost(r.tokens_in, r.tokens_out) for r in records)
    # The order of the table is no matter.
    assert records == synthetic_records(1, 40, end=END, days=1, prices=dict(reversed(prices.items())))


def test_sizes_days_and_latencies_keep_their_bounds() -> None:
    records = synthetic_records(2, 3_000, end=END, days=1)
    assert all(END - timedelta(days=1) <= record.at < END for record in records)
    assert max(record.at for record in records) > END - timedelta(minutes=10)
    assert min(record.at for record in records) < END - timedelta(days=1) + timedelta(minutes=10)
    sizes_in, sizes_out = [r.tokens_in for r in records], [r.tokens_out for r in records]
    assert 32 <= min(sizes_in) < 34 < 3_900 < max(sizes_in) <= 4_095
    assert 8 == min(sizes_out) < 980 < max(sizes_out) <= 1_023
    waits = [record.latency_ms - 4.0 * record.tokens_out for record in records]
    assert 120.0 <= min(waits) < 125.0 < 515.0 < max(waits) < 520.0
    assert synthetic_records(2, 0, end=END, days=1) == ()
