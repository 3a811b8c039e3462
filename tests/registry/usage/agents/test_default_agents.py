"""The eight default agents: every figure recomputed from the raw records, in a real registry."""

from __future__ import annotations

import asyncio
import gc
import json
import math
import re
import weakref
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from registry.agent import AgentRequest, BaseAgent
from registry.agent_registry import AgentRegistry
from registry.context import UserExecutionContext
from registry.errors import InvalidParameters, InvalidUsageRecord, PermissionDenied, UnknownTool
from registry.events.manager import WebSocketManager
from registry.events.types import Event, EventType
from registry.llm.base import Completion, LLMManager, Prompt
from registry.usage.agents import DEFAULT_AGENTS
from registry.usage.agents.goals_triage import GOALS
from registry.usage.agents.reporting import DAYS_SHOWN
from registry.usage.agents.triage import CATEGORIES
from registry.usage.database import InMemoryUsage, UsageRecord
from registry.usage.synthetic import synthetic_records
from registry.usage.tools import UsageDispatcher, usage_dispatcher_factory

END = datetime(2025, 6, 1, tzinfo=UTC)


def records_of(seed: int, count: int = 150, days: int = 60) -> list[UsageRecord]:
    return list(synthetic_records(seed, count, end=END, days=days))


class Bench:
    """One user in a real registry, with a client that listens."""

    def __init__(self, registry: AgentRegistry, permissions: frozenset[str]) -> None:
        self.registry = registry
        self.context = UserExecutionContext("ada", permissions=permissions)
        self.manager = WebSocketManager()
        self.connection = self.manager.connect("ada")

    async def run(self, agent_type: str, text: str = "", **parameters: Any) -> Any:
        agent = await self.registry.create_agent_for_user("ada", agent_type, self.context, self.manager)
        return (await agent.run(AgentRequest(text, parameters))).output

    def events(self) -> list[Event]:
        found = []
        while (event := self.connection.receive_nowait()) is not None:
            found.append(event)
        return found


@asynccontextmanager
async def on_bench(
    records: list[UsageRecord], *, permissions: frozenset[str] = frozenset(), llm_manager: Any = None
) -> AsyncIterator[Bench]:
    source = InMemoryUsage({"ada": records, "bob": records_of(99)})
    async with AgentRegistry(llm_manager, usage_dispatcher_factory(source)) as registry:
        registry.register_default_agents()
        yield Bench(registry, permissions)


async def run(records: list[UsageRecord], agent_type: str, text: str = "", **parameters: Any) -> Any:
    async with on_bench(records, permissions=frozenset({"admin"})) as bench:
        return await bench.run(agent_type, text, **parameters)


# ------------------------------------------------------------------------------------ the same, from the raw records


def summed(records: list[UsageRecord]) -> dict[str, Any]:
    return {
        "calls": len(records),
        "tokens_in": sum(record.tokens_in for record in records),
        "tokens_out": sum(record.tokens_out for record in records),
        "cost_usd": math.fsum(record.cost_usd for record in records),
        "latency_ms_mean": math.fsum(r.latency_ms for r in records) / len(records) if records else None,
    }


def nearest_rank(values: list[float], percentile: int) -> float:
    return sorted(values)[math.ceil(percentile * len(values) / 100) - 1]


def savings_of(records: list[UsageRecord], threshold: int = 1_000) -> dict[str, float]:
    """With the table's defaults: switch to `small`, at 0.5 and 1.5 dollars for a million tokens."""
    seen, cached, switched = set(), [], []
    for record in sorted(records, key=lambda record: record.at):
        key = (record.model, record.feature, record.tokens_in, record.tokens_out)
        gain = record.cost_usd - (record.tokens_in * 0.5 + record.tokens_out * 1.5) / 1_000_000.0
        if key in seen:
            cached.append(record.cost_usd)
        elif record.model != "small" and record.tokens_in + record.tokens_out <= threshold and gain > 0:
            switched.append(gain)
        seen.add(key)
    return {
        "cache_calls": len(cached),
        "cache_saving_usd": math.fsum(cached),
        "switch_calls": len(switched),
        "switch_saving_usd": math.fsum(switched),
        "saving_usd": math.fsum(cached) + math.fsum(switched),
    }


# -------------------------------------------------------------------------------------------------------------- triage


@pytest.mark.parametrize(
    ("text", "category", "focus"),
    [
        ("Where can I save money?", "cost", ["reduce_cost"]),
        ("Why is everything so SLOW?", "latency", ["reduce_latency"]),
        ("cost and latency, please", "cost", ["reduce_cost", "reduce_latency"]),
        ("cost of slow, delayed, fast p95 calls", "latency", ["reduce_cost", "reduce_latency"]),
        ("how many tokens in my prompts", "tokens", ["reduce_tokens"]),
        ("show the outliers", "outliers", ["limit_outliers"]),
        ("generate 20 synthetic records", "synthetic_data", []),
        ("prune the corpus", "corpus", []),
        ("a summary, please", "report", []),
        ("how many calls did I make", "usage", []),
        ("guten Tag", "usage", []),
        ("", "usage", []),
        ("costume party", "usage", []),
    ],
)
async def test_triage_classifies_by_whole_words(text: str, category: str, focus: list[str]) -> None:
    output = await run(records_of(1), "triage", text)
    assert (output["category"], output["focus"]) == (category, focus)
    assert output["agent_type"] == CATEGORIES[category][0]
    assert output["agent_type"] in DEFAULT_AGENTS
    assert output["window"] == {"since": None, "until": None, "label": "all records"}
    assert set(output["focus"]) <= set(GOALS)


async def test_a_relative_window_ends_with_the_newest_record_or_with_now() -> None:
    records = records_of(2)
    newest = max(record.at for record in records)
    window = (await run(records, "triage", "cost of the last 10 days"))["window"]
    assert window["since"] == (newest - timedelta(days=10)).isoformat()
    assert window["until"] == (newest + timedelta(microseconds=1)).isoformat()
    assert window["label"] == "last 10 days"
    totals = (await run(records, "data_helper", triage={"window": window}))["totals"]
    assert totals["calls"] == sum(record.at >= newest - timedelta(days=10) for record in records)
    later = (await run(records, "triage", "cost of the last 10 days", now="2030-01-01T00:00:00Z"))["window"]
    assert later["since"] == "2029-12-22T00:00:00+00:00"
    assert (await run([], "triage", "cost of the last 10 days"))["window"]["since"] is None


# ---------------------------------------------------------------------------------------------------- data and savings


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_data_helper_says_what_the_raw_records_say(seed: int) -> None:
    records = records_of(seed)
    since, until = END - timedelta(days=40), END - timedelta(days=10)
    inside = [record for record in records if since <= record.at < until]
    assert 0 < len(inside) < len(records)
    output = await run(records, "data_helper", since=since.isoformat(), until=until.isoformat())
    assert output["totals"] == summed(inside) | {
        "first_at": min(record.at for record in inside).isoformat(),
        "last_at": max(record.at for record in inside).isoformat(),
    }
    assert {row["model"]: row["cost_usd"] for row in output["by_model"]} == {
        model: math.fsum(r.cost_usd for r in inside if r.model == model) for model in {r.model for r in inside}
    }
    assert [row["day"] for row in output["by_day"]] == sorted({r.at.date().isoformat() for r in inside})
    assert output["latency_ms"] == {f"p{p}": nearest_rank([r.latency_ms for r in inside], p) for p in (50, 95, 99)}
    dearest = sorted(inside, key=lambda record: (-record.cost_usd, record.at))[:5]
    assert output["most_expensive"] == [record.as_row() for record in dearest]
    assert f"the number of calls is {len(inside)}" in output["summary"]


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_optimization_computes_what_its_docstring_says(seed: int) -> None:
    records = records_of(seed)
    output = await run(records, "optimization")
    expected = savings_of(records)
    assert {name: output[name] for name in expected} == expected
    assert expected["cache_calls"] > 0 < expected["switch_calls"]
    cost = math.fsum(record.cost_usd for record in records)
    assert output["cost_usd"] == cost
    assert output["projected_cost_usd"] == cost - expected["saving_usd"]
    assert output["saving_share"] == expected["saving_usd"] / cost
    assert (output["target_model"], output["token_threshold"]) == ("small", 1_000)
    assert f"{expected['saving_usd']:.4f} USD" in output["summary"]


async def test_optimization_takes_its_settings_from_the_request_and_its_window_from_the_steps() -> None:
    records = records_of(4)
    assert (await run(records, "optimization", token_threshold=50))["switch_calls"] == savings_of(records, 50)[
        "switch_calls"
    ]
    half = END - timedelta(days=30)
    window = {"since": half.isoformat(), "until": None, "label": "half"}
    output = await run(records, "optimization", data_helper={"window": window})
    assert output["saving_usd"] == savings_of([record for record in records if record.at >= half])["saving_usd"]
    assert output["window"] == window
    dearer = await run(records, "optimization", prices={"free": [0, 0], "small": [0.5, 1.5]}, token_threshold=10**9)
    assert dearer["target_model"] == "free"
    assert dearer["saving_usd"] == pytest.approx(dearer["cost_usd"])
    with pytest.raises(InvalidParameters, match="target_model 'huge' has no price"):
        await run(records, "optimization", target_model="huge")


# ---------------------------------------------------------------------------------------------------- goals and actions


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_goals_are_ranked_by_shares_of_the_raw_records(seed: int) -> None:
    records = records_of(seed)
    total = summed(records)
    by_model = [math.fsum(r.cost_usd for r in records if r.model == model) for model in {r.model for r in records}]
    top = math.ceil(5 * len(records) / 100)
    dearest = sorted((record.cost_usd for record in records), reverse=True)[:top]
    scores = {
        "reduce_cost": max(by_model) / total["cost_usd"],
        "limit_outliers": math.fsum(dearest) / total["cost_usd"],
        "reduce_latency": sum(record.latency_ms > 2_000 for record in records) / len(records),
        "reduce_tokens": total["tokens_in"] / (total["tokens_in"] + total["tokens_out"]),
    }
    output = await run(records, "goals_triage", triage={"focus": ["reduce_latency"], "window": ALL})
    assert {entry["goal"]: entry["score"] for entry in output["goals"]} == scores
    weights = {goal: 2.0 if goal == "reduce_latency" else 1.0 for goal in scores}
    ranked = sorted(scores, key=lambda goal: (-scores[goal] * weights[goal], goal))
    assert [(entry["rank"], entry["goal"]) for entry in output["goals"]] == list(enumerate(ranked, start=1))
    assert all(entry["priority"] == scores[entry["goal"]] * weights[entry["goal"]] for entry in output["goals"])


ALL: Mapping[str, Any] = {"since": None, "until": None, "label": "all records"}


async def test_only_the_goals_that_were_asked_for_are_ranked() -> None:
    records = records_of(1)
    output = await run(records, "goals_triage", goals=["reduce_tokens", "reduce_cost"])
    assert {entry["goal"] for entry in output["goals"]} == {"reduce_tokens", "reduce_cost"}
    for bad, message in (
        (["reduce_costs"], "did you mean 'reduce_cost'"),
        ("reduce_cost", "not a list"),
        ([], "not a list"),
    ):
        with pytest.raises(InvalidParameters, match=message):
            await run(records, "goals_triage", goals=bad)
    strict = await run(records, "goals_triage", latency_limit_ms=0, top_percent=100)
    scores = {entry["goal"]: entry["score"] for entry in strict["goals"]}
    assert (scores["reduce_latency"], scores["limit_outliers"]) == (1.0, 1.0)


async def test_goals_of_a_user_without_records_score_nothing_and_are_ranked_by_name() -> None:
    goals = (await run([], "goals_triage"))["goals"]
    assert [(entry["goal"], entry["score"]) for entry in goals] == [(goal, 0.0) for goal in sorted(GOALS)]


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_actions_carry_the_amounts_of_the_steps(seed: int) -> None:
    records = records_of(seed)
    savings, goals = (await run(records, "optimization")), (await run(records, "goals_triage"))
    output = await run(records, "actions", optimization=savings, goals_triage=goals)
    expected = savings_of(records)
    actions = output["actions"]
    assert output["saving_usd"] == expected["saving_usd"]
    assert math.isclose(math.fsum(a["saving_usd"] or 0.0 for a in actions), expected["saving_usd"], rel_tol=1e-12)
    cache = [action for action in actions if action["action"] == "cache_repeated_calls"]
    assert [(a["calls"], a["saving_usd"]) for a in cache] == [(expected["cache_calls"], expected["cache_saving_usd"])]
    switch = {a["model"]: (a["calls"], a["saving_usd"]) for a in actions if a["action"] == "switch_model"}
    assert set(switch) == {"large", "medium"}
    assert sum(calls for calls, _ in switch.values()) == expected["switch_calls"]
    cost = math.fsum(record.cost_usd for record in records)
    assert output["cost_usd"] == cost
    for action in actions:
        if action["saving_usd"] is not None:
            assert action["share_of_cost"] == action["saving_usd"] / cost
    assert [action["number"] for action in actions] == list(range(1, len(actions) + 1))
    amounts = [-math.inf if action["saving_usd"] is None else action["saving_usd"] for action in actions]
    assert amounts == sorted(amounts, reverse=True)
    ranks = {entry["goal"]: entry["rank"] for entry in goals["goals"]}
    promised_nothing = [ranks[action["goal"]] for action in actions if action["saving_usd"] is None]
    assert promised_nothing == sorted(promised_nothing)
    signals = goals["signals"]
    assert {action["action"]: action["calls"] for action in actions if action["saving_usd"] is None} == {
        "review_dearest_calls": signals["top_calls"],
        "speed_up_slow_calls": signals["slow_calls"],
        "shorten_prompts": len(records),
    }


async def test_a_saving_of_nothing_still_stands_before_what_has_no_amount() -> None:
    records = [UsageRecord(END, "small", 10, 10, 1.0, 0.0)] * 2
    output = await run(
        records,
        "actions",
        optimization=await run(records, "optimization"),
        goals_triage=await run(records, "goals_triage"),
    )
    shown = [(action["action"], action["saving_usd"], action["share_of_cost"]) for action in output["actions"]]
    assert shown == [("cache_repeated_calls", 0.0, 0.0), ("shorten_prompts", None, None)]


async def test_actions_without_earlier_steps_are_none() -> None:
    output = await run(records_of(1), "actions")
    assert (output["actions"], output["saving_usd"]) == ([], 0.0)


# ----------------------------------------------------------------------------------------------------------- the report


async def golden(bench: Bench, text: str = "") -> dict[str, Any]:
    """The steps of the golden path by hand, each given the results that it needs."""
    results: dict[str, Any] = {}
    for step in ("triage", "data_helper", "optimization", "goals_triage", "actions", "reporting"):
        results[step] = await bench.run(step, text, **results)
    return results


def tables(markdown: str) -> dict[str, list[list[str]]]:
    """The rows of each section's table."""
    found: dict[str, list[list[str]]] = {}
    for section in markdown.split("\n## ")[1:]:
        title, _, body = section.partition("\n")
        lines = [line for line in body.splitlines() if line.startswith("|")]
        cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
        found[title] = [[cell.strip() for cell in row] for row in cells[2:]]
    return found


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_every_figure_of_the_report_is_recomputed_from_the_raw_records(seed: int) -> None:
    records = records_of(seed)
    async with on_bench(records) as bench:
        results = await golden(bench)
    report = results["reporting"]
    shown = tables(report["markdown"])
    total, saved = summed(records), savings_of(records)
    latencies = [record.latency_ms for record in records]
    assert shown["Usage"] == [
        ["Calls", str(len(records)), ""],
        ["Tokens in", str(total["tokens_in"]), ""],
        ["Tokens out", str(total["tokens_out"]), ""],
        ["Cost", f"{total['cost_usd']:.4f}", "USD"],
        ["Mean latency", f"{total['latency_ms_mean']:.1f}", "ms"],
        *[[f"Latency p{p}", f"{nearest_rank(latencies, p):.1f}", "ms"] for p in (50, 95, 99)],
    ]

    def row(name: str, group: list[UsageRecord]) -> list[str]:
        of = summed(group)
        counts = [str(of[column]) for column in ("calls", "tokens_in", "tokens_out")]
        return [name, *counts, f"{of['cost_usd']:.4f}", f"{of['latency_ms_mean']:.1f}"]

    models = sorted({r.model for r in records}, key=lambda m: -math.fsum(r.cost_usd for r in records if r.model == m))
    assert shown["Cost by model"] == [row(model, [r for r in records if r.model == model]) for model in models]
    days = sorted({r.at.date().isoformat() for r in records})
    assert len(days) > DAYS_SHOWN
    assert shown["Cost by day"] == [
        row(day, [r for r in records if r.at.date().isoformat() == day]) for day in days[-DAYS_SHOWN:]
    ]
    assert shown["Savings"] == [
        ["Cost", f"{total['cost_usd']:.4f}", "USD"],
        ["Calls to cache", str(saved["cache_calls"]), ""],
        ["Saved by the cache", f"{saved['cache_saving_usd']:.4f}", "USD"],
        ["Calls to switch", str(saved["switch_calls"]), ""],
        ["Saved by switching", f"{saved['switch_saving_usd']:.4f}", "USD"],
        ["Saved in all", f"{saved['saving_usd']:.4f}", "USD"],
        ["Share of the cost", f"{saved['saving_usd'] / total['cost_usd'] * 100:.1f}", "%"],
        ["Cost after that", f"{total['cost_usd'] - saved['saving_usd']:.4f}", "USD"],
    ]
    goals = results["goals_triage"]["goals"]
    assert shown["Goals"] == [
        [str(g["rank"]), g["goal"], f"{g['score'] * 100:.1f}", f"{g['priority'] * 100:.1f}"] for g in goals
    ]
    amounts = [cells[4] for cells in shown["Actions"]]
    assert [amount for amount in amounts if amount] == [
        f"{action['saving_usd']:.4f}" for action in results["actions"]["actions"] if action["saving_usd"] is not None
    ]
    assert len(amounts) == len(results["actions"]["actions"]) > 3
    assert set(shown) == {"Usage", "Cost by model", "Cost by day", "Savings", "Goals", "Actions"}

    figures = report["figures"]
    assert figures["usage"] == results["data_helper"]["totals"] | {"latency_ms": results["data_helper"]["latency_ms"]}
    assert figures["by_day"] == results["data_helper"]["by_day"]
    assert {name: figures["savings"][name] for name in saved} == saved
    assert figures["goals"] == goals
    assert figures["actions"] == results["actions"]["actions"]
    assert report["stale"] is False
    assert json.loads(json.dumps(report)) == report


async def test_the_whole_path_keeps_to_the_window_of_the_request() -> None:
    records = records_of(5)
    newest = max(record.at for record in records)
    inside = [record for record in records if record.at >= newest - timedelta(days=20)]
    async with on_bench(records) as bench:
        results = await golden(bench, "reduce cost of the last 20 days")
    assert 0 < len(inside) < len(records)
    assert results["reporting"]["figures"]["usage"]["calls"] == len(inside)
    assert results["reporting"]["figures"]["savings"]["saving_usd"] == savings_of(inside)["saving_usd"]
    assert results["actions"]["cost_usd"] == math.fsum(record.cost_usd for record in inside)
    first = f"Records: last 20 days (from {(newest - timedelta(days=20)).isoformat()}, before "
    assert first in results["reporting"]["markdown"]


async def test_a_report_on_no_records_says_zero_and_none() -> None:
    async with on_bench([]) as bench:
        report = (await golden(bench))["reporting"]
    shown = tables(report["markdown"])
    assert ["Calls", "0", ""] in shown["Usage"]
    assert ["Mean latency", "none", "ms"] in shown["Usage"]
    assert shown["Cost by model"] == []
    assert "## Actions\n\nNone." in report["markdown"]


async def test_a_report_without_earlier_steps_has_the_totals_alone() -> None:
    records = records_of(1)
    report = await run(records, "reporting")
    assert set(tables(report["markdown"])) == {"Usage"}
    assert report["figures"]["usage"]["cost_usd"] == math.fsum(record.cost_usd for record in records)
    assert report["figures"]["savings"] is None


async def test_a_report_on_records_that_changed_meanwhile_says_so() -> None:
    async with on_bench(records_of(1)) as bench:
        results = {"data_helper": await bench.run("data_helper")}
        await bench.run("synthetic_data", count=1)

        report = await bench.run("reporting", **results)
    assert report["stale"] is True
    assert "**The records have changed" in report["markdown"]
    assert report["figures"]["usage"]["calls"] == 150


async def test_a_name_cannot_break_the_table_or_become_markup() -> None:
    name = "a|b <script>`x`[y](z)\u2028**c**"
    record = UsageRecord(END, name, 1, 1, 1.0, 1.0)
    async with on_bench([record]) as bench:
        markdown = (await golden(bench))["reporting"]["markdown"]
    (row,) = tables(markdown)["Cost by model"]
    assert row[0] == r"a\|b \<script>\`x\`\[y\](z) \*\*c\*\*"
    assert len(row) == 6
    assert "<script" not in markdown.replace(r"\<script", "")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"data_helper": 5}, "result of step 'data_helper' is a int"),
        ({"data_helper": {"totals": {}}}, "result of step 'data_helper' has no 'by_model'"),
        ({"optimization": {"saving_usd": 1.0}}, "result of step 'optimization' has no 'by_model'"),
        ({"triage": {"window": "today"}}, "window of step 'triage' is 'today'"),
        ({"since": "yesterday"}, "usage_totals: since"),
    ],
)
async def test_results_of_steps_that_are_none_are_refused_by_name(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidParameters, match=message):
        await run(records_of(1), "reporting", **parameters)


# ------------------------------------------------------------------------------------- synthetic data and the corpus


async def test_synthetic_data_adds_the_records_that_its_seed_makes() -> None:
    async with on_bench([]) as bench:
        by_text = await bench.run("synthetic_data", "generate 30 synthetic records over 5 days", seed=3)
        by_parameter = await bench.run("synthetic_data", "generate 30 records", count=2)

        totals = (await bench.run("data_helper"))["totals"]
    expected = synthetic_records(3, 30, end=datetime(2026, 1, 1, tzinfo=UTC), days=5)
    assert by_text["added"] == 30
    assert by_text["cost_usd"] == math.fsum(record.cost_usd for record in expected)
    assert by_text["last_at"] == expected[-1].at.isoformat()
    assert (by_parameter["added"], by_parameter["records_after"], totals["calls"]) == (2, 32, 32)


async def test_the_corpus_is_administered_by_admins_alone() -> None:
    async with on_bench(records_of(1)) as bench:
        with pytest.raises(PermissionDenied, match="requires admin"):
            await bench.run("corpus_admin")
    assert DEFAULT_AGENTS["corpus_admin"].requires == {"admin"}


async def test_corpus_admin_counts_imports_and_prunes() -> None:
    records = records_of(6)
    row = records[0].as_row()
    cut = END - timedelta(days=30)
    async with on_bench(records, permissions=frozenset({"admin"})) as bench:
        outputs = [
            await bench.run("corpus_admin"),
            await bench.run("corpus_admin", action="import", records=[row, row]),
            await bench.run("corpus_admin", action="prune", before=cut.isoformat()),
        ]
        with pytest.raises(InvalidUsageRecord, match="record 0: model"):
            await bench.run("corpus_admin", action="import", records=[row | {"model": ""}])
        with pytest.raises(InvalidParameters, match="action 'drop' is unknown; known: statistics, import, prune"):
            await bench.run("corpus_admin", action="drop")
        with pytest.raises(InvalidParameters, match="needs the parameter 'before'"):
            await bench.run("corpus_admin", action="prune")

        statistics, imported, pruned, last = [*outputs, await bench.run("corpus_admin", action="statistics")]
    days = {record.at.date() for record in records}
    assert (statistics["statistics"]["totals"]["calls"], statistics["statistics"]["days"]) == (150, len(days))
    assert imported["result"] == {"imported": 2, "records_after": 152}
    kept = sum(record.at >= cut for record in records)
    assert pruned["result"] == {"deleted": 152 - kept, "records_after": kept}
    assert last["statistics"]["totals"]["calls"] == kept


# ------------------------------------------------------------------------------------------- words, events, lifetime


class Made:
    """A model that gives its set answers, and counts its questions."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.asked: list[Prompt] = []

    async def complete(self, prompt: Prompt) -> Completion:
        self.asked.append(prompt)
        return Completion(self.text)


@pytest.mark.parametrize("text", ["You spent 999.99 USD on 150 calls.", "", "   "])
async def test_a_figure_that_the_model_made_up_never_reaches_a_result(text: str) -> None:
    llm = Made(text)
    async with on_bench(records_of(1), llm_manager=LLMManager(llm)) as bench:
        results = await golden(bench)
    assert len(llm.asked) == 6
    for result in results.values():
        assert "999.99" not in json.dumps(result)
    assert results["data_helper"]["summary"].startswith("Usage: the number of calls 150; the cost ")


async def test_true_words_of_the_model_are_used_also_where_it_writes_a_number_otherwise() -> None:
    cost = math.fsum(record.cost_usd for record in records_of(1))
    text = f"All in all {cost:.4f}0 dollars went into 150 calls."
    assert (await run_with(Made(text)))["summary"] == text
    assert (await run_with(Made("Nothing to say.")))["summary"] == "Nothing to say."


async def run_with(llm: Made) -> Any:
    async with on_bench(records_of(1), llm_manager=LLMManager(llm)) as bench:
        return await bench.run("data_helper")


async def test_prompts_name_their_rules_and_their_figures_and_no_user() -> None:
    llm = Made("")
    await run_with(llm)
    (prompt,) = llm.asked
    assert [message.role for message in prompt.messages] == ["system", "user"]
    assert "- the number of calls: 150" in prompt.text
    assert "ada" not in prompt.text


@pytest.mark.parametrize("agent_type", sorted(DEFAULT_AGENTS))
async def test_each_agent_tells_its_start_thoughts_tools_and_end(agent_type: str) -> None:
    async with on_bench(records_of(1), permissions=frozenset({"admin"})) as bench:
        await bench.run(agent_type)

        events = bench.events()
    kinds = [event.type for event in events]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert kinds[0] is EventType.AGENT_STARTED
    assert kinds[-1] is EventType.AGENT_COMPLETED
    assert EventType.AGENT_THINKING in kinds
    assert kinds.count(EventType.TOOL_EXECUTING) == kinds.count(EventType.TOOL_COMPLETED) > 0
    assert {event.origin.agent_type for event in events} == {agent_type}
    assert all(e.payload["status"] == "ok" for e in events if e.type is EventType.TOOL_COMPLETED)


async def test_a_run_that_fails_in_a_tool_tells_the_tool_and_the_agent() -> None:
    async with on_bench(records_of(1)) as bench:
        with pytest.raises(InvalidParameters):
            await bench.run("data_helper", since="never")

        kinds = [event.type for event in bench.events()]
    assert kinds[-3:] == [EventType.TOOL_EXECUTING, EventType.TOOL_COMPLETED, EventType.AGENT_ERROR]


async def test_without_the_usage_tools_the_error_says_what_to_give_the_registry() -> None:
    async with AgentRegistry() as registry:
        registry.register_default_agents()
        agent = await registry.create_agent_for_user("ada", "data_helper", UserExecutionContext("ada"))
        with pytest.raises(UnknownTool, match="give the registry a tool_dispatcher_factory"):
            await agent.run()


def test_the_default_agents_are_eight_classes_without_a_place_of_their_own_for_data() -> None:
    assert sorted(DEFAULT_AGENTS) == [
        "actions",
        "corpus_admin",
        "data_helper",
        "goals_triage",
        "optimization",
        "reporting",
        "synthetic_data",
        "triage",
    ]
    for recipe in DEFAULT_AGENTS.values():
        assert isinstance(recipe.factory, type)
        assert issubclass(recipe.factory, BaseAgent)
        assert "__dict__" not in dir(recipe.factory)


async def test_the_same_request_gives_the_same_results_and_other_users_change_nothing() -> None:
    records = records_of(8)
    async with on_bench(records) as bench, on_bench(records) as another:
        alone = await golden(bench, "cost of the last 30 days")
        assert alone == await golden(another, "cost of the last 30 days")
    async with on_bench(records) as bench:
        context = UserExecutionContext("bob")

        async def other() -> None:
            for _ in range(10):
                agent = await bench.registry.get_or_create_agent(context, "synthetic_data")
                await agent.run(AgentRequest("", {"count": 50}))

        async with asyncio.TaskGroup() as group:
            group.create_task(other())
            own = group.create_task(golden(bench, "cost of the last 30 days"))
        assert alone == own.result()


@pytest.mark.parametrize("fails", [False, True])
async def test_after_the_session_everything_is_freed_by_reference_counting(fails: bool) -> None:
    gone: list[weakref.ref[Any]] = []
    gc.collect()
    gc.disable()
    try:
        async with on_bench(records_of(1), permissions=frozenset({"admin"})) as bench:
            for agent_type in sorted(DEFAULT_AGENTS):
                agent = await bench.registry.get_or_create_agent(bench.context, agent_type)
                gone += [weakref.ref(thing) for thing in (agent, agent.tool_dispatcher, agent.llm, agent.context)]
                await agent.run("cost of the last 9 days")
                if fails:
                    with pytest.raises(InvalidParameters):
                        await agent.run(AgentRequest("since 2025-99-99", BAD[agent_type]))
            assert isinstance(agent.tool_dispatcher, UsageDispatcher)
            assert agent.tool_dispatcher._usage is not None
            gone.append(weakref.ref(agent.tool_dispatcher._usage))
            del agent
            await bench.registry.cleanup_user_session("ada")
            # The loop's own handle of the step that woke this task may hold the last error until the next turn.
            await asyncio.sleep(0)
            assert [thing for ref in gone if (thing := ref()) is not None] == []
    finally:
        gc.enable()


NEVER: Mapping[str, Any] = {"since": "never"}
BAD: Mapping[str, Mapping[str, Any]] = {
    **dict.fromkeys(("actions", "data_helper", "goals_triage", "optimization", "reporting"), NEVER),
    "triage": {},
    "synthetic_data": {"count": -1},
    "corpus_admin": {"action": "drop"},
}
