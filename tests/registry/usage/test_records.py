"""Records, filters, prices and made-up records: the refusals, and the place of each bound."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from registry.errors import (
    InvalidUsageRecord,
)
from registry.usage.database import UsageDatabase, UsageFilter, UsageRecord
from registry.usage.prices import PRICES, Price, cheapest
from registry.usage.records import parse_records
from registry.usage.synthetic import SYNTHETIC_FEATURES, synthetic_records

START = datetime(2025, 3, 1, tzinfo=UTC)
ROW: dict[str, Any] = {**UsageRecord(START, "large", 10, 20, 150.0, 0.25, "chat").as_row()}
NAIVE = datetime(2025, 3, 1)  # noqa: DTZ001


COUNT = "is not a count; pass an int from 0 to 1000000000000"
AMOUNT = "is not an amount; pass a finite number from 0 to 1e+12"
NO_ZONE = "has no time zone; pass an aware datetime, such as 2026-01-31T12:00:00+00:00"
WRONG: list[tuple[str, Any, str]] = [
    *(("tokens_in", value, f"{value!r} {COUNT}") for value in (-1, True, 1.0, "7")),
    *(("tokens_out", value, f"{value!r} {COUNT}") for value in (10**12 + 1, None)),
    *(("latency_ms", value, f"{value!r} {AMOUNT}") for value in (-0.5, 1.1e12, float("inf"))),
    *(("cost_usd", value, f"{value!r} {AMOUNT}") for value in (float("nan"), False, None)),
    ("cost_usd", "x" * 200, f"'{'x' * 37}...{'x' * 38}' {AMOUNT}"),
    ("cost_usd", 10**400, f"1{'0' * 17}...{'0' * 19} {AMOUNT}"),
    ("model", "", "'' is empty; pass at least one character"),
    ("model", 3, "3 is an int; pass a str"),
    ("model", "a\nb", r"'a\nb' holds '\n' at position 1; control characters are not allowed"),
    ("model", "\ud800", r"'\ud800' holds '\ud800' at position 0; control characters are not allowed"),
    ("model", "m" * 257, f"'{'m' * 40}...(177 more)...{'m' * 40}' has 257 characters; at most 256 are allowed"),
    ("feature", " a", "' a' begins or ends with white space; strip it where the id is made"),
    ("feature", 0, "0 is an int; pass a str"),
    ("feature", None, "None is None; pass a str"),
    ("at", 5, "5 is an int; pass an aware datetime or ISO 8601 text"),
    ("at", "soon", "Invalid isoformat string: 'soon'"),
    *(("at", value, f"{NAIVE!r} {NO_ZONE}") for value in ("2025-03-01T00:00:00", NAIVE)),
    (
        "at",
        "9999-12-31T23:30:00-01:00",
        "datetime.datetime(9999, 12, 31, 23, 30...ime.timedelta(days=-1, seconds=82800))) lies",
    ),
]


@pytest.mark.parametrize(("column", "value", "words"), WRONG, ids=lambda value: f"{value}"[:30])
def test_a_refusal_names_record_column_value_and_remedy_and_nothing_is_added(
    column: str, value: Any, words: str
) -> None:
    row, database = ROW | {column: value}, UsageDatabase("ada", [ROW])
    told = re.escape(f"{column}{':' if column == 'at' else ''} {words}")
    with pytest.raises(InvalidUsageRecord, match=f"^{told}"):
        UsageRecord(**row)
    with pytest.raises(InvalidUsageRecord, match=f"^record 1: {told}"):
        parse_records([ROW, row])
    with pytest.raises(InvalidUsageRecord, match=f"^record 2: {told}"):
        database.append([ROW, UsageRecord(**ROW), row])
    assert len(database) == database.totals()["calls"] == 1
    database.close()


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (3, "is an int; pass a UsageRecord or a mapping of at, model, tokens_in, tokens_out, latency_ms"),
        ("at", "is a str; pass a UsageRecord or a mapping of at, model"),
        ({}, "lacks at, cost_usd, latency_ms, model, tokens_in, tokens_out"),
        (ROW | {"user_id": "bob", "id": 1}, "has unknown columns 'id', 'user_id'; known: at, model, tokens_in"),
    ],
)
def test_what_is_no_record_is_refused(row: Any, words: str) -> None:
    with pytest.raises(InvalidUsageRecord, match=f"^record 0 {words}"):
        UsageDatabase("ada", [row])


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


def test_a_filter_keeps_its_limits_in_utc_and_its_models_in_a_tuple() -> None:
    at = datetime(2025, 3, 1, 1, tzinfo=timezone(timedelta(hours=1)))
    chosen = UsageFilter(since=at, until=at, models=["a", "b"])  # type: ignore[arg-type]
    assert chosen == UsageFilter(START, START, ("a", "b"))
    assert chosen.since is not None
    assert chosen.until is not None
    assert (chosen.since.tzinfo, chosen.until.tzinfo) == (UTC, UTC)
    assert (UsageFilter().since, UsageFilter().until, UsageFilter().models) == (None, None, None)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"since": NAIVE}, f"{NAIVE!r} {NO_ZONE}"),
        ({"until": NAIVE}, f"{NAIVE!r} {NO_ZONE}"),
        ({"models": "large"}, "models='large' is a single string; pass a tuple of names"),
    ],
)
def test_filters_that_cannot_be_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
        UsageFilter(**options)


END = datetime(2025, 6, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((-1, 1), "per_million_in -1 is not a price; pass finite US dollars, at least 0"),
        ((1, math.inf), "per_million_out inf is not a price"),
        ((math.nan, 1), "per_million_in nan is not a price"),
        ((1, "3"), "per_million_out '3' is a str; pass US dollars as a number"),
        ((True, 1), "per_million_in True is a bool"),
        ((1, None), "per_million_out None is None"),
    ],
)
def test_what_is_no_price_is_named(given: tuple[Any, Any], words: str) -> None:
    with pytest.raises(ValueError, match=f"^{words}"):
        Price(*given)


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
