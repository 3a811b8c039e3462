"""The questions as a table: the name, the parameters, their meaning, and their bounds."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from registry.errors import ContextBoundaryError, InvalidParameters
from registry.usage.database import UsageDatabase, UsageRecord
from registry.usage.prices import PRICES
from registry.usage.questions import ADMIN, QUESTIONS
from registry.usage.tools import USAGE_TOOLS

START = datetime(2025, 3, 1, tzinfo=UTC)
NEEDED = "it must be given"
WINDOW = {"since": None, "until": None, "models": None}
# Each question's parameters with their defaults.
OF_EVERYBODY: dict[str, dict[str, Any]] = {
    "query_usage": WINDOW | {"limit": 100},
    "usage_totals": WINDOW,
    "usage_by_model": WINDOW,
    "usage_by_day": WINDOW,
    "latency_percentiles": WINDOW | {"percentiles": (50, 95, 99)},
    "most_expensive_calls": WINDOW | {"limit": 5},
    "usage_signals": WINDOW | {"latency_limit_ms": 2_000.0, "top_percent": 5},
    "savings_estimate": WINDOW | {"token_threshold": 1_000, "target_model": None, "prices": PRICES},
    "generate_synthetic_usage": {"count": 100, "days": 30, "seed": 0, "end": None},
}
OF_ADMINS: dict[str, dict[str, Any]] = {
    "corpus_statistics": {},
    "corpus_import": {"records": NEEDED},
    "corpus_prune": {"before": NEEDED},
}


def a_record(**fields: Any) -> UsageRecord:
    given: dict[str, Any] = {
        "at": START, "model": "large", "tokens_in": 600, "tokens_out": 400, "latency_ms": 2_000.0, "cost_usd": 0.5,
        "feature": "chat",
    }  # fmt: skip
    return UsageRecord(**(given | fields))


@pytest.fixture
def database() -> Iterator[UsageDatabase]:
    made = UsageDatabase("ada", [a_record()])
    yield made
    made.close()


def said(database: UsageDatabase, question: str, parameters: dict[Any, Any]) -> str:
    """The text of a refusal."""
    with pytest.raises(InvalidParameters) as refused:
        QUESTIONS[question].ask(database, parameters)
    return str(refused.value)


def is_needed(database: UsageDatabase, question: str, name: str) -> bool:
    try:
        QUESTIONS[question].ask(database, {})
    except InvalidParameters as refusal:
        return str(refusal) == f"{question} needs the parameter {name!r}"
    return False


def test_each_question_has_its_name_and_its_parameters_with_their_defaults(database: UsageDatabase) -> None:
    found = {
        question.name: {
            name: NEEDED if is_needed(database, question.name, name) else default
            for name, (_, default) in question.fields.items()
        }
        for question in QUESTIONS.values()
    }
    assert found == OF_EVERYBODY | OF_ADMINS
    assert list(found) == list(QUESTIONS) == [*OF_EVERYBODY, *OF_ADMINS]
    assert all(question.description for question in QUESTIONS.values())


def test_admins_alone_are_asked_about_the_corpus_and_there_is_a_tool_for_each_question() -> None:
    needed = {question.name: question.requires for question in QUESTIONS.values()}
    assert needed == dict.fromkeys(OF_EVERYBODY, frozenset()) | dict.fromkeys(OF_ADMINS, frozenset({ADMIN}))
    assert ADMIN == "admin"
    for tool, question in zip(USAGE_TOOLS, QUESTIONS.values(), strict=True):
        assert (tool.name, tool.description, tool.requires) == (question.name, question.description, question.requires)


@pytest.mark.parametrize(
    ("question", "name", "least", "most"),
    [
        ("query_usage", "limit", 1, 1_000),
        ("most_expensive_calls", "limit", 1, 1_000),
        ("usage_signals", "top_percent", 1, 100),
        ("savings_estimate", "token_threshold", 0, 10**12),
        ("generate_synthetic_usage", "count", 1, 10_000),
        ("generate_synthetic_usage", "days", 1, 3_650),
        ("generate_synthetic_usage", "seed", 0, 2**63),
    ],
)
def test_a_whole_number_is_taken_from_its_least_to_its_most(
    database: UsageDatabase, question: str, name: str, least: int, most: int
) -> None:
    convert, _ = QUESTIONS[question].fields[name]
    assert (convert(least), convert(most)) == (least, most)
    for wrong in (least - 1, most + 1, float(least), True, str(least)):
        expected = f"{question}: {name}: {wrong!r} is not a whole number from {least} to {most}"
        assert said(database, question, {name: wrong}) == expected


def test_percentiles_are_up_to_a_hundred_whole_numbers_from_1_to_100(database: UsageDatabase) -> None:
    ask = QUESTIONS["latency_percentiles"].ask
    assert ask(database, {"percentiles": [1, 100]}) == {"p1": 2_000.0, "p100": 2_000.0}
    assert len(ask(database, {"percentiles": [*range(1, 101)]})) == 100
    for wrong in (0, 101):
        expected = f"latency_percentiles: percentiles: {wrong} is not a whole number from 1 to 100"
        assert said(database, "latency_percentiles", {"percentiles": [wrong]}) == expected
    expected = "101 items are more than the 100 that one call may carry; make several calls"
    assert said(database, "latency_percentiles", {"percentiles": [1] * 101}).endswith(expected)


def test_up_to_a_thousand_models_are_taken_and_ten_thousand_records(database: UsageDatabase) -> None:
    assert QUESTIONS["usage_totals"].ask(database, {"models": ["large"] * 1_000})["calls"] == 1
    expected = "usage_totals: models: 1001 items are more than the 1000 that one call may carry; make several calls"
    assert said(database, "usage_totals", {"models": ["large"] * 1_001}) == expected
    row = a_record().as_row()
    expected = "corpus_import: records: 10001 items are more than the 10000 that one call may carry; make several calls"
    assert said(database, "corpus_import", {"records": [row] * 10_001}) == expected
    assert QUESTIONS["corpus_import"].ask(database, {"records": [row] * 10_000})["imported"] == 10_000


@pytest.mark.parametrize("wrong", [-1, -0.001, float("inf"), float("nan"), True, "5"])
def test_a_limit_in_milliseconds_is_a_finite_number_of_at_least_0(database: UsageDatabase, wrong: Any) -> None:
    expected = f"usage_signals: latency_limit_ms: {wrong!r} is not a finite number of at least 0"
    assert said(database, "usage_signals", {"latency_limit_ms": wrong}) == expected


NO_PRICES = "is not a mapping of model to [US dollars per million in, per million out]"
SECOND, FIRST = "2025-03-02T00:00:00+00:00", "2025-03-01T00:00:00+00:00"
WRONG: list[tuple[str, dict[Any, Any], str]] = [
    ("usage_totals", {"sinse": 1}, "usage_totals has no parameter 'sinse'; did you mean 'since'?"),
    ("usage_totals", {"zebra": 1}, "usage_totals has no parameter 'zebra'; known: since, until, models"),
    ("usage_totals", {3: 1}, "usage_totals has no parameter 3; known: since, until, models"),
    ("usage_totals", {"models": "large"}, "models: 'large' is a str; pass a list"),
    ("usage_totals", {"models": [1]}, "models: 1 is an int; pass a str"),
    ("usage_totals", {"since": "2025-03-01"}, "since: datetime.datetime(2025, 3, 1, 0, 0) has no time zone"),
    ("usage_totals", {"since": "soon"}, "since: Invalid isoformat string: 'soon'"),
    ("usage_totals", {"until": 5}, "until: 5 is an int; pass an aware datetime or ISO 8601 text"),
    ("usage_totals", {"since": SECOND, "until": FIRST}, f"since {SECOND} lies after until {FIRST}; exchange them"),
    ("latency_percentiles", {"percentiles": [99.9]}, "percentiles: 99.9 is not a whole number from 1 to 100"),
    ("savings_estimate", {"target_model": "huge"}, "target_model 'huge' has no price; priced: large, medium, small"),
    ("savings_estimate", {"prices": {}}, f"prices: {{}} {NO_PRICES}"),
    ("savings_estimate", {"prices": [1]}, f"prices: [1] {NO_PRICES}"),
    ("savings_estimate", {"prices": {1: [1, 2]}}, "prices: 1 is an int; pass a str"),
    ("savings_estimate", {"prices": {"small": [1, 2, 3]}}, "prices: the price of 'small' is [1, 2, 3]; pass"),
    ("savings_estimate", {"prices": {"small": "12"}}, "prices: the price of 'small' is '12'; pass [per"),
    ("savings_estimate", {"prices": {"small": [1, -1]}}, "prices: per_million_out -1 is not a price"),
    (
        "generate_synthetic_usage",
        {"end": "0001-01-02T00:00:00Z", "days": 9},
        "9 days before 0001-01-02T00:00:00+00:00 lie",
    ),
    ("corpus_statistics", {"zebra": 1}, "corpus_statistics has no parameter 'zebra'; known: none"),
    ("corpus_import", {}, "corpus_import needs the parameter 'records'"),
    ("corpus_import", {"records": "rows"}, "records: 'rows' is a str; pass a list"),
    ("corpus_prune", {}, "corpus_prune needs the parameter 'before'"),
    ("corpus_prune", {"before": None}, "corpus_prune needs the parameter 'before'"),
]


@pytest.mark.parametrize(("question", "given", "words"), WRONG)
def test_a_refusal_names_the_question_the_parameter_the_value_and_the_remedy(
    database: UsageDatabase, question: str, given: dict[Any, Any], words: str
) -> None:
    assert said(database, question, given).removeprefix(f"{question}: ").startswith(words)
    assert database.totals()["calls"] == 1, "nothing was done"


def test_another_user_s_records_are_refused_in_one_sentence(database: UsageDatabase) -> None:
    words = "^usage_totals was asked for user 'bob', but serves 'ada'$"
    with pytest.raises(ContextBoundaryError, match=words):
        QUESTIONS["usage_totals"].ask(database, {"user_id": "bob"})


def test_savings_name_the_model_and_the_price_they_were_computed_with(database: UsageDatabase) -> None:
    ask = QUESTIONS["savings_estimate"].ask
    by_default = ask(database, {})
    assert (by_default["target_model"], by_default["target_price"]) == ("small", [0.5, 1.5])
    assert by_default["token_threshold"] == 1_000
    assert by_default["switch_calls"] == 1, "600 tokens in and 400 out are just within 1,000"
    own = {"prices": {"a": (9, 9), "b": [1, 2]}, "token_threshold": 999}
    answer = ask(database, own)
    assert (answer["target_model"], answer["target_price"], answer["token_threshold"]) == ("b", [1.0, 2.0], 999)
    assert answer["switch_calls"] == 0
    assert ask(database, own | {"target_model": "a"})["target_price"] == [9.0, 9.0]


def test_what_was_made_up_is_told_as_it_is(database: UsageDatabase) -> None:
    answer = QUESTIONS["generate_synthetic_usage"].ask(database, {"count": 3, "days": 2, "seed": 5})
    rows = [row for row in database.records() if row["feature"].startswith("synthetic/")]
    assert answer == {
        "added": 3,
        "seed": 5,
        "first_at": rows[0]["at"],
        "last_at": rows[-1]["at"],
        "models": sorted({row["model"] for row in rows}),
        "cost_usd": pytest.approx(sum(row["cost_usd"] for row in rows), rel=1e-12),
        "records_after": 4,
    }
    assert START - timedelta(days=2) <= datetime.fromisoformat(answer["first_at"])
    assert datetime.fromisoformat(answer["last_at"]) < START


def test_made_up_records_end_where_they_are_told_or_at_the_turn_of_2026_where_there_is_none() -> None:
    for parameters, end in (({}, datetime(2026, 1, 1, tzinfo=UTC)), ({"end": START.isoformat()}, START)):
        empty = UsageDatabase("ada")
        answer = QUESTIONS["generate_synthetic_usage"].ask(empty, {"count": 200, "days": 1, **parameters})
        assert answer["added"] == 200
        first, last = (datetime.fromisoformat(answer[name]) for name in ("first_at", "last_at"))
        assert end - timedelta(days=1) <= first < end - timedelta(hours=20)
        assert end - timedelta(hours=4) < last < end
        empty.close()


def test_statistics_import_and_pruning_say_how_many() -> None:
    database = UsageDatabase("ada", [a_record(at=START + timedelta(days=day)) for day in (0, 1, 1)])
    statistics = QUESTIONS["corpus_statistics"].ask(database, {})
    assert statistics == {"totals": database.totals(), "by_model": database.by_model(), "days": 2}
    row = a_record(at=START + timedelta(days=5)).as_row()
    assert QUESTIONS["corpus_import"].ask(database, {"records": (row,)}) == {"imported": 1, "records_after": 4}
    before = (START + timedelta(days=1)).isoformat()
    assert QUESTIONS["corpus_prune"].ask(database, {"before": before}) == {"deleted": 1, "records_after": 3}
    database.close()
