"""Optimization: the lower cost that the same calls could have had."""

from __future__ import annotations

from typing import Final

from registry.agent import AgentRequest
from registry.usage.agents.base import UsageAgent, Window, count, limits_of, percent, usd, window_of
from registry.usage.questions import SavingsAnswer

__all__ = ["OptimizationAgent"]

_SETTINGS: Final = ("token_threshold", "target_model", "prices")


class OptimizationReport(SavingsAnswer):
    """The output of `OptimizationAgent`."""

    window: Window
    summary: str


class OptimizationAgent(UsageAgent):
    """Estimates the saving that a cache and a cheaper model would have made on the records of the window.

    For the records of the window, in the order of `at` (and of adding, where equal):

    1. *Cache*. A record is repeated if an earlier one of the window has the same model, feature, tokens_in and
       tokens_out. A repeated record saves its `cost_usd`.
    2. *Switch*. A record that is not repeated, is not of the target model and has `tokens_in + tokens_out` of at most
       the threshold saves `gain = cost_usd - (tokens_in * price_in + tokens_out * price_out) / 1_000_000.0`, where
       `gain > 0`; prices are the target model's, in US dollars for a million tokens.

    `cache_saving_usd` and `switch_saving_usd` are `math.fsum` over their records, `saving_usd` is the two added,
    `projected_cost_usd` is `cost_usd - saving_usd`, `saving_share` is `saving_usd / cost_usd` (0.0 at no cost).

    Parameters: `token_threshold` (default 1,000), `prices` (default `registry.usage.prices.PRICES`; model to
    `[price_in, price_out]`), `target_model` (default the cheapest of them, `registry.usage.prices.cheapest`).
    Output: `window`, the answer of `UsageDatabase.savings` with `token_threshold`, `target_model` and `target_price`,
    and `summary`.
    """

    __slots__ = ()

    async def execute(self, request: AgentRequest) -> OptimizationReport:
        window = window_of(request, "triage", "data_helper")
        settings = {name: request.parameters[name] for name in _SETTINGS if name in request.parameters}
        await self.think(f"looking for savings in {window['label']}")
        savings: SavingsAnswer = await self.use("savings_estimate", limits_of(window) | settings)
        await self.think(f"{savings['cache_calls']} calls could be cached, {savings['switch_calls']} switched")
        figures = {
            "the cost": f"{usd(savings['cost_usd'])} USD",
            "the possible saving": f"{usd(savings['saving_usd'])} USD",
            "its share of the cost": f"{percent(savings['saving_share'])} %",
            "the number of calls to cache": count(savings["cache_calls"]),
            "the number of calls to switch": count(savings["switch_calls"]),
        }
        return {"window": window, **savings, "summary": await self.word("Savings", figures)}
