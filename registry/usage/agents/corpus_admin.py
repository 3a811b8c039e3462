"""Corpus administration: the content of the user's corpus of records, and changes to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypedDict

from registry.agent import AgentRequest
from registry.errors import InvalidParameters
from registry.usage.agents.base import UsageAgent, count, usd
from registry.usage.questions import CorpusStatistics, Imported, Pruned

__all__ = ["CORPUS_ACTIONS", "CorpusAdminAgent"]

CORPUS_ACTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "statistics": (),
    "import": ("records",),
    "prune": ("before",),
}
"""The possible actions, each with the parameters it needs."""


class CorpusReport(TypedDict):
    """The output of `CorpusAdminAgent`."""

    action: str
    result: CorpusStatistics | Imported | Pruned
    statistics: CorpusStatistics
    summary: str


class CorpusAdminAgent(UsageAgent):
    """Administers the corpus of the session's own user; requires the permission `admin`, as do its tools.

    The parameter `action` is one of: `statistics` (the default); `import`, with `records`, a list of rows as
    `UsageRecord.as_row` gives them, taken all or none; `prune`, with `before` (ISO 8601 text with an offset), which
    deletes older records. Changes last as long as the session.
    Output: `action`, `result` (the answer of the tool), `statistics` (afterwards), `summary`.
    Raises `InvalidParameters`, `InvalidUsageRecord`, `PermissionDenied`.
    """

    __slots__ = ()

    async def execute(self, request: AgentRequest) -> CorpusReport:
        action = request.parameters.get("action", "statistics")
        if not isinstance(action, str) or action not in CORPUS_ACTIONS:
            raise InvalidParameters(f"action {action!r} is unknown; known: {', '.join(CORPUS_ACTIONS)}")
        values = {name: request.parameters[name] for name in CORPUS_ACTIONS[action] if name in request.parameters}
        await self.think(f"corpus: {action}")
        result = await self.use(f"corpus_{action}", values)
        statistics = result if action == "statistics" else await self.use("corpus_statistics")
        figures = {
            "the number of records": count(statistics["totals"]["calls"]),
            "the number of models": count(len(statistics["by_model"])),
            "the number of days": count(statistics["days"]),
            "the cost": f"{usd(statistics['totals']['cost_usd'])} USD",
        }
        return {
            "action": action,
            "result": result,
            "statistics": statistics,
            "summary": await self.word("Corpus", figures),
        }
