"""Data helper: the figures of a window's records."""

from __future__ import annotations

from typing import TypedDict

from registry.agent import AgentRequest
from registry.usage.agents.base import UsageAgent, Window, count, limits_of, ms, usd, window_of
from registry.usage.database import DayUsage, ModelUsage, UsageTotals
from registry.usage.records import UsageRow

__all__ = ["DataHelperAgent"]


class DataReport(TypedDict):
    """The output of `DataHelperAgent`."""

    window: Window
    totals: UsageTotals
    by_model: list[ModelUsage]
    by_day: list[DayUsage]
    latency_ms: dict[str, float | None]
    most_expensive: list[UsageRow]
    summary: str


class DataHelperAgent(UsageAgent):
    """Queries the user's records in the window that the triage step found, or all.

    Output: `window`, and for its records `totals`, `by_model`, `by_day`, `latency_ms` (`p50`, `p95`, `p99`) and
    `most_expensive` (five rows), each as the method of `registry.usage.database.UsageDatabase` defines it; `summary`.
    """

    __slots__ = ()

    async def execute(self, request: AgentRequest) -> DataReport:
        window = window_of(request, "triage")
        limits = limits_of(window)
        await self.think(f"querying {window['label']}")
        totals = await self.use("usage_totals", limits)
        by_model = await self.use("usage_by_model", limits)
        by_day = await self.use("usage_by_day", limits)
        latency = await self.use("latency_percentiles", limits)
        dearest = await self.use("most_expensive_calls", limits)
        await self.think(f"found {totals['calls']} calls of {len(by_model)} models on {len(by_day)} days")
        figures = {
            "the number of calls": count(totals["calls"]),
            "the cost": f"{usd(totals['cost_usd'])} USD",
            "the median latency": f"{ms(latency['p50'])} ms",
        }
        return {
            "window": window,
            "totals": totals,
            "by_model": by_model,
            "by_day": by_day,
            "latency_ms": latency,
            "most_expensive": dearest,
            "summary": await self.word("Usage", figures),
        }
