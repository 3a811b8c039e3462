"""Goals triage: which goal is worth the most work."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Final, TypedDict

from registry.agent import AgentRequest
from registry.errors import InvalidParameters
from registry.usage.agents.base import UsageAgent, Window, earlier, limits_of, percent, window_of
from registry.usage.database import UsageSignals

__all__ = ["FOCUS_WEIGHT", "GOALS", "GoalsTriageAgent"]

FOCUS_WEIGHT: Final = 2.0


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


GOALS: Final[Mapping[str, Callable[[UsageSignals], float]]] = {
    "limit_outliers": lambda signals: _share(signals["top_calls_cost_usd"], signals["cost_usd"]),
    "reduce_cost": lambda signals: _share(signals["top_model_cost_usd"], signals["cost_usd"]),
    "reduce_latency": lambda signals: _share(signals["slow_calls"], signals["calls"]),
    "reduce_tokens": lambda signals: _share(signals["tokens_in"], signals["tokens_in"] + signals["tokens_out"]),
}
"""Each goal and its score, from 0 to 1, computed from the answer of the tool `usage_signals`."""


class RankedGoal(TypedDict):
    """One goal with its rank, from 1."""

    rank: int
    goal: str
    score: float
    weight: float
    priority: float


class GoalsReport(TypedDict):
    """The output of `GoalsTriageAgent`."""

    window: Window
    signals: UsageSignals
    latency_limit_ms: float
    top_percent: int
    goals: list[RankedGoal]
    summary: str


class GoalsTriageAgent(UsageAgent):
    """Ranks goals by how much of the window's usage each one concerns.

    *Score*, from 0 to 1 (0.0 where there is nothing to divide by):

    - `reduce_cost`: the dearest model's share of the cost;
    - `limit_outliers`: the share of the cost that falls to the dearest `ceil(top_percent * calls / 100)` calls;
    - `reduce_latency`: the share of the calls that took longer than `latency_limit_ms`;
    - `reduce_tokens`: tokens in, as a share of tokens in and out.

    *Priority* is `score * weight`; the weight is 2.0 for a goal in the focus of the triage step, else 1.0. The highest
    priority has rank 1; where two are equal the first by name.

    Parameters: `goals` (a list of names; default all), `latency_limit_ms` (default 2,000), `top_percent` (default 5).
    Output: `window`, `signals` (the answer of `UsageDatabase.signals`), `latency_limit_ms`, `top_percent`, `goals`
    (by rank: `rank`, `goal`, `score`, `weight`, `priority`), `summary`.
    """

    __slots__ = ()

    async def execute(self, request: AgentRequest) -> GoalsReport:
        goals = _goals(request.parameters.get("goals"))
        window = window_of(request, "triage", "data_helper")
        triage = earlier(request, "triage", "focus")
        focus = triage["focus"] if triage is not None else ()
        latency_limit_ms = request.parameters.get("latency_limit_ms", 2_000.0)
        top_percent = request.parameters.get("top_percent", 5)
        await self.think(f"weighing {', '.join(goals)}")
        signals = await self.use(
            "usage_signals", limits_of(window) | {"latency_limit_ms": latency_limit_ms, "top_percent": top_percent}
        )
        ranked: list[RankedGoal] = []
        for goal in goals:
            score, weight = GOALS[goal](signals), FOCUS_WEIGHT if goal in focus else 1.0
            ranked.append({"rank": 0, "goal": goal, "score": score, "weight": weight, "priority": score * weight})
        ranked.sort(key=lambda entry: (-entry["priority"], entry["goal"]))
        for rank, entry in enumerate(ranked, start=1):
            entry["rank"] = rank
        await self.think(f"{ranked[0]['goal']} comes first")
        figures = {f"goal {entry['rank']}": f"{entry['goal']}, score {percent(entry['score'])} %" for entry in ranked}
        return {
            "window": window,
            "signals": signals,
            "latency_limit_ms": latency_limit_ms,
            "top_percent": top_percent,
            "goals": ranked,
            "summary": await self.word("Goals", figures),
        }


def _goals(wanted: object) -> list[str]:
    if wanted is None:
        return sorted(GOALS)
    if not isinstance(wanted, (list, tuple)) or not wanted:
        raise InvalidParameters(f"goals {wanted!r} is not a list of goals; known: {', '.join(GOALS)}")
    for goal in wanted:
        if goal not in GOALS:
            near = difflib.get_close_matches(str(goal), GOALS)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InvalidParameters(f"goal {goal!r} is unknown; known: {', '.join(GOALS)}{hint}")
    return sorted(set(wanted))
