"""Synthetic data: records to try things on."""

from __future__ import annotations

import re
from typing import Final

from registry.agent import AgentRequest
from registry.usage.agents.base import UsageAgent, count, usd
from registry.usage.questions import Generated

__all__ = ["SyntheticDataAgent"]

_SETTINGS: Final = ("count", "days", "seed", "end")
_COUNT: Final = re.compile(r"\b(\d{1,9})\s+(?:synthetic\s+)?(?:records|calls)\b")
_DAYS: Final = re.compile(r"\b(\d{1,9})\s+days\b")


class SyntheticReport(Generated):
    """The output of `SyntheticDataAgent`."""

    summary: str


class SyntheticDataAgent(UsageAgent):
    """Adds made-up records to the user's own, for this session; the same request adds the same records.

    Parameters: `count` (1 to 10,000, default 100), `days` (1 to 3,650, default 30), `seed` (default 0), `end` (ISO
    8601 text with an offset; default the time of the newest record). A count and days are also read from the text
    ("generate 200 records over 14 days"). See `registry.usage.synthetic.synthetic_records`.
    Output: the answer of the tool `generate_synthetic_usage`: `added`, `seed`, `first_at`, `last_at`, `models`,
    `cost_usd`, `records_after`; and `summary`.
    """

    __slots__ = ()

    async def execute(self, request: AgentRequest) -> SyntheticReport:
        text = request.text.lower()
        settings: dict[str, object] = {
            name: int(found[1])
            for name, pattern in (("count", _COUNT), ("days", _DAYS))
            if (found := pattern.search(text))
        }
        settings |= {name: request.parameters[name] for name in _SETTINGS if name in request.parameters}
        await self.think("making records up")
        added: Generated = await self.use("generate_synthetic_usage", settings)
        figures = {
            "the number of records added": count(added["added"]),
            "the number of records now": count(added["records_after"]),
            "the cost of those added": f"{usd(added['cost_usd'])} USD",
        }
        return {**added, "summary": await self.word("Synthetic records", figures)}
