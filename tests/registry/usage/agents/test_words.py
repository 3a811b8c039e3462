"""The default agents' texts about four calls, word for word: their users see nothing else of them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from inline_snapshot import snapshot

from registry.errors import InvalidParameters
from registry.events.types import EventType
from registry.llm.base import LLMManager
from registry.usage.agents import DEFAULT_AGENTS
from registry.usage.records import UsageRecord
from tests.registry.usage.agents.test_default_agents import Bench, Made, on_bench, run

NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)
CALLS = [
    # The second repeats the first; the third is short and not of the cheapest model; the fourth is.
    UsageRecord(NOON - timedelta(hours=48), "large", 1_000, 500, 1_500.0, 0.5, "chat"),
    UsageRecord(NOON - timedelta(hours=47), "large", 1_000, 500, 2_500.0, 0.5, "chat"),
    UsageRecord(NOON - timedelta(hours=24), "medium", 200, 100, 300.0, 0.25, "search"),
    UsageRecord(NOON, "small", 100, 50, 100.0, 0.0625, "chat"),
]
PATH = ("triage", "data_helper", "optimization", "goals_triage", "actions", "reporting")
ADMIN = frozenset({"admin"})


async def path(bench: Bench) -> dict[str, Any]:
    """Every default agent once, those of the golden path with the results that they need."""
    results: dict[str, Any] = {}
    for step in PATH:
        results[step] = await bench.run(step, "Cost of slow calls", **results)
    results["corpus_admin"] = await bench.run("corpus_admin")
    results["synthetic_data"] = await bench.run("synthetic_data", count=2, seed=1)
    assert set(results) == set(DEFAULT_AGENTS)
    return results


async def test_a_model_is_asked_for_each_agent_s_figures_and_they_are_listed_without_its_words() -> None:
    llm = Made("")
    async with on_bench(CALLS, permissions=ADMIN, llm_manager=LLMManager(llm)) as bench:
        results = await path(bench)
    assert {tuple(message.role for message in prompt.messages) for prompt in llm.asked} == {("system", "user")}
    assert len({prompt.messages[0] for prompt in llm.asked}) == 1
    asked = dict(zip(results, (prompt.messages[1].content for prompt in llm.asked), strict=True))
    assert "\n".join([llm.asked[0].messages[0].content, *asked.values()]) == snapshot("""\
You word figures for a report on AI usage. State every figure as it is given, and add no other.
Request:
- the subject: cost
- the time: all records
- the agent for it: optimization
Usage:
- the number of calls: 4
- the cost: 1.3125 USD
- the median latency: 300.0 ms
Savings:
- the cost: 1.3125 USD
- the possible saving: 0.7498 USD
- its share of the cost: 57.1 %
- the number of calls to cache: 1
- the number of calls to switch: 1
Goals:
- goal 1: reduce_cost, score 76.2 %
- goal 2: reduce_tokens, score 66.7 %
- goal 3: reduce_latency, score 25.0 %
- goal 4: limit_outliers, score 38.1 %
Actions:
- the number of actions: 5
- the saving: 0.7498 USD
- its share of the cost: 57.1 %
Summary:
- the number of calls: 4
- the cost: 1.3125 USD
- the possible saving: 0.7498 USD
Corpus:
- the number of records: 4
- the number of models: 3
- the number of days: 3
- the cost: 1.3125 USD
Synthetic records:
- the number of records added: 2
- the number of records now: 6
- the cost of those added: 0.0145 USD\
""")
    for agent_type, text in asked.items():
        heading, *figures = text.split("\n- ")
        plain = f"{heading} {'; '.join(figure.replace(': ', ' ', 1) for figure in figures)}."
        shown = results[agent_type].get("summary") or results[agent_type]["markdown"]
        assert plain in shown, agent_type
        assert shown == plain or agent_type == "reporting"


@pytest.mark.parametrize(
    ("text", "is_true"),
    [
        ("Added 1,500 records.", True),
        ("Added 1500.0 records.", True),
        ("Added 1,501 records.", False),
        ("Added 1.500 records.", False),
        ("Added 1,500 records, 15 of them slow.", False),
        ("Added them all.", True),
    ],
)
async def test_a_model_may_write_a_number_otherwise_and_no_other_number(text: str, is_true: bool) -> None:
    async with on_bench([], llm_manager=LLMManager(Made(f" {text}\n"))) as bench:
        words = (await bench.run("synthetic_data", count=1_500, days=3))["summary"]
    assert words == text if is_true else words.startswith("Synthetic records: the number of records added 1500; ")


class NoHandles(LLMManager):
    """A manager of a registry without any model."""

    def create_handle(self, user_context: Any) -> Any:
        return None


async def test_an_agent_without_a_handle_lists_its_figures() -> None:

    plain = "Usage: the number of calls 4; the cost 1.3125 USD; the median latency 300.0 ms."
    async with on_bench(CALLS, llm_manager=NoHandles()) as bench:
        assert (await bench.run("data_helper"))["summary"] == plain


async def test_each_agent_asks_its_own_tools_once() -> None:
    async with on_bench(CALLS, permissions=ADMIN) as bench:
        await path(bench)
        events = bench.events()
    asked: dict[str, list[Any]] = {}
    for event in events:
        if event.type is EventType.TOOL_EXECUTING:
            asked.setdefault(event.origin.agent_type, []).append(event.payload["tool"])
    assert asked == {step: ["usage_totals"] for step in ("triage", "actions", "reporting")} | {
        "data_helper": [
            "usage_totals",
            "usage_by_model",
            "usage_by_day",
            "latency_percentiles",
            "most_expensive_calls",
        ],
        "optimization": ["savings_estimate"],
        "goals_triage": ["usage_signals"],
        "corpus_admin": ["corpus_statistics"],
        "synthetic_data": ["generate_synthetic_usage"],
    }
    thought = {event.origin.agent_type for event in events if event.type is EventType.AGENT_THINKING}
    assert thought == set(DEFAULT_AGENTS)
    started = [dict(e.payload) for e in events if e.type is EventType.AGENT_STARTED]
    assert started == [{"request": "Cost of slow calls"}] * len(PATH) + [{"request": ""}] * 2


async def test_the_whole_report() -> None:
    async with on_bench(CALLS, permissions=ADMIN) as bench:
        report = (await path(bench))["reporting"]
    assert report["markdown"] == snapshot("""\
# AI usage report

Records: all records.

Summary: the number of calls is 4; the cost is 1.3125 USD; the possible saving is 0.7498 USD.

## Usage

| Figure | Value | Unit |
| --- | --- | --- |
| Calls | 4 |  |
| Tokens in | 2300 |  |
| Tokens out | 1150 |  |
| Cost | 1.3125 | USD |
| Mean latency | 1100.0 | ms |
| Latency p50 | 300.0 | ms |
| Latency p95 | 2500.0 | ms |
| Latency p99 | 2500.0 | ms |

## Cost by model

| Model | Calls | Tokens in | Tokens out | Cost (USD) | Mean latency (ms) |
| --- | --- | --- | --- | --- | --- |
| large | 2 | 2000 | 1000 | 1.0000 | 2000.0 |
| medium | 1 | 200 | 100 | 0.2500 | 300.0 |
| small | 1 | 100 | 50 | 0.0625 | 100.0 |

## Cost by day

| Day | Calls | Tokens in | Tokens out | Cost (USD) | Mean latency (ms) |
| --- | --- | --- | --- | --- | --- |
| 2025-05-30 | 2 | 2000 | 1000 | 1.0000 | 2000.0 |
| 2025-05-31 | 1 | 200 | 100 | 0.2500 | 300.0 |
| 2025-06-01 | 1 | 100 | 50 | 0.0625 | 100.0 |

## Savings

| Figure | Value | Unit |
| --- | --- | --- |
| Cost | 1.3125 | USD |
| Calls to cache | 1 |  |
| Saved by the cache | 0.5000 | USD |
| Calls to switch | 1 |  |
| Saved by switching | 0.2497 | USD |
| Saved in all | 0.7498 | USD |
| Share of the cost | 57.1 | % |
| Cost after that | 0.5627 | USD |

## Goals

| Rank | Goal | Score (%) | Priority (%) |
| --- | --- | --- | --- |
| 1 | reduce_cost | 76.2 | 152.4 |
| 2 | reduce_tokens | 66.7 | 66.7 |
| 3 | reduce_latency | 25.0 | 50.0 |
| 4 | limit_outliers | 38.1 | 38.1 |

## Actions

| No. | Action | Model | Calls | Saving (USD) | Share of the cost (%) |
| --- | --- | --- | --- | --- | --- |
| 1 | Answer repeated calls from a cache |  | 1 | 0.5000 | 38.1 |
| 2 | Send short calls to a cheaper model | medium to small | 1 | 0.2497 | 19.0 |
| 3 | Shorten the prompts |  | 4 |  |  |
| 4 | Speed up the slow calls |  | 1 |  |  |
| 5 | Review the dearest calls |  | 1 |  |  |
""")
    figures = report["figures"]
    assert list(figures) == ["usage", "by_model", "by_day", "savings", "goals", "actions"]
    assert list(report) == ["window", "markdown", "figures", "stale"]
    # A value that is not a number is left out of the savings.
    assert not {"window", "summary"} & set(figures["savings"])


async def test_a_report_says_in_one_line_which_records_and_in_another_that_they_have_changed() -> None:
    window = {"since": NOON.isoformat(), "until": None, "label": "since noon"}
    sums: dict[str, Any] = dict.fromkeys(("calls", "tokens_in", "tokens_out", "cost_usd"), 0) | {
        "latency_ms_mean": None
    }
    data = {"window": window, "totals": sums, "by_model": [], "by_day": [], "latency_ms": {}}
    markdown = (await run(CALLS, "reporting", data_helper=data))["markdown"]
    assert markdown.split("\n\n")[1:5] == [
        "Records: since noon (from 2025-06-01T12:00:00+00:00).",
        "Summary: the number of calls is 0; the cost is 0.0000 USD.",
        "**The records have changed since these figures were computed.**",
        "## Usage",
    ]
    assert markdown.endswith("| Mean latency | none | ms |\n\n## Cost by model\n\nNone.\n\n## Cost by day\n\nNone.\n")
    limits: dict[str, Any] = {"since": None, "until": NOON.isoformat()}
    assert "Records: from the first to 2025-06-01T12:00:00+00:00 (before 2025-06-01T12:00:00+00:00)." in (
        await run(CALLS, "reporting", **limits)
    )["markdown"].replace("\\", "")
    assert "Records: from 2025-06-01T12:00:00+00:00 to the last (from 2025-06-01T12:00:00+00:00)." in (
        await run(CALLS, "reporting", since=NOON.isoformat())
    )["markdown"].replace("\\", "")


GOALS = "known: limit_outliers, reduce_cost, reduce_latency, reduce_tokens"
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("reporting", {"data_helper": 5}, "the result of step 'data_helper' is a int; pass the step's output"),
    (
        "reporting",
        {"triage": {"window": {"since": None}}},
        "the window of step 'triage' is {'since': None}; it needs since",
    ),
    (
        "goals_triage",
        {"triage": {"window": {"since": None, "until": None, "label": "all records"}}},
        "the result of step 'triage' has no 'focus'; pass the step's whole",
    ),
    ("goals_triage", {"goals": "all"}, f"goals 'all' is not a list of goals; {GOALS}"),
    ("goals_triage", {"goals": ["ease"]}, f"goal 'ease' is unknown; {GOALS}"),
    (
        "goals_triage",
        {"goals": ["reduce_cots"]},
        f"goal 'reduce_cots' is unknown; {GOALS}; did you mean 'reduce_cost'?",
    ),
    ("corpus_admin", {"action": "drop"}, "action 'drop' is unknown; known: statistics, import, prune"),
    ("corpus_admin", {"action": ["prune"]}, "action ['prune'] is unknown; known: statistics, import, prune"),
    (
        "triage",
        {"now": "2025-06-01T12:00:00"},
        "now '2025-06-01T12:00:00' is not a time in ISO 8601 with an offset: it has",
    ),
    ("data_helper", {"triage": {}}, "the result of step 'triage' has no 'window'; pass the step's whole output"),
]


@pytest.mark.parametrize(("agent_type", "parameters", "words"), REFUSED)
async def test_a_refusal_names_the_value_and_the_remedy(
    agent_type: str, parameters: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidParameters, match=f"^{re.escape(words)}"):
        await run(CALLS, agent_type, "last day", **parameters)


@pytest.mark.parametrize(
    ("text", "parameters", "wrong"), [("since 2025-13-01", {}, "2025-13-01"), ("last day", {"now": 7}, 7)]
)
async def test_a_time_that_is_none_is_refused_with_python_s_reason(text: str, parameters: Any, wrong: Any) -> None:
    with pytest.raises((TypeError, ValueError)) as reason:
        datetime.fromisoformat(wrong)
    with pytest.raises(InvalidParameters, match=re.escape(f"{wrong}") + ".*: " + re.escape(f"{reason.value}") + "$"):
        await run(CALLS, "triage", text, **parameters)
