"""Reporting: one Markdown report of the earlier steps' results."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final, TypedDict

from registry.agent import AgentRequest
from registry.usage.agents.base import (
    StepOutput,
    UsageAgent,
    Window,
    count,
    earlier,
    limits_of,
    ms,
    percent,
    usd,
    window_of,
)

__all__ = ["DAYS_SHOWN", "ReportingAgent"]

DAYS_SHOWN: Final = 31
"""The newest days that the Markdown lists; the figures hold all."""

_SPECIAL: Final = re.compile(r"([\\`*\[\]<|&])")


class Figures(TypedDict):
    """The figures of a report, as the steps gave them; None for a step whose result is missing."""

    usage: StepOutput
    by_model: Sequence[StepOutput] | None
    by_day: Sequence[StepOutput] | None
    savings: StepOutput | None
    goals: Sequence[StepOutput] | None
    actions: Sequence[StepOutput] | None


class UsageReport(TypedDict):
    """The output of `ReportingAgent`."""

    window: Window
    markdown: str
    figures: Figures
    stale: bool


class ReportingAgent(UsageAgent):
    """Writes a Markdown report in which every figure comes from the steps' results, and returns those figures as data.

    Sections, each only if its step's result is there: *Usage*, *Cost by model*, *Cost by day* (data_helper), *Savings*
    (optimization), *Goals* (goals_triage), *Actions* (actions). Every figure stands in a table; rounded there, and
    only there: dollars to four decimals, milliseconds and percentages to one (Python's `format`, half to even on the
    exact binary value), counts whole. Without a data_helper result the totals are queried here.

    Output: `window`; `markdown`; `figures`, unrounded, of the same results: `usage` (totals and `latency_ms`),
    `by_model`, `by_day`, `savings`, `goals`, `actions` (None for a missing step); and `stale`, true when the totals of
    the window are no longer those that data_helper found, which the report then states.
    """

    __slots__ = ()

    async def execute(self, request: AgentRequest) -> UsageReport:
        data = earlier(request, "data_helper", "totals", "by_model", "by_day", "latency_ms")
        savings = earlier(request, "optimization", "by_model", *(name for name, _, _, _ in _SAVINGS))
        goals = earlier(request, "goals_triage", "goals")
        actions = earlier(request, "actions", "actions", "saving_usd")
        window = window_of(request, "data_helper", "triage", "optimization", "goals_triage", "actions")
        await self.think("gathering the figures")
        now = await self.use("usage_totals", limits_of(window))
        stale = data is not None and dict(data["totals"]) != now
        usage = {**(now if data is None else data["totals"]), "latency_ms": data["latency_ms"] if data else None}
        figures: Figures = {
            "usage": usage,
            "by_model": data["by_model"] if data else None,
            "by_day": data["by_day"] if data else None,
            "savings": {key: value for key, value in savings.items() if key not in _NO_FIGURES} if savings else None,
            "goals": goals["goals"] if goals else None,
            "actions": actions["actions"] if actions else None,
        }
        await self.think("writing the report")
        main = {"the number of calls": count(usage["calls"]), "the cost": f"{usd(usage['cost_usd'])} USD"}
        if savings:
            main["the possible saving"] = f"{usd(savings['saving_usd'])} USD"
        lines = [
            "# AI usage report",
            f"Records: {_cell(_describe(window))}.",
            await self.word("Summary", main),
            *(["**The records have changed since these figures were computed.**"] if stale else []),
            *_sections(figures),
        ]
        return {"window": window, "markdown": "\n\n".join(lines) + "\n", "figures": figures, "stale": stale}


_NO_FIGURES: Final = ("window", "summary")
_USAGE: Final = (
    ("calls", "Calls", count, ""),
    ("tokens_in", "Tokens in", count, ""),
    ("tokens_out", "Tokens out", count, ""),
    ("cost_usd", "Cost", usd, "USD"),
    ("latency_ms_mean", "Mean latency", ms, "ms"),
)
_SAVINGS: Final = (
    ("cost_usd", "Cost", usd, "USD"),
    ("cache_calls", "Calls to cache", count, ""),
    ("cache_saving_usd", "Saved by the cache", usd, "USD"),
    ("switch_calls", "Calls to switch", count, ""),
    ("switch_saving_usd", "Saved by switching", usd, "USD"),
    ("saving_usd", "Saved in all", usd, "USD"),
    ("saving_share", "Share of the cost", percent, "%"),
    ("projected_cost_usd", "Cost after that", usd, "USD"),
)


def _sections(figures: Figures) -> Iterable[str]:
    usage = figures["usage"]
    rows = [[title, show(usage[name]), unit] for name, title, show, unit in _USAGE]
    rows += [[f"Latency {name}", ms(value), "ms"] for name, value in (usage["latency_ms"] or {}).items()]
    yield _section("Usage", ["Figure", "Value", "Unit"], rows)
    if figures["by_model"] is not None:
        yield _section("Cost by model", ["Model", *_SUM_TITLES], [_sums("model", row) for row in figures["by_model"]])
    if figures["by_day"] is not None:
        days = figures["by_day"][-DAYS_SHOWN:]
        yield _section("Cost by day", ["Day", *_SUM_TITLES], [_sums("day", row) for row in days])
    if figures["savings"] is not None:
        savings = figures["savings"]
        rows = [[title, show(savings[name]), unit] for name, title, show, unit in _SAVINGS]
        yield _section("Savings", ["Figure", "Value", "Unit"], rows)
    if figures["goals"] is not None:
        rows = [
            [count(goal["rank"]), goal["goal"], percent(goal["score"]), percent(goal["priority"])]
            for goal in figures["goals"]
        ]
        yield _section("Goals", ["Rank", "Goal", "Score (%)", "Priority (%)"], rows)
    if figures["actions"] is not None:
        rows = [_action(action) for action in figures["actions"]]
        yield _section("Actions", ["No.", "Action", "Model", "Calls", "Saving (USD)", "Share of the cost (%)"], rows)


_SUM_TITLES: Final = [title + (f" ({unit.strip()})" if unit else "") for _, title, _, unit in _USAGE]


def _sums(key: str, row: StepOutput) -> list[str]:
    return [row[key], *(show(row[name]) for name, _, show, _ in _USAGE)]


def _action(action: StepOutput) -> list[str]:
    model = action["model"] or ""
    return [
        count(action["number"]),
        action["title"],
        f"{model} to {action['target_model']}" if model else "",
        count(action["calls"]),
        "" if action["saving_usd"] is None else usd(action["saving_usd"]),
        "" if action["share_of_cost"] is None else percent(action["share_of_cost"]),
    ]


def _section(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return f"## {title}\n\nNone."
    lines = [columns, ["---"] * len(columns), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join([f"## {title}", "", *(f"| {' | '.join(line)} |" for line in lines)])


def _describe(window: Window) -> str:
    limits = [f"{word} {at}" for word, at in (("from", window["since"]), ("before", window["until"])) if at]
    return f"{window['label']} ({', '.join(limits)})" if limits else str(window["label"])


def _cell(text: object) -> str:
    """Text as one cell: names are the user's data, and must neither end the cell nor become markup."""
    return _SPECIAL.sub(r"\\\1", " ".join(str(text).split()))
