"""Figures of chosen records are those of a user who has no others; and where a warning of records left open points."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from registry.usage.database import ALL_RECORDS, UsageDatabase, UsageFilter, UsageRecord
from registry.usage.prices import PRICES

START = datetime(2025, 3, 1, tzinfo=UTC)


def made_up(count: int = 60) -> list[UsageRecord]:
    """Records with dear and cheap ones, slow and quick ones, first calls and repeats in every window."""
    rng = random.Random(11)
    return [
        UsageRecord(
            at=START + timedelta(hours=hour),
            model=rng.choice(["large", "medium", "small"]),
            tokens_in=rng.choice([10, 400]),
            tokens_out=rng.choice([5, 600]),
            latency_ms=10.0 * (hour + 1),
            cost_usd=rng.choice([0.1, 0.2, 0.7, 3.0]),
            feature=rng.choice(["", "chat"]),
        )
        for hour in range(count)
    ]


Ask = Callable[[UsageDatabase, UsageFilter], Any]
QUESTIONS: dict[str, Ask] = {
    "records": UsageDatabase.records,
    "most_expensive": UsageDatabase.most_expensive,
    "totals": UsageDatabase.totals,
    "by_model": UsageDatabase.by_model,
    "by_day": UsageDatabase.by_day,
    "latency_percentiles": UsageDatabase.latency_percentiles,
    "signals": lambda database, chosen: database.signals(chosen, latency_limit_ms=200.0, top_percent=10),
    "savings": lambda database, chosen: database.savings(
        chosen, token_threshold=700, target_model="small", price=PRICES["small"]
    ),
}
MIDDLE = UsageFilter(START + timedelta(hours=7), START + timedelta(hours=50), ("large", "medium"))


@pytest.mark.parametrize("question", QUESTIONS)
def test_what_was_not_chosen_counts_for_nothing(question: str) -> None:
    ask, records = QUESTIONS[question], made_up()
    chosen = [record for record in records[7:50] if record.model != "small"]
    whole, part = UsageDatabase("ada", records), UsageDatabase("ada", chosen)
    answer = ask(whole, MIDDLE)
    assert answer == ask(part, ALL_RECORDS)
    assert answer != ask(whole, ALL_RECORDS)
    whole.close()
    part.close()


def test_how_many_are_shown_and_which_percentiles_where_nothing_is_said() -> None:
    database = UsageDatabase("ada", made_up(120))
    assert len(database.records()) == 120
    assert len(database.most_expensive()) == 5
    assert database.records(limit=0) == []
    assert list(database.latency_percentiles()) == ["p50", "p95", "p99"]
    database.close()


def test_a_row_has_every_column_in_the_order_of_a_record() -> None:
    record = made_up(1)[0]
    database = UsageDatabase("ada", [record])
    (row,) = database.records()
    assert row == record.as_row()
    assert list(row) == ["at", "model", "tokens_in", "tokens_out", "latency_ms", "cost_usd", "feature"]
    assert list(database.totals()) == [
        "calls", "tokens_in", "tokens_out", "cost_usd", "latency_ms_mean", "first_at", "last_at",
    ]  # fmt: skip
    database.close()


def test_the_warning_of_one_left_open_points_at_who_let_it_go() -> None:
    database = UsageDatabase("ada", made_up(1))
    database.totals()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del database
    (warning,) = caught
    assert (warning.category, warning.filename) == (ResourceWarning, __file__)
    assert str(warning.message) == "the usage database of user 'ada' was never closed"
