"""The meaning of a request to the default agents: its words, its window, the results and settings that come with it."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from registry.errors import InvalidParameters
from registry.usage.agents.actions import ActionsAgent
from registry.usage.agents.base import count, limits_of, ms, percent, usd
from registry.usage.agents.goals_triage import FOCUS_WEIGHT, GOALS
from registry.usage.agents.reporting import DAYS_SHOWN
from registry.usage.agents.triage import CATEGORIES, find_window
from registry.usage.database import UsageSignals
from registry.usage.records import UsageRecord
from registry.usage.synthetic import synthetic_records
from tests.registry.usage.agents.test_default_agents import on_bench, run

NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)
CALLS = list(synthetic_records(1, 12, end=NOON, days=10))

# ----------------------------------------------------------------------------------------------------- words of triage

# Category to the agent type, the goal, and the words: the vocabulary that users may count on.
VOCABULARY = {
    "cost": (
        "optimization",
        ["reduce_cost"],
        (
            "bill bills budget cheap cheaper cost costs dollars expensive money optimise optimize pay price prices "
            "save saving savings spend spending spent"
        ),
    ),
    "latency": (
        "goals_triage",
        ["reduce_latency"],
        "delay fast faster latencies latency p50 p95 p99 percentile percentiles slow slower speed",
    ),
    "tokens": ("goals_triage", ["reduce_tokens"], "prompt prompts token tokens"),
    "outliers": ("goals_triage", ["limit_outliers"], "dearest outlier outliers peak peaks spike spikes"),
    "synthetic_data": ("synthetic_data", [], "fake generate invent synthetic"),
    "corpus": ("corpus_admin", [], "corpus import prune"),
    "report": ("reporting", [], "overview report summarise summarize summary"),
    "usage": ("data_helper", [], "call calls data records requests usage"),
}


async def test_every_word_of_the_vocabulary_is_understood_on_its_own() -> None:
    async with on_bench([]) as bench:
        for category, (agent_type, focus, words) in VOCABULARY.items():
            for word in words.split():
                output = await bench.run("triage", f"the_{word.upper()}!")
                told = output["category"], output["agent_type"], output["focus"]
                assert told == (category, agent_type, focus), word


def test_the_vocabulary_has_no_other_words_and_none_twice() -> None:
    words = [word for _, _, words in VOCABULARY.values() for word in words.split()]
    assert len(words) == len(set(words))
    assert set(words) == {word for _, _, known in CATEGORIES.values() for word in known}
    assert list(CATEGORIES) == list(VOCABULARY), "where some tie the first counts"


async def test_a_word_counts_once_however_often_it_is_said() -> None:
    assert (await run([], "triage", "slow slow slow, and the costs of the bill"))["category"] == "cost"


# ---------------------------------------------------------------------------------------------------- windows of triage

MONDAY, TUESDAY = "2025-03-03T00:00:00+00:00", "2025-03-04T00:00:00+00:00"
NOW = NOON.isoformat()
AFTER = (NOON + timedelta(microseconds=1)).isoformat()


@pytest.mark.parametrize(
    ("text", "since", "until", "label"),
    [
        ("from 2025-03-03 until 2025-03-03", MONDAY, TUESDAY, "from 2025-03-03 until 2025-03-03"),
        ("from 2025-03-03  to\n2025-03-03", MONDAY, TUESDAY, "from 2025-03-03 to 2025-03-03"),
        ("between  2025-03-03 and 2025-03-03", MONDAY, TUESDAY, "between 2025-03-03 and 2025-03-03"),
        ("since 2025-03-03 and before 2025-03-04", MONDAY, None, "since 2025-03-03"),
        ("until 2025-03-04, last week", None, TUESDAY, "until 2025-03-04"),
        ("before\t2025-03-04", None, TUESDAY, "before 2025-03-04"),
        ("last hour", (NOON - timedelta(hours=1)).isoformat(), AFTER, "last hour"),
        ("past day", (NOON - timedelta(days=1)).isoformat(), AFTER, "past day"),
        ("last 2 weeks", (NOON - timedelta(days=14)).isoformat(), AFTER, "last 2 weeks"),
        ("past 2 months", (NOON - timedelta(days=60)).isoformat(), AFTER, "past 2 months"),
        ("last 0 days", NOW, AFTER, "last 0 days"),
        ("last 123456789 hours", None, AFTER, "last 123456789 hours"),
        ("since 2024-02-29, last 3 days", "2024-02-29T00:00:00+00:00", None, "since 2024-02-29"),
        (
            "from 2025-12-31 to 2025-12-31",
            "2025-12-31T00:00:00+00:00",
            "2026-01-01T00:00:00+00:00",
            "from 2025-12-31 to 2025-12-31",
        ),
        ("at least 7 days", None, None, "all records"),
        ("blast 7 days", None, None, "all records"),
        ("insince 2025-03-03", None, None, "all records"),
        ("last 1234567890 days", None, None, "all records"),
        ("since 2025-03-031", None, None, "all records"),
        ("forever", None, None, "all records"),
    ],
)
def test_a_window_is_what_the_words_say(text: str, since: str | None, until: str | None, label: str) -> None:
    assert find_window(text, NOW) == {"since": since, "until": until, "label": label}


def test_now_may_be_written_in_any_zone_and_nothing_is_relative_without_it() -> None:
    assert find_window("last hour", "2025-06-01T14:00:00+02:00") == find_window("last hour", NOW)
    assert find_window("last hour", None) == {"since": None, "until": None, "label": "all records"}
    with pytest.raises(InvalidParameters, match=r"^now 'soon' is not a time in ISO 8601 with an offset: "):
        find_window("last hour", "soon")


# ------------------------------------------------------------------------------------------- results of earlier steps


def window(label: str) -> dict[str, Any]:
    return {"since": None, "until": None, "label": label}


ORDER = {
    "data_helper": ("triage",),
    "optimization": ("triage", "data_helper"),
    "goals_triage": ("triage", "data_helper"),
    "actions": ("optimization", "goals_triage", "data_helper", "triage"),
    "reporting": ("data_helper", "triage", "optimization", "goals_triage", "actions"),
}


async def test_each_agent_takes_the_window_of_the_first_step_that_it_names() -> None:
    async with on_bench(CALLS) as bench:
        steps: dict[str, Any] = {"triage": await bench.run("triage")}
        for step in ORDER:
            steps[step] = await bench.run(step, **steps)
        given = {step: output | {"window": window(step)} for step, output in steps.items()}
        for agent_type, order in ORDER.items():
            for position, step in enumerate(order):
                found = await bench.run(agent_type, **{name: given[name] for name in order[position:]})
                assert found["window"] == window(step), (agent_type, step)
            assert (await bench.run(agent_type))["window"] == window("all records")
            own = await bench.run(agent_type, until=NOW)
            assert own["window"] == {"since": None, "until": NOW, "label": f"from the first to {NOW}"}


async def test_the_window_limits_what_every_agent_counts() -> None:
    since, until = CALLS[3].at.isoformat(), CALLS[9].at.isoformat()
    inside = [record for record in CALLS if CALLS[3].at <= record.at < CALLS[9].at]
    cost = math.fsum(record.cost_usd for record in inside)
    async with on_bench(CALLS) as bench:
        limits = {"since": since, "until": until}
        data = await bench.run("data_helper", **limits)
        assert (data["totals"]["calls"], data["totals"]["cost_usd"]) == (len(inside), cost)
        assert sum(row["calls"] for row in data["by_model"]) == len(inside)
        assert sum(row["calls"] for row in data["by_day"]) == len(inside)
        assert data["latency_ms"]["p99"] == max(record.latency_ms for record in inside)
        assert data["most_expensive"][0]["cost_usd"] == max(record.cost_usd for record in inside)
        assert (await bench.run("optimization", **limits))["cost_usd"] == cost
        assert (await bench.run("goals_triage", **limits))["signals"]["calls"] == len(inside)
        assert (await bench.run("actions", **limits))["cost_usd"] == cost
        assert (await bench.run("reporting", **limits))["figures"]["usage"]["calls"] == len(inside)
    assert limits_of({"since": "1", "until": "2", "label": "3"}) == {"since": "1", "until": "2"}


# -------------------------------------------------------------------------------------------------- goals and actions


async def test_goals_have_stated_limits_which_a_request_may_change() -> None:
    output = await run(CALLS, "goals_triage")
    assert (output["latency_limit_ms"], output["top_percent"]) == (2_000.0, 5)
    output = await run(CALLS, "goals_triage", latency_limit_ms=1, top_percent=50)
    assert (output["latency_limit_ms"], output["top_percent"]) == (1, 50)
    assert (output["signals"]["slow_calls"], output["signals"]["top_calls"]) == (12, 6)
    assert FOCUS_WEIGHT == 2.0
    assert {entry["weight"] for entry in output["goals"]} == {1.0}


async def test_goals_given_more_than_once_or_as_a_tuple_are_ranked_once() -> None:
    output = await run(CALLS, "goals_triage", goals=("reduce_cost", "reduce_tokens", "reduce_cost"))
    assert sorted(entry["goal"] for entry in output["goals"]) == ["reduce_cost", "reduce_tokens"]
    assert [entry["rank"] for entry in output["goals"]] == [1, 2]


SIGNALS: UsageSignals = {
    "calls": 10,
    "tokens_in": 30,
    "tokens_out": 10,
    "cost_usd": 4.0,
    "slow_calls": 1,
    "top_calls": 2,
    "top_calls_cost_usd": 3.0,
    "top_model": "large",
    "top_model_cost_usd": 2.0,
}


def test_scores_are_shares() -> None:
    assert {goal: score(SIGNALS) for goal, score in GOALS.items()} == {
        "limit_outliers": 0.75,
        "reduce_cost": 0.5,
        "reduce_latency": 0.1,
        "reduce_tokens": 0.75,
    }


def goal(name: str, rank: int, score: float) -> dict[str, Any]:
    return {"goal": name, "rank": rank, "score": score}


def savings(cached: tuple[int, float], *switched: tuple[str, int, float]) -> dict[str, Any]:
    rows = [{"model": model, "switch_calls": n, "switch_saving_usd": amount} for model, n, amount in switched]
    total = cached[1] + math.fsum(amount for _, _, amount in switched)
    named = {"cache_calls": cached[0], "cache_saving_usd": cached[1], "saving_usd": total, "target_model": "tiny"}
    return named | {"by_model": rows, "window": window("given")}


async def actions_of(**steps: Any) -> list[tuple[Any, ...]]:
    shown = (await run([UsageRecord(NOON, "m", 1, 1, 1.0, 8.0)], "actions", **steps))["actions"]
    keys = ("number", "action", "goal", "model", "target_model", "calls", "saving_usd", "share_of_cost")
    return [tuple(action[key] for key in keys) for action in shown]


async def test_actions_are_ordered_by_saving_then_rank_then_name() -> None:
    given = savings((3, 1.0), ("zeta", 4, 2.0), ("beta", 5, 1.0), ("alfa", 6, 1.0), ("none", 0, 0.0))
    goals = [goal("reduce_tokens", 1, 0.5), goal("reduce_cost", 2, 0.4), goal("reduce_latency", 3, 0.0)]
    found = await actions_of(
        optimization=given, goals_triage={"goals": goals, "signals": SIGNALS, "window": window("given")}
    )
    assert found == [
        (1, "switch_model", "reduce_cost", "zeta", "tiny", 4, 2.0, 0.25),
        (2, "cache_repeated_calls", "reduce_cost", None, None, 3, 1.0, 0.125),
        (3, "switch_model", "reduce_cost", "alfa", "tiny", 6, 1.0, 0.125),
        (4, "switch_model", "reduce_cost", "beta", "tiny", 5, 1.0, 0.125),
        (5, "shorten_prompts", "reduce_tokens", None, None, 10, None, None),
    ]


async def test_nothing_to_cache_or_to_switch_is_no_action() -> None:
    assert await actions_of(optimization=savings((0, 0.0), ("a", 0, 0.0))) == []
    goals = [goal("reduce_latency", 1, 0.1), goal("limit_outliers", 2, 0.2), goal("other", 3, 0.3)]
    found = await actions_of(goals_triage={"goals": goals, "signals": SIGNALS, "window": window("given")})
    assert [(number, action, calls) for number, action, _, _, _, calls, _, _ in found] == [
        (1, "speed_up_slow_calls", 1),
        (2, "review_dearest_calls", 2),
    ]


@pytest.mark.parametrize("missing", ["cache_calls", "cache_saving_usd", "saving_usd", "target_model", "by_model"])
async def test_actions_need_the_whole_of_the_savings(missing: str) -> None:
    given = {key: value for key, value in savings((1, 1.0)).items() if key != missing}
    with pytest.raises(InvalidParameters, match=rf"^the result of step 'optimization' has no '{missing}'; pass"):
        await actions_of(optimization=given)


@pytest.mark.parametrize("missing", ["goals", "signals"])
async def test_actions_need_goals_and_their_signals(missing: str) -> None:
    given = {key: value for key, value in {"goals": [], "signals": SIGNALS}.items() if key != missing}
    with pytest.raises(InvalidParameters, match=rf"^the result of step 'goals_triage' has no '{missing}'; pass"):
        await actions_of(goals_triage=given)


async def test_a_saving_without_any_cost_is_a_share_of_nothing() -> None:
    output = await run([], "actions", optimization=savings((1, 0.5)))
    assert (output["cost_usd"], output["actions"][0]["share_of_cost"]) == (0.0, 0.0)
    assert output["summary"].endswith("its share of the cost is 0.0 %.")
    assert ActionsAgent.__slots__ == ()


# ---------------------------------------------------------------------------------------- reports, figures and settings


async def test_a_report_needs_the_whole_of_each_result() -> None:
    async with on_bench(CALLS) as bench:
        steps: dict[str, Any] = {}
        for step in ORDER:
            steps[step] = await bench.run(step, **steps)
        needed = {
            "data_helper": ("totals", "by_model", "by_day", "latency_ms"),
            "optimization": (
                *("cost_usd", "cache_calls", "cache_saving_usd", "switch_calls", "switch_saving_usd"),
                *("saving_usd", "saving_share", "projected_cost_usd", "by_model"),
            ),
            "goals_triage": ("goals",),
            "actions": ("actions", "saving_usd"),
        }
        for step, keys in needed.items():
            for key in keys:
                given: Any = {name: value for name, value in steps[step].items() if name != key}
                with pytest.raises(InvalidParameters, match=rf"^the result of step '{step}' has no '{key}'; pass"):
                    await bench.run("reporting", "", **{step: given})


async def test_a_report_shows_a_month_of_days_at_most() -> None:
    assert DAYS_SHOWN == 31
    records = [UsageRecord(NOON - timedelta(days=day), "m", 1, 1, 1.0, 1.0) for day in range(32)]
    report = await run(records, "reporting", data_helper=await run(records, "data_helper"))
    shown = [line for line in report["markdown"].splitlines() if line.startswith("| 2025-")]
    assert [line[2:12] for line in (shown[0], shown[-1])] == ["2025-05-02", "2025-06-01"]
    assert (len(shown), len(report["figures"]["by_day"])) == (31, 32)


def test_figures_are_rounded_in_words_only_and_must_be_numbers() -> None:
    assert (usd(1), usd(0.00005), usd(12_345.678)) == ("1.0000", "0.0001", "12345.6780")
    assert (ms(None), ms(2), ms(0.26)) == ("none", "2.0", "0.3")
    assert (percent(1), percent(0.12345)) == ("100.0", "12.3")
    assert count(1_234_567) == "1234567"
    for bad in (True, "1", None):
        with pytest.raises(InvalidParameters, match=rf"^{bad!r} is not a number$"):
            usd(bad)
    for whole in (True, 1.0, "1"):
        with pytest.raises(InvalidParameters, match=rf"^{whole!r} is not a whole number$"):
            count(whole)


@pytest.mark.parametrize(
    ("text", "parameters", "added", "days"),
    [
        ("", {}, 100, 30),
        ("Generate 7 records", {}, 7, 30),
        ("7 synthetic calls over 3 days", {}, 7, 3),
        ("7 synthetic calls over 3 days", {"count": 2, "days": 1}, 2, 1),
        ("1234567890 records, records 5, 4 daysx", {}, 100, 30),
    ],
)
async def test_how_many_made_up_records_and_of_how_many_days(
    text: str, parameters: dict[str, Any], added: int, days: int
) -> None:
    output = await run([], "synthetic_data", text, seed=5, end=NOW, **parameters)
    expected = synthetic_records(5, added, end=NOON, days=days)
    assert output["added"] == output["records_after"] == added
    assert (output["seed"], output["first_at"]) == (5, expected[0].at.isoformat())


async def test_a_change_of_the_corpus_is_told_with_what_there_is_afterwards() -> None:
    async with on_bench(CALLS, permissions=frozenset({"admin"})) as bench:
        took = await bench.run("corpus_admin", action="import", records=[CALLS[0].as_row()], before="not looked at")
        assert (took["action"], took["result"]) == ("import", {"imported": 1, "records_after": 13})
        assert took["statistics"]["totals"]["calls"] == 13
        cut = await bench.run("corpus_admin", action="prune", before=NOW, records="not looked at")
        assert (cut["action"], cut["result"]) == ("prune", {"deleted": 13, "records_after": 0})
        assert cut["statistics"]["totals"]["calls"] == 0
        assert cut["summary"] == (
            "Corpus: the number of records is 0; the number of models is 0; the number of days is 0; "
            "the cost is 0.0000 USD."
        )
