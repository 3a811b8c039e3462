"""Computes, from a user's raw rows alone, every figure that a report must hold, and compares.

Written from the definitions (in the docstrings of the target's agents), not from their code: plain loops over rows.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from lab_utils.values.verdict import Finding, Verdict

__all__ = [
    "SLOW_MS",
    "TARGET_MODEL",
    "TARGET_PRICE",
    "THRESHOLD",
    "Gathered",
    "compare_report",
    "expected_figures",
    "judge_reports",
    "report_figures",
    "top_calls",
]

TARGET_MODEL, TARGET_PRICE = "small", (0.5, 1.5)
"""The model that short calls are switched to, and its price in US dollars for a million tokens in and out."""
THRESHOLD = 1_000
"""The most tokens, in and out, of a call that counts as short."""
SLOW_MS = 2_000.0
"""Milliseconds above which a call counts as slow."""
_TOP_PERCENT = 5

Rows = Sequence[Mapping[str, Any]]


def expected_figures(rows: Rows, since: datetime | None, focus: frozenset[str]) -> dict[str, Any]:
    """Return the `figures` that a report over these rows must have. `since`: the window's start; `focus`: goals that
    the request names, which weigh double."""
    window = [row for row in rows if since is None or _at(row) >= since]
    window = sorted(window, key=_at)  # Stable: rows of one moment stay in the order in which they were added.
    cached, switched = _saved(window)
    costs = sorted((row["cost_usd"] for row in window), reverse=True)
    return report_figures(
        Gathered(
            totals=_sums(window),
            by_model={model: _sums(group) for model, group in _groups(window, lambda row: str(row["model"]))},
            by_day={day: _sums(group) for day, group in _groups(window, lambda row: _at(row).date().isoformat())},
            latency_ms=_percentiles([float(row["latency_ms"]) for row in window]),
            slow_calls=sum(row["latency_ms"] > SLOW_MS for row in window),
            dearest_usd=math.fsum(costs[: top_calls(len(window))]),
            cached=cached,
            switched=switched,
        ),
        focus,
    )


@dataclass(frozen=True, slots=True)
class Gathered:
    """The figures of a window's rows, however they were read: everything that a report's figures follow from.

    `totals` and each value of `by_model` and `by_day`: calls, tokens_in, tokens_out, cost_usd, latency_ms_mean.
    `dearest_usd`: the sum of the `top_calls` highest costs. `cached`, `switched`: by model, the saving of each call.
    """

    totals: Mapping[str, Any]
    by_model: Mapping[str, Mapping[str, Any]]
    by_day: Mapping[str, Mapping[str, Any]]
    latency_ms: Mapping[str, float | None]
    slow_calls: int
    dearest_usd: float
    cached: Mapping[str, Sequence[float]]
    switched: Mapping[str, Sequence[float]]


def top_calls(calls: int) -> int:
    """How many calls count as the dearest."""
    return math.ceil(_TOP_PERCENT * calls / 100)


def report_figures(gathered: Gathered, focus: frozenset[str]) -> dict[str, Any]:
    """Return the `figures` that a report must have."""
    by_model = sorted(
        ({"model": model} | dict(sums) for model, sums in gathered.by_model.items()),
        key=lambda entry: (-entry["cost_usd"], entry["model"]),
    )
    savings = _savings(gathered)
    goals = _goals(gathered, by_model, focus)
    return {
        "usage": dict(gathered.totals) | {"latency_ms": dict(gathered.latency_ms)},
        "by_model": by_model,
        "by_day": [{"day": day} | dict(gathered.by_day[day]) for day in sorted(gathered.by_day)],
        "savings": savings,
        "goals": goals,
        "actions": _actions(gathered, savings, goals),
    }


def compare_report(user: str, report: Mapping[str, Any], expected: Mapping[str, Any]) -> tuple[list[Finding], int]:
    """Compare a report's figures with the expected ones; return the differences and how many numbers were compared.

    Numbers must be equal to within 1e-9 of their size, for sums of floats may be added in another order. The tables
    of the Markdown must show the same numbers, rounded.
    """
    found: list[Finding] = []
    count = 0
    pairs = list(_pairs("figures", dict(expected), report["figures"]))
    for place, want, got in pairs:
        count += 1
        if not _same(want, got):
            sentence = f"the report of {user!r} says {place} is {got!r}; their rows give {want!r}"
            found.append(Finding("wrong-figure", sentence, (f"{place}: expected {want!r}", f"{place}: got {got!r}")))
    for title, value in _shown(expected):
        count += 1
        if f"| {title} | {value} |" not in report["markdown"]:
            line = next((row for row in report["markdown"].splitlines() if row.startswith(f"| {title} |")), "no line")
            sentence = f"the report of {user!r} does not show {title} as {value}"
            found.append(Finding("wrong-figure", sentence, (f"expected: | {title} | {value} |", f"found: {line}")))
    return found, count


def judge_reports(reports: Iterable[tuple[list[Finding], int]]) -> Verdict:
    """PASS if every compared number of every report was right."""
    parts = list(reports)
    findings = [finding for found, _ in parts for finding in found]
    return Verdict.of(findings, sum(count for _, count in parts), f"figures of {len(parts)} reports recomputed")


def _at(row: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(row["at"]).astimezone(UTC)


def _groups(rows: Rows, key: Any) -> list[tuple[str, Rows]]:
    groups: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return list(groups.items())


def _sums(rows: Rows) -> dict[str, Any]:
    return {
        "calls": len(rows),
        "tokens_in": sum(row["tokens_in"] for row in rows),
        "tokens_out": sum(row["tokens_out"] for row in rows),
        "cost_usd": math.fsum(row["cost_usd"] for row in rows),
        "latency_ms_mean": math.fsum(row["latency_ms"] for row in rows) / len(rows) if rows else None,
    }


def _percentiles(values: list[float]) -> dict[str, float | None]:
    values.sort()
    return {f"p{p}": values[math.ceil(p * len(values) / 100) - 1] if values else None for p in (50, 95, 99)}


def _saved(rows: Rows) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    seen: set[tuple[Any, ...]] = set()
    cached: dict[str, list[float]] = defaultdict(list)
    switched: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        model = str(row["model"])
        call = (model, row.get("feature", ""), row["tokens_in"], row["tokens_out"])
        if call in seen:
            cached[model].append(row["cost_usd"])
            continue
        seen.add(call)
        if model != TARGET_MODEL and row["tokens_in"] + row["tokens_out"] <= THRESHOLD:
            price = (row["tokens_in"] * TARGET_PRICE[0] + row["tokens_out"] * TARGET_PRICE[1]) / 1e6
            if row["cost_usd"] - price > 0:
                switched[model].append(row["cost_usd"] - price)
    return dict(cached), dict(switched)


def _savings(gathered: Gathered) -> dict[str, Any]:
    cost, cached, switched = gathered.totals["cost_usd"], gathered.cached, gathered.switched
    cache_saving = math.fsum(value for values in cached.values() for value in values)
    switch_saving = math.fsum(value for values in switched.values() for value in values)
    saving = cache_saving + switch_saving
    return {
        "cost_usd": cost,
        "cache_calls": sum(map(len, cached.values())),
        "cache_saving_usd": cache_saving,
        "switch_calls": sum(map(len, switched.values())),
        "switch_saving_usd": switch_saving,
        "saving_usd": saving,
        "projected_cost_usd": cost - saving,
        "saving_share": saving / cost if cost else 0.0,
        "by_model": [
            {
                "model": model,
                "cache_calls": len(cached.get(model, ())),
                "cache_saving_usd": math.fsum(cached.get(model, ())),
                "switch_calls": len(switched.get(model, ())),
                "switch_saving_usd": math.fsum(switched.get(model, ())),
            }
            for model in sorted({*cached, *switched})
        ],
    }


def _goals(gathered: Gathered, by_model: Sequence[Mapping[str, Any]], focus: frozenset[str]) -> list[dict[str, Any]]:
    totals = gathered.totals
    cost, calls = totals["cost_usd"], totals["calls"]
    tokens = totals["tokens_in"] + totals["tokens_out"]
    scores = {
        "reduce_cost": by_model[0]["cost_usd"] / cost if cost else 0.0,
        "limit_outliers": gathered.dearest_usd / cost if cost else 0.0,
        "reduce_latency": gathered.slow_calls / calls if calls else 0.0,
        "reduce_tokens": totals["tokens_in"] / tokens if tokens else 0.0,
    }
    weight = {goal: 2.0 if goal in focus else 1.0 for goal in scores}
    order = sorted(scores, key=lambda goal: (-scores[goal] * weight[goal], goal))
    return [
        {
            "rank": rank,
            "goal": goal,
            "score": scores[goal],
            "weight": weight[goal],
            "priority": scores[goal] * weight[goal],
        }
        for rank, goal in enumerate(order, start=1)
    ]


def _actions(
    gathered: Gathered, savings: Mapping[str, Any], goals: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    calls_of_all = gathered.totals["calls"]
    found: list[tuple[str, str, str | None, int, float | None]] = []
    if savings["cache_calls"]:
        found.append(("cache_repeated_calls", "reduce_cost", None, savings["cache_calls"], savings["cache_saving_usd"]))
    found += [
        ("switch_model", "reduce_cost", row["model"], row["switch_calls"], row["switch_saving_usd"])
        for row in savings["by_model"]
        if row["switch_calls"]
    ]
    of_goal = {
        "limit_outliers": ("review_dearest_calls", top_calls(calls_of_all)),
        "reduce_latency": ("speed_up_slow_calls", gathered.slow_calls),
        "reduce_tokens": ("shorten_prompts", calls_of_all),
    }
    for goal in goals:
        if goal["goal"] in of_goal and goal["score"] > 0:
            action, calls = of_goal[goal["goal"]]
            found.append((action, goal["goal"], None, calls, None))
    rank = {goal["goal"]: goal["rank"] for goal in goals}
    found.sort(key=lambda each: (each[4] is None, -(each[4] or 0.0), rank[each[1]], each[0], each[2] or ""))
    cost = gathered.totals["cost_usd"]
    return [
        {
            "number": number,
            "action": action,
            "goal": goal,
            "model": model,
            "calls": calls,
            "saving_usd": saving,
            "share_of_cost": None if saving is None else saving / cost if cost else 0.0,
        }
        for number, (action, goal, model, calls, saving) in enumerate(found, start=1)
    ]


def _pairs(place: str, want: Any, got: Any) -> Iterable[tuple[str, Any, Any]]:
    if isinstance(want, dict):
        for key, value in want.items():
            yield from _pairs(f"{place}.{key}", value, got.get(key) if isinstance(got, Mapping) else got)
    elif isinstance(want, list):
        items = got if isinstance(got, (list, tuple)) else []
        yield f"{place} (entries)", len(want), len(items)
        for index, value in enumerate(want[: len(items)]):
            yield from _pairs(f"{place}[{index}]", value, items[index])
    else:
        yield place, want, got


def _same(want: Any, got: Any) -> bool:
    if isinstance(want, float) and isinstance(got, (int, float)):
        return math.isclose(want, got, rel_tol=1e-9, abs_tol=1e-12)
    return bool(want == got)


def _shown(expected: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    usage, savings = expected["usage"], expected["savings"]
    yield "Calls", f"{usage['calls']}"
    yield "Cost", f"{usage['cost_usd']:.4f}"
    yield "Saved in all", f"{savings['saving_usd']:.4f}"
    yield "Cost after that", f"{savings['projected_cost_usd']:.4f}"
