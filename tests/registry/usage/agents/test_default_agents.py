"""The eight default agents in a real registry: the meaning of a request, its window, settings and earlier results."""

from __future__ import annotations

import asyncio
import gc
import math
import re
import weakref
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from inline_snapshot import snapshot

from registry.agent import AgentRequest, BaseAgent
from registry.agent_registry import AgentRegistry
from registry.context import UserExecutionContext
from registry.errors import InvalidParameters, UnknownTool
from registry.events.manager import WebSocketManager
from registry.events.types import Event, EventType
from registry.llm.base import Completion, LLMManager, Prompt
from registry.usage.agents import DEFAULT_AGENTS
from registry.usage.agents.actions import ActionsAgent
from registry.usage.agents.base import count, limits_of, usd
from registry.usage.agents.goals_triage import GOALS
from registry.usage.agents.reporting import DAYS_SHOWN
from registry.usage.agents.triage import CATEGORIES, find_window
from registry.usage.database import InMemoryUsage, SavingsEstimate, UsageDatabase, UsageRecord, UsageSignals
from registry.usage.prices import PRICES
from registry.usage.synthetic import synthetic_records
from registry.usage.tools import UsageDispatcher, usage_dispatcher_factory
from tests.registry.kit import received

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
        return received(self.connection)


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


def savings_of(records: list[UsageRecord], threshold: int = 1_000) -> SavingsEstimate:
    """With the table's defaults: switch to `small`."""
    with closing(UsageDatabase("ada", records)) as database:
        return database.savings(token_threshold=threshold, target_model="small", price=PRICES["small"])


@pytest.mark.parametrize(
    ("text", "category", "focus"),
    [
        ("cost and latency, please", "cost", ["reduce_cost", "reduce_latency"]),
        ("cost of slow, delayed, fast p95 calls", "latency", ["reduce_cost", "reduce_latency"]),
        ("guten Tag", "usage", []),
        ("", "usage", []),
        ("costume party", "usage", []),
        ("slow slow slow, and the costs of the bill", "cost", ["reduce_cost", "reduce_latency"]),
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


async def test_only_the_goals_that_were_asked_for_are_ranked() -> None:
    records = records_of(1)
    output = await run(records, "goals_triage", goals=("reduce_tokens", "reduce_cost", "reduce_tokens"))
    assert sorted(entry["goal"] for entry in output["goals"]) == ["reduce_cost", "reduce_tokens"]
    assert [entry["rank"] for entry in output["goals"]] == [1, 2]
    with pytest.raises(InvalidParameters, match="not a list"):
        await run(records, "goals_triage", goals=[])
    strict = await run(records, "goals_triage", latency_limit_ms=0, top_percent=100)
    scores = {entry["goal"]: entry["score"] for entry in strict["goals"]}
    assert (scores["reduce_latency"], scores["limit_outliers"]) == (1.0, 1.0)


async def test_goals_of_a_user_without_records_score_nothing_and_are_ranked_by_name() -> None:
    goals = (await run([], "goals_triage"))["goals"]
    assert [(entry["goal"], entry["score"]) for entry in goals] == [(goal, 0.0) for goal in sorted(GOALS)]


async def golden(bench: Bench, text: str = "") -> dict[str, Any]:
    """The steps of the golden path by hand, each given the results that it needs."""
    results: dict[str, Any] = {}
    for step in ("triage", "data_helper", "optimization", "goals_triage", "actions", "reporting"):
        results[step] = await bench.run(step, text, **results)
    return results


async def test_a_name_cannot_break_the_table_or_become_markup() -> None:
    name = "a|b <script>`x`[y](z)\u2028**c**"
    record = UsageRecord(END, name, 1, 1, 1.0, 1.0)
    async with on_bench([record]) as bench:
        markdown = (await golden(bench))["reporting"]["markdown"]
    (row,) = [line for line in markdown.splitlines() if line.startswith("| a")]
    shown, *figures = re.split(r"(?<!\\)\|", row)[1:-1]
    assert shown.strip() == r"a\|b \<script>\`x\`\[y\](z) \*\*c\*\*"
    assert len(figures) == 5
    assert "<script" not in markdown.replace(r"\<script", "")


class Made:
    """A model that gives its set answers, and counts its questions."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.asked: list[Prompt] = []

    async def complete(self, prompt: Prompt) -> Completion:
        self.asked.append(prompt)
        return Completion(self.text)


@pytest.mark.parametrize("agent_type", sorted(DEFAULT_AGENTS))
async def test_the_error_of_a_model_ends_each_agent_s_run(agent_type: str) -> None:
    class Away:
        async def complete(self, prompt: Prompt) -> Completion:
            raise ConnectionError("model is away")

    async with on_bench([], permissions=frozenset({"admin"}), llm_manager=LLMManager(Away())) as bench:
        with pytest.raises(ConnectionError, match="model is away"):
            await bench.run(agent_type)
        assert bench.events()[-1].type is EventType.AGENT_ERROR
        with pytest.raises(InvalidParameters, match="needs the parameter 'before'"):
            await bench.run("corpus_admin", action="prune")


async def test_without_the_usage_tools_the_error_says_what_to_give_the_registry() -> None:
    async with AgentRegistry() as registry:
        registry.register_default_agents()
        agent = await registry.create_agent_for_user("ada", "data_helper", UserExecutionContext("ada"))
        with pytest.raises(UnknownTool, match="give the registry a tool_dispatcher_factory"):
            await agent.run()


def test_the_default_agents_are_eight_classes_without_a_place_of_their_own_for_data() -> None:
    assert len(DEFAULT_AGENTS) == 8
    for recipe in DEFAULT_AGENTS.values():
        assert isinstance(recipe.factory, type)
        assert issubclass(recipe.factory, BaseAgent)
        assert "__dict__" not in dir(recipe.factory)


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


NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)
CALLS = list(synthetic_records(1, 12, end=NOON, days=10))


AGENTS_AND_GOALS = [
    ("cost", "optimization", "reduce_cost"), ("latency", "goals_triage", "reduce_latency"),
    ("tokens", "goals_triage", "reduce_tokens"), ("outliers", "goals_triage", "limit_outliers"),
    ("synthetic_data", "synthetic_data", None), ("corpus", "corpus_admin", None), ("report", "reporting", None),
    ("usage", "data_helper", None),
]  # fmt: skip


async def test_every_word_of_the_vocabulary_is_understood_on_its_own() -> None:
    words = [word for _, _, known in CATEGORIES.values() for word in known]
    assert len(words) == len(set(words))
    # Where some tie the first counts.
    assert [(name, *entry[:2]) for name, entry in CATEGORIES.items()] == AGENTS_AND_GOALS
    async with on_bench([]) as bench:
        for category, (agent_type, focus, known) in CATEGORIES.items():
            for word in known:
                output = await bench.run("triage", f"the_{word.upper()}!")
                told = output["category"], output["agent_type"], output["focus"]
                assert told == (category, agent_type, [focus] if focus else []), word


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


async def test_a_saving_without_any_cost_is_a_share_of_nothing() -> None:
    output = await run([], "actions", optimization=savings((1, 0.5)))
    assert (output["cost_usd"], output["actions"][0]["share_of_cost"]) == (0.0, 0.0)
    assert output["summary"].endswith("its share of the cost is 0.0 %.")
    assert ActionsAgent.__slots__ == ()


SAVED = ("cost_usd", "cache_calls", "cache_saving_usd", "switch_calls", "switch_saving_usd", "saving_usd")
NEEDED: dict[str, dict[str, tuple[str, ...]]] = {
    "reporting": {
        "data_helper": ("totals", "by_model", "by_day", "latency_ms"),
        "optimization": (*SAVED, "saving_share", "projected_cost_usd", "by_model"),
        "goals_triage": ("goals",),
        "actions": ("actions", "saving_usd"),
    },
    "actions": {
        "optimization": ("cache_calls", "cache_saving_usd", "saving_usd", "target_model", "by_model"),
        "goals_triage": ("goals", "signals"),
    },
}


async def test_reports_and_actions_need_the_whole_of_each_result() -> None:
    async with on_bench(CALLS) as bench:
        steps: dict[str, Any] = {}
        for step in ORDER:
            steps[step] = await bench.run(step, **steps)
        for agent_type, needed in NEEDED.items():
            for step, key in [(step, key) for step, keys in needed.items() for key in keys]:
                given: Any = {name: value for name, value in steps[step].items() if name != key}
                with pytest.raises(InvalidParameters, match=rf"^the result of step '{step}' has no '{key}'; pass"):
                    await bench.run(agent_type, "", **{step: given})


async def test_a_report_shows_a_month_of_days_at_most() -> None:
    assert DAYS_SHOWN == 31
    records = [UsageRecord(NOON - timedelta(days=day), "m", 1, 1, 1.0, 1.0) for day in range(32)]
    report = await run(records, "reporting", data_helper=await run(records, "data_helper"))
    shown = [line for line in report["markdown"].splitlines() if line.startswith("| 2025-")]
    assert [line[2:12] for line in (shown[0], shown[-1])] == ["2025-05-02", "2025-06-01"]
    assert (len(shown), len(report["figures"]["by_day"])) == (31, 32)


def test_figures_must_be_numbers() -> None:
    for figure, wrong, kind in ((usd, (True, "1", None), "number"), (count, (True, 1.0, "1"), "whole number")):
        for value in wrong:
            with pytest.raises(InvalidParameters, match=rf"^{value!r} is not a {kind}$"):
                figure(value)


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


FOUR_CALLS = [
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
    async with on_bench(FOUR_CALLS, permissions=ADMIN, llm_manager=LLMManager(llm)) as bench:
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


async def test_the_whole_report() -> None:
    async with on_bench(FOUR_CALLS, permissions=ADMIN) as bench:
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
    markdown = (await run(FOUR_CALLS, "reporting", data_helper=data))["markdown"]
    assert markdown.split("\n\n")[1:5] == [
        "Records: since noon (from 2025-06-01T12:00:00+00:00).",
        "Summary: the number of calls is 0; the cost is 0.0000 USD.",
        "**The records have changed since these figures were computed.**",
        "## Usage",
    ]
    assert markdown.endswith("| Mean latency | none | ms |\n\n## Cost by model\n\nNone.\n\n## Cost by day\n\nNone.\n")
    limits: dict[str, Any] = {"since": None, "until": NOON.isoformat()}
    assert "Records: from the first to 2025-06-01T12:00:00+00:00 (before 2025-06-01T12:00:00+00:00)." in (
        await run(FOUR_CALLS, "reporting", **limits)
    )["markdown"].replace("\\", "")
    assert "Records: from 2025-06-01T12:00:00+00:00 to the last (from 2025-06-01T12:00:00+00:00)." in (
        await run(FOUR_CALLS, "reporting", since=NOON.isoformat())
    )["markdown"].replace("\\", "")


NAIVE = "2025-06-01T12:00:00"
KNOWN_GOALS = "known: limit_outliers, reduce_cost, reduce_latency, reduce_tokens"
WINDOW = {"since": None, "until": None, "label": "all records"}
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("reporting", {"data_helper": 5}, "the result of step 'data_helper' is an int; pass the step's output"),
    ("reporting", {"triage": {"window": {"since": None}}}, "the window of step 'triage' is {'since': None}; it needs"),
    (
        "goals_triage",
        {"triage": {"window": WINDOW}},
        "the result of step 'triage' has no 'focus'; pass the step's whole",
    ),
    ("goals_triage", {"goals": "all"}, f"goals 'all' is not a list of goals; {KNOWN_GOALS}"),
    ("goals_triage", {"goals": ["ease"]}, f"goal 'ease' is unknown; {KNOWN_GOALS}"),
    (
        "goals_triage",
        {"goals": ["reduce_cots"]},
        f"goal 'reduce_cots' is unknown; {KNOWN_GOALS}; did you mean 'reduce_cost'?",
    ),
    ("corpus_admin", {"action": "drop"}, "action 'drop' is unknown; known: statistics, import, prune"),
    ("corpus_admin", {"action": ["prune"]}, "action ['prune'] is unknown; known: statistics, import, prune"),
    ("triage", {"now": NAIVE}, f"now '{NAIVE}' is not a time in ISO 8601 with an offset: it has"),
    ("data_helper", {"triage": {}}, "the result of step 'triage' has no 'window'; pass the step's whole output"),
]


@pytest.mark.parametrize(("agent_type", "parameters", "words"), REFUSED)
async def test_a_refusal_names_the_value_and_the_remedy(
    agent_type: str, parameters: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidParameters, match=f"^{re.escape(words)}"):
        await run(FOUR_CALLS, agent_type, "last day", **parameters)


@pytest.mark.parametrize(
    ("text", "parameters", "wrong"), [("since 2025-13-01", {}, "2025-13-01"), ("last day", {"now": 7}, 7)]
)
async def test_a_time_that_is_none_is_refused_with_python_s_reason(text: str, parameters: Any, wrong: Any) -> None:
    with pytest.raises((TypeError, ValueError)) as reason:
        datetime.fromisoformat(wrong)
    with pytest.raises(InvalidParameters, match=re.escape(f"{wrong}") + ".*: " + re.escape(f"{reason.value}") + "$"):
        await run(FOUR_CALLS, "triage", text, **parameters)
