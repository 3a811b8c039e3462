"""Made-up data is the same for everybody: the default prices, and the records of a seed."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from inline_snapshot import snapshot

from registry.usage.prices import PRICES, Price, cheapest
from registry.usage.synthetic import SYNTHETIC_FEATURES, synthetic_records
from tests.registry.refusing import Refusals

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
