"""One user's records: every figure recomputed from the raw rows, sums exact to the last bit, nothing left behind."""

from __future__ import annotations

import dataclasses
import gc
import json
import math
import random
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from registry.errors import InvalidUsageRecord, InvalidUserId, SessionClosed
from registry.usage.database import ALL_RECORDS, ExactSum, InMemoryUsage, UsageDatabase, UsageFilter, UsageRecord
from registry.usage.prices import PRICES

START = datetime(2025, 3, 1, tzinfo=UTC)
RECORD = UsageRecord(START, "large", 10, 20, 150.0, 0.25, "chat")


def random_records(seed: int, count: int = 120) -> list[UsageRecord]:
    """Records with costs whose sum depends on the order of adding, equal times, and repeated calls."""
    rng = random.Random(seed)
    return [
        UsageRecord(
            at=START + timedelta(hours=rng.randrange(0, 24 * 6), microseconds=rng.randrange(0, 2)),
            model=rng.choice(["large", "medium", "small"]),
            tokens_in=rng.choice([10, 400, 900, 5_000]),
            tokens_out=rng.choice([5, 100, 600]),
            latency_ms=rng.choice([0.1, 33.3, 1999.9, 2000.0, 2000.1, 1e7 / 3]),
            cost_usd=rng.choice([0.0, 1e-9, 0.1, 0.7, 1e6 / 3]),
            feature=rng.choice(["", "chat"]),
        )
        for _ in range(count)
    ]


@pytest.fixture
def database() -> Iterator[UsageDatabase]:
    made = UsageDatabase("ada", random_records(1))
    yield made
    made.close()


def summed(records: list[UsageRecord]) -> dict[str, Any]:
    """The five figures of any group of records, straight from their definition."""
    return {
        "calls": len(records),
        "tokens_in": sum(record.tokens_in for record in records),
        "tokens_out": sum(record.tokens_out for record in records),
        "cost_usd": math.fsum(record.cost_usd for record in records),
        "latency_ms_mean": math.fsum(r.latency_ms for r in records) / len(records) if records else None,
    }


def without(row: Mapping[str, object], *names: str) -> dict[str, object]:
    """The row without these columns."""
    return {name: value for name, value in row.items() if name not in names}


def open_connections() -> int:
    return sum(isinstance(thing, sqlite3.Connection) for thing in gc.get_objects())


def test_groups_come_in_the_order_that_is_promised() -> None:
    database = UsageDatabase(
        "ada",
        [
            dataclasses.replace(RECORD, model="b", cost_usd=1.0, at=START + timedelta(days=1)),
            dataclasses.replace(RECORD, model="a", cost_usd=0.6),
            dataclasses.replace(RECORD, model="c", cost_usd=0.9),
            dataclasses.replace(RECORD, model="a", cost_usd=0.4),
        ],
    )
    # By the sum (a and b tie at 1.0), and not by any single row's cost.
    assert [row["model"] for row in database.by_model()] == ["a", "b", "c"]
    assert [row["day"] for row in database.by_day()] == ["2025-03-01", "2025-03-02"]
    database.close()


def test_records_come_back_as_they_were_oldest_first(database: UsageDatabase) -> None:
    expected = sorted(random_records(1), key=lambda record: record.at)
    assert database.records() == [record.as_row() for record in expected]
    assert database.records(limit=3) == [record.as_row() for record in expected[:3]]


def test_the_dearest_come_first_and_older_before_newer(database: UsageDatabase) -> None:
    expected = sorted(random_records(1), key=lambda record: (-record.cost_usd, record.at))
    assert database.most_expensive(limit=7) == [record.as_row() for record in expected[:7]]


def test_a_window_includes_its_start_and_excludes_its_end_to_the_microsecond() -> None:
    tick = timedelta(microseconds=1)
    times = [START - tick, START, START + tick]
    database = UsageDatabase("ada", [dataclasses.replace(RECORD, at=at) for at in times])

    def chosen(since: datetime | None, until: datetime | None) -> list[str]:
        return [row["at"] for row in database.records(UsageFilter(since, until))]

    shown = [at.isoformat() for at in times]
    assert chosen(START, None) == shown[1:]
    assert chosen(None, START) == shown[:1]
    assert chosen(START, START + tick) == shown[1:2]
    assert chosen(START, START) == []
    # The same moment under another name.
    elsewhere = START.astimezone(timezone(timedelta(hours=-7)))
    assert chosen(elsewhere, None) == shown[1:]
    database.close()


def test_days_are_days_in_utc_whatever_zone_the_record_came_in() -> None:
    late = datetime(2025, 3, 1, 23, 30, tzinfo=timezone(timedelta(hours=-5)))
    record = dataclasses.replace(RECORD, at=late)
    assert record.at == late
    assert record.at.tzinfo is UTC
    database = UsageDatabase("ada", [record])
    assert [row["day"] for row in database.by_day()] == ["2025-03-02"]
    database.close()


def test_models_are_chosen_by_equality_and_none_of_them_is_none(database: UsageDatabase) -> None:
    records = random_records(1)
    wanted = UsageFilter(models=("large", "small"))
    assert database.totals(wanted)["calls"] == sum(record.model in ("large", "small") for record in records)
    assert database.totals(UsageFilter(models=()))["calls"] == 0
    assert database.totals(UsageFilter(models=("LARGE",)))["calls"] == 0
    names = ["large"]
    chosen = UsageFilter(models=names)  # type: ignore[arg-type]
    names.append("small")
    assert database.totals(chosen) == database.totals(UsageFilter(models=("large",)))


def test_without_records_counts_are_zero_and_what_has_no_value_is_none() -> None:
    database = UsageDatabase("ada")
    assert database.totals() == summed([]) | {"first_at": None, "last_at": None}
    assert database.totals()["cost_usd"] == 0.0
    assert (database.by_model(), database.by_day(), database.records(), database.most_expensive()) == ([], [], [], [])
    assert database.latency_percentiles() == {"p50": None, "p95": None, "p99": None}
    signals = database.signals(latency_limit_ms=1.0, top_percent=5)
    assert "-" not in json.dumps(signals), "0.0 and -0.0 are equal, and one of them is written with a sign"
    assert signals == {
        "calls": 0,
        "tokens_in": 0,
        "tokens_out": 0,
        "cost_usd": 0.0,
        "slow_calls": 0,
        "top_calls": 0,
        "top_calls_cost_usd": 0.0,
        "top_model": None,
        "top_model_cost_usd": 0.0,
    }
    savings = database.savings(token_threshold=100, target_model="small", price=PRICES["small"])
    assert savings["saving_usd"] == savings["projected_cost_usd"] == savings["saving_share"] == 0.0
    assert savings["by_model"] == []
    database.close()


@pytest.mark.parametrize("seed", range(3))
def test_signals_follow_from_the_raw_records(seed: int) -> None:
    records = random_records(seed)
    database = UsageDatabase("ada", records)
    signals = database.signals(latency_limit_ms=2_000.0, top_percent=7)
    costs = sorted((record.cost_usd for record in records), reverse=True)
    top = math.ceil(7 * len(records) / 100)
    by_model = {model: math.fsum(r.cost_usd for r in records if r.model == model) for model in PRICES}
    dearest = max(sorted(by_model), key=lambda model: by_model[model])
    assert signals == {
        **{name: summed(records)[name] for name in ("calls", "tokens_in", "tokens_out", "cost_usd")},
        "slow_calls": sum(record.latency_ms > 2_000.0 for record in records),
        "top_calls": top,
        "top_calls_cost_usd": math.fsum(costs[:top]),
        "top_model": dearest,
        "top_model_cost_usd": by_model[dearest],
    }
    assert 0 < signals["slow_calls"] < len(records)
    database.close()


def test_names_are_data_and_never_sql() -> None:
    hostile = "x'; DROP TABLE usage; --"
    database = UsageDatabase("ada", [dataclasses.replace(RECORD, model=hostile, feature=hostile), RECORD])
    assert database.totals(UsageFilter(models=(hostile,)))["calls"] == 1
    assert {row["model"] for row in database.by_model()} == {hostile, "large"}
    assert len(database) == 2
    database.close()


# ------------------------------------------------------------------------------------------------------------- inputs


# ------------------------------------------------------------------------------------------------- many records at once

MANY = 2_500


class Watched:
    """An iterator of records that counts how many of those it gave are alive."""

    def __init__(self, records: list[UsageRecord], fail_at: int = -1) -> None:
        self.given = 0
        self.most_alive = 0
        self._records = records
        self._fail_at = fail_at

    def __iter__(self) -> Iterator[Any]:
        for record in self._records:
            if self.given == self._fail_at:
                yield {"at": record.at}
            self.given += 1
            yield record.as_row()
            if self.given % 100 == 0:
                alive = sum(type(thing) is UsageRecord for thing in gc.get_objects())
                self.most_alive = max(self.most_alive, alive - len(self._records))


def test_records_from_an_iterator_never_all_become_objects() -> None:
    records = random_records(4, MANY)
    gc.collect()
    before = sum(type(thing) is UsageRecord for thing in gc.get_objects())
    source = Watched(records)
    database = UsageDatabase("ada", source)
    assert source.given == len(database) == MANY
    assert 0 < source.most_alive <= 1_100
    gc.collect()
    assert sum(type(thing) is UsageRecord for thing in gc.get_objects()) <= before + 10
    more = Watched(records)
    assert database.append(more) == MANY
    assert more.most_alive <= 1_100
    assert len(database) == 2 * MANY
    database.close()


def test_up_to_a_thousand_wait_for_the_first_question_and_more_do_not() -> None:
    records = random_records(5, 1_001)
    before = open_connections()
    few = UsageDatabase("ada", iter(records[:1_000]))
    listed = UsageDatabase("ada", records)
    assert open_connections() == before
    more = UsageDatabase("ada", iter(records))
    assert open_connections() == before + 1
    assert [len(few), len(listed), len(more)] == [1_000, 1_001, 1_001]
    for database in (few, listed, more):
        database.close()


@pytest.mark.parametrize("place", [0, 1_000, MANY - 1])
def test_of_many_records_all_are_added_or_none(place: int) -> None:
    records = random_records(6, MANY)
    before = open_connections()
    with pytest.raises(InvalidUsageRecord, match=f"^record {place} lacks"):
        UsageDatabase("ada", Watched(records, place))
    # Closed, too: a warning of one that never was would fail this test.
    gc.collect()
    assert open_connections() == before
    database = UsageDatabase("ada", [RECORD])
    with pytest.raises(InvalidUsageRecord, match=f"^record {place} lacks"):
        database.append(Watched(records, place))
    assert len(database) == database.totals()["calls"] == 1
    assert database.append(iter(records)) == MANY
    assert len(database) == MANY + 1
    database.close()


# ----------------------------------------------------------------------------------------------------------- lifetime


def test_adding_and_pruning_take_effect_at_once(database: UsageDatabase) -> None:
    before = len(database)
    assert database.append([RECORD, RECORD.as_row()]) == 2
    assert len(database) == before + 2
    cut = START + timedelta(days=3)
    old = database.totals(UsageFilter(until=cut))["calls"]
    assert 2 <= old < before
    assert database.prune(cut) == old
    assert len(database) == before + 2 - old
    first_at = database.totals()["first_at"]
    assert first_at is not None
    assert datetime.fromisoformat(first_at) >= cut
    assert database.prune(cut) == 0


USES: list[Callable[[UsageDatabase], object]] = [
    UsageDatabase.totals,
    UsageDatabase.by_model,
    UsageDatabase.by_day,
    UsageDatabase.records,
    UsageDatabase.most_expensive,
    UsageDatabase.latency_percentiles,
    len,
    lambda database: database.append([RECORD]),
    lambda database: database.append([]),
    lambda database: database.prune(START),
    lambda database: database.signals(latency_limit_ms=1.0, top_percent=1),
    lambda database: database.savings(token_threshold=1, target_model="small", price=PRICES["small"]),
]


@pytest.mark.parametrize("asked_before", [False, True])
def test_after_the_end_every_use_is_refused(asked_before: bool) -> None:
    database = UsageDatabase("ada", [RECORD])
    if asked_before:
        database.totals()
    database.close()
    database.close()
    assert not any(
        isinstance(held, UsageRecord) for tied in gc.get_referents(database) for held in gc.get_referents(tied)
    )
    for use in USES:
        with pytest.raises(SessionClosed, match="usage database of user 'ada' is closed"):
            use(database)
    assert repr(database) == "<UsageDatabase user='ada' closed>"


def test_closing_frees_the_connection_without_the_garbage_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        before = open_connections()
        database = UsageDatabase("ada", [RECORD])
        database.savings(token_threshold=1, target_model="small", price=PRICES["small"])
        assert open_connections() == before + 1
        database.close()
        assert open_connections() == before
    finally:
        gc.enable()


def test_one_that_was_never_closed_is_told_of_and_freed_all_the_same() -> None:
    gc.collect()
    gc.disable()
    try:
        before = open_connections()
        database = UsageDatabase("ada", [RECORD])
        database.totals()
        with pytest.warns(ResourceWarning, match="^the usage database of user 'ada' was never closed$") as caught:
            del database
        assert caught[0].filename == __file__, "it points at who let it go"
        assert open_connections() == before
        # One that never opened anything has nothing to give back; a warning would fail this test.
        UsageDatabase("ada", [RECORD])
    finally:
        gc.enable()


def test_it_can_be_closed_from_a_thread_that_outlives_its_own() -> None:
    """A loop's thread may end before its leftovers are given back."""
    made: list[UsageDatabase] = []

    def work() -> None:
        made.append(UsageDatabase("ada", [RECORD]))
        made[0].totals()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    before = open_connections()
    made[0].close()
    assert open_connections() == before - 1


# ------------------------------------------------------------------------------------------------- sources and prices


def test_a_source_keeps_users_apart_and_hands_out_no_list_of_its_own() -> None:
    other = dataclasses.replace(RECORD, model="small")
    rows = [RECORD]
    source = InMemoryUsage({"ada": rows})
    rows.append(other)
    source.add("Ada", [other])
    before = source.records_for("ada")
    source.add("ada", [RECORD])
    assert list(before) == [RECORD]
    assert list(source.records_for("ada")) == [RECORD, RECORD]
    assert list(source.records_for("Ada")) == [other]
    assert list(source.records_for("nobody")) == []
    assert repr(source) == "<InMemoryUsage users=2 records=3>"
    with pytest.raises(InvalidUserId):
        source.add("", [RECORD])
    with pytest.raises(InvalidUsageRecord, match="record 1"):
        source.add("ada", [other, 3])  # type: ignore[list-item]
    assert list(source.records_for("ada")) == [RECORD, RECORD]


Ask = Callable[[UsageDatabase, UsageFilter], Any]
QUESTIONS: dict[str, Ask] = {
    "records": UsageDatabase.records,
    "most_expensive": UsageDatabase.most_expensive,
    "totals": UsageDatabase.totals,
    "by_model": UsageDatabase.by_model,
    "by_day": UsageDatabase.by_day,
    "latency_percentiles": lambda database, chosen: database.latency_percentiles(chosen, tuple(range(1, 101))),
    "signals": lambda database, chosen: database.signals(chosen, latency_limit_ms=1_000.0, top_percent=10),
    "savings": lambda database, chosen: database.savings(
        chosen, token_threshold=1_000, target_model="small", price=PRICES["small"]
    ),
}
MIDDLE = UsageFilter(START + timedelta(hours=30), START + timedelta(hours=100), ("large", "medium"))


@pytest.mark.parametrize("question", QUESTIONS)
def test_what_was_not_chosen_counts_for_nothing(question: str) -> None:
    ask, records = QUESTIONS[question], random_records(11)
    chosen = [r for r in records if MIDDLE.since <= r.at < MIDDLE.until and r.model != "small"]  # type: ignore[operator]
    whole, part = UsageDatabase("ada", records), UsageDatabase("ada", chosen)
    answer = ask(whole, MIDDLE)
    assert answer == ask(part, ALL_RECORDS)
    assert answer != ask(whole, ALL_RECORDS)
    whole.close()
    part.close()


# -------------------------------------------------------------------------------------------------------- exact sums


LEAST = 100
# Far apart in size, so that every rounding error of a plain sum would show; their sums stay finite.
VALUES = st.floats(min_value=-1e300, max_value=1e300, allow_nan=False)


def exactly(values: list[float | None], most: int = LEAST) -> ExactSum:
    made = ExactSum(most)
    for value in values:
        made.step(value)
        assert len(made) <= most
    return made


@given(st.lists(VALUES, max_size=50), st.integers(1, 12))
@example([1e300, 1.0, -1e300, 5e-324], 40)
@example([0.1, 1e16, -1e16], 50)
def test_it_is_fsum_to_the_last_bit(values: list[float], times: int) -> None:
    repeated = values * times
    assert exactly([*repeated]).finalize() == math.fsum(repeated)


@given(st.lists(st.sampled_from([2.0**power for power in range(-1074, 990, 61)] + [0.0, -1.0, 3.7]), max_size=400))
def test_even_where_the_sum_spans_all_sizes_of_a_double(values: list[float]) -> None:
    assert exactly([*values]).finalize() == math.fsum(values)


def test_nulls_do_not_count_and_nothing_sums_to_zero() -> None:
    assert exactly([]).finalize() == 0.0
    assert exactly([None, 0.5, None]).finalize() == 0.5


@pytest.mark.parametrize(("make", "most"), [(ExactSum, 4_096), (lambda: ExactSum(100), 100)])
def test_a_sum_holds_fewer_floats_than_it_may(make: Any, most: int) -> None:
    total = make()
    for count in range(1, most):
        total.step(1.0)
        assert len(total) == count
    total.step(1.0)
    assert len(total) == 1
    assert total.finalize() == most
    with pytest.raises(ValueError, match="most=99"):
        ExactSum(99)
