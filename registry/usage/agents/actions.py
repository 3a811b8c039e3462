"""Actions: the next things to do, in which order, and the worth of each."""

from __future__ import annotations

from typing import Final, TypedDict

from registry.agent import AgentRequest
from registry.usage.agents.base import (
    StepOutput,
    UsageAgent,
    Window,
    count,
    earlier,
    limits_of,
    percent,
    usd,
    window_of,
)

__all__ = ["ActionsAgent"]

_SAVINGS: Final = ("cache_calls", "cache_saving_usd", "saving_usd", "target_model", "by_model")
_TITLES: Final = {
    "cache_repeated_calls": "Answer repeated calls from a cache",
    "switch_model": "Send short calls to a cheaper model",
    "review_dearest_calls": "Review the dearest calls",
    "speed_up_slow_calls": "Speed up the slow calls",
    "shorten_prompts": "Shorten the prompts",
}


class Action(TypedDict):
    """One thing to do. `saving_usd` and `share_of_cost` are None where no amount was computed."""

    number: int
    action: str
    title: str
    goal: str
    model: str | None
    target_model: str | None
    calls: int
    saving_usd: float | None
    share_of_cost: float | None


class ActionsReport(TypedDict):
    """The output of `ActionsAgent`."""

    window: Window
    cost_usd: float
    saving_usd: float
    actions: list[Action]
    summary: str


class ActionsAgent(UsageAgent):
    """Turns the results of the optimization and goals_triage steps into a list of actions; either may be missing.

    - `cache_repeated_calls`, where there are any: `cache_calls` and `cache_saving_usd`;
    - `switch_model`, one for each model with calls to switch: that model's `switch_calls` and `switch_saving_usd`;
    - one for each ranked goal with a score above 0 but `reduce_cost`: `review_dearest_calls` (limit_outliers, the top
      calls), `speed_up_slow_calls` (reduce_latency, the slow calls), `shorten_prompts` (reduce_tokens, all calls).
      Their saving is None: no amount is promised that was not computed.

    Ordered by saving, highest first and None last, then by the rank of the goal, then by action and model.
    `share_of_cost` is `saving_usd` over the cost that the records of the window have now (0.0 at no cost).

    Output: `window`, `cost_usd`, `saving_usd` (the optimization step's, 0.0 without it), `actions` (each `number`
    from 1, `action`, `title`, `goal`, `model`, `target_model`, `calls`, `saving_usd`, `share_of_cost`), `summary`.
    """

    __slots__ = ()

    async def execute(self, request: AgentRequest) -> ActionsReport:
        savings = earlier(request, "optimization", *_SAVINGS)
        goals = earlier(request, "goals_triage", "goals", "signals")
        window = window_of(request, "optimization", "goals_triage", "data_helper", "triage")
        await self.think("turning savings and goals into actions")
        cost = (await self.use("usage_totals", limits_of(window)))["cost_usd"]
        found = [*_from_savings(savings), *_from_goals(goals)]
        ranks = {entry["goal"]: entry["rank"] for entry in goals["goals"]} if goals is not None else {}
        found.sort(
            key=lambda each: (
                each["saving_usd"] is None,
                -(each["saving_usd"] or 0.0),
                ranks.get(each["goal"], len(ranks) + 1),
                each["action"],
                each["model"] or "",
            )
        )
        for number, each in enumerate(found, start=1):
            each["number"] = number
            each["share_of_cost"] = _share(each["saving_usd"], cost)
        total = savings["saving_usd"] if savings is not None else 0.0
        await self.think(f"{len(found)} actions")
        figures = {
            "the number of actions": count(len(found)),
            "the saving": f"{usd(total)} USD",
            "its share of the cost": f"{percent(_share(total, cost))} %",
        }
        return {
            "window": window,
            "cost_usd": cost,
            "saving_usd": total,
            "actions": found,
            "summary": await self.word("Actions", figures),
        }


def _from_savings(savings: StepOutput | None) -> list[Action]:
    if savings is None:
        return []
    found = []
    if savings["cache_calls"]:
        found.append(
            _action("cache_repeated_calls", "reduce_cost", savings["cache_calls"], savings["cache_saving_usd"])
        )
    for row in savings["by_model"]:
        if row["switch_calls"]:
            action = _action("switch_model", "reduce_cost", row["switch_calls"], row["switch_saving_usd"])
            action["model"], action["target_model"] = row["model"], savings["target_model"]
            found.append(action)
    return found


def _from_goals(goals: StepOutput | None) -> list[Action]:
    if goals is None:
        return []
    signals = goals["signals"]
    by_goal = {
        "limit_outliers": ("review_dearest_calls", signals["top_calls"]),
        "reduce_latency": ("speed_up_slow_calls", signals["slow_calls"]),
        "reduce_tokens": ("shorten_prompts", signals["calls"]),
    }
    return [
        _action(by_goal[entry["goal"]][0], entry["goal"], by_goal[entry["goal"]][1], None)
        for entry in goals["goals"]
        if entry["goal"] in by_goal and entry["score"] > 0
    ]


def _action(action: str, goal: str, calls: int, saving: float | None) -> Action:
    """An action of no one model, with the number and the share still to come."""
    return {
        "number": 0,
        "title": _TITLES[action],
        "action": action,
        "goal": goal,
        "model": None,
        "target_model": None,
        "calls": calls,
        "saving_usd": saving,
        "share_of_cost": None,
    }


def _share(saving: float | None, cost: float) -> float | None:
    return None if saving is None else saving / cost if cost else 0.0
