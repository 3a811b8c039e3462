"""Triage: the subject of a request, the records it means, and the agent it is for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, TypedDict

from registry.agent import AgentRequest
from registry.errors import InvalidParameters
from registry.usage.agents.base import ALL_TIME, UsageAgent, Window

__all__ = ["CATEGORIES", "TriageAgent"]

CATEGORIES: Final[Mapping[str, tuple[str, str | None, frozenset[str]]]] = {
    "cost": (
        "optimization",
        "reduce_cost",
        frozenset(
            [
                "bill",
                "bills",
                "budget",
                "cheap",
                "cheaper",
                "cost",
                "costs",
                "dollars",
                "expensive",
                "money",
                "optimise",
                "optimize",
                "pay",
                "price",
                "prices",
                "save",
                "saving",
                "savings",
                "spend",
                "spending",
                "spent",
            ]
        ),
    ),
    "latency": (
        "goals_triage",
        "reduce_latency",
        frozenset(
            [
                "delay",
                "fast",
                "faster",
                "latencies",
                "latency",
                "p50",
                "p95",
                "p99",
                "percentile",
                "percentiles",
                "slow",
                "slower",
                "speed",
            ]
        ),
    ),
    "tokens": ("goals_triage", "reduce_tokens", frozenset(["prompt", "prompts", "token", "tokens"])),
    "outliers": (
        "goals_triage",
        "limit_outliers",
        frozenset(["dearest", "outlier", "outliers", "peak", "peaks", "spike", "spikes"]),
    ),
    "synthetic_data": ("synthetic_data", None, frozenset(["fake", "generate", "invent", "synthetic"])),
    "corpus": ("corpus_admin", None, frozenset(["corpus", "import", "prune"])),
    "report": ("reporting", None, frozenset(["overview", "report", "summarise", "summarize", "summary"])),
    "usage": ("data_helper", None, frozenset(["call", "calls", "data", "records", "requests", "usage"])),
}
"""Category to (the agent type it is for, the goal it puts in focus, its words)."""

_WORD: Final = re.compile(r"[^\W_]+")
_DATE: Final = r"(\d{4}-\d{2}-\d{2})"
_LAST: Final = re.compile(r"\b(?:last|past)\s+(?:(\d{1,9})\s+)?(hour|day|week|month)s?\b")
_BETWEEN: Final = re.compile(rf"\b(?:between|from)\s+{_DATE}\s+(?:and|to|until)\s+{_DATE}\b")
_SINCE: Final = re.compile(rf"\bsince\s+{_DATE}\b")
_BEFORE: Final = re.compile(rf"\b(?:before|until)\s+{_DATE}\b")
_UNITS: Final = {
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "week": timedelta(weeks=1),
    "month": timedelta(days=30),
}


class TriageReport(TypedDict):
    """The output of `TriageAgent`."""

    category: str
    agent_type: str
    focus: list[str]
    window: Window
    summary: str


class TriageAgent(UsageAgent):
    """Classifies a request and names the time window that it means.

    *Category*: the one with the most different words of the request in `CATEGORIES`; where some tie, the first of
    them; "usage" where no word is known. *Focus*: the goals of all categories that a word of the request belongs to,
    in the order of the table. *Window*, of the first of these that is found:

    - "between D and D", "from D to D" (dates YYYY-MM-DD; both days included), "since D", "before D", "until D" (that
      day excluded), each day from midnight in UTC;
    - "last N hours/days/weeks/months", "past N ..." (N is 1 where it is left out; a month is 30 days): the records no
      older than that before *now*, up to and with now;
    - otherwise all records.

    *Now* is the parameter `now` (ISO 8601 text with an offset), else the time of the user's newest record, so that
    the same request on the same records always means the same ones.

    Output: `category`, `agent_type`, `focus`, `window` (`since` included and `until` excluded, ISO 8601 or None, and
    a `label`), `summary`. Raises `InvalidParameters` for a text that is not a date.
    """

    __slots__ = ()

    async def execute(self, request: AgentRequest) -> TriageReport:
        await self.think("reading the request")
        words = set(_WORD.findall(request.text.lower()))
        hits = {category: len(words & entry[2]) for category, entry in CATEGORIES.items()}
        category = max(CATEGORIES, key=lambda name: hits[name]) if any(hits.values()) else "usage"
        focus = [goal for name, (_, goal, _) in CATEGORIES.items() if hits[name] and goal is not None]
        totals = await self.use("usage_totals")
        window = find_window(request.text.lower(), request.parameters.get("now") or totals["last_at"])
        await self.think(f"this is about {category}, over {window['label']}")
        agent_type = CATEGORIES[category][0]
        figures = {"the subject": category, "the time": window["label"], "the agent for it": agent_type}
        return {
            "category": category,
            "agent_type": agent_type,
            "focus": focus,
            "window": window,
            "summary": await self.word("Request", figures),
        }


def find_window(text: str, now: str | None) -> Window:
    """Return the window that a lower-case text means, as `TriageAgent` describes it; `now` is ISO 8601 or None."""
    if found := _BETWEEN.search(text):
        return _window(_day(found[1]), _day(found[2]) + timedelta(days=1), found[0])
    if found := _SINCE.search(text):
        return _window(_day(found[1]), None, found[0])
    if found := _BEFORE.search(text):
        return _window(None, _day(found[1]), found[0])
    if (found := _LAST.search(text)) and now is not None:
        end = _moment(now)
        try:
            since = end - int(found[1] or 1) * _UNITS[found[2]]
        except OverflowError:
            since = None  # Longer than the calendar: no limit.
        return _window(since, end + timedelta(microseconds=1), found[0])
    return _window(None, None, ALL_TIME)


def _window(since: datetime | None, until: datetime | None, label: str) -> Window:
    return {
        "since": None if since is None else since.isoformat(),
        "until": None if until is None else until.isoformat(),
        "label": " ".join(label.split()),
    }


def _day(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError as error:
        raise InvalidParameters(f"the date {text} in the request is none: {error}") from None


def _moment(now: str) -> datetime:
    try:
        moment = datetime.fromisoformat(now)
        if moment.utcoffset() is None:
            raise ValueError("it has no offset")
        return moment.astimezone(UTC)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidParameters(f"now {now!r} is not a time in ISO 8601 with an offset: {error}") from None
