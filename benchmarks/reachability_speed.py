"""Speed of the reachability walk over a registry of many users: `python benchmarks/reachability_speed.py`.

The walk starts from the objects that each user's agent holds and owns every object once
(`lab_utils.probes.reachability.survey`). The floor is a bare loop that asks the collector for the referents of the very
same objects, one at a time, and does nothing with the answers: no walk written in Python does less. Both take turns in
one process, for machines flip between two speeds; shown are medians, in processor time. Exit code 1 if a target is
missed.

The bounds of the walk: each object costs one entry in the table of owners and an object for its id, and each reference
(about four an object) a look at its type and at that table. One call of the collector's fetches a whole layer.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import sys
import time
import tracemalloc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lab_utils.probes.reachability import reach, survey
from registry import AgentRegistry, BaseAgent, UserExecutionContext, WebSocketManager

DATA = {"profile": {"tier": "enterprise", "regions": ["eu", "us"]}, "history": [{"role": "user", "text": "question"}]}
CANARY = "canary<"

Roots = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `least` and `most` None: reported, not judged."""

    name: str
    measured: float
    unit: str
    least: float | None = None
    most: float | None = None

    @property
    def is_met(self) -> bool:
        return (self.least is None or self.measured >= self.least) and (self.most is None or self.measured <= self.most)

    def __str__(self) -> str:
        judged = self.least is not None or self.most is not None
        target = f">= {self.least:,g}" if self.least is not None else f"<= {self.most:,g}" if self.most else ""
        verdict = ("ok" if self.is_met else "MISSED") if judged else ""
        return f"{self.name:<52}{self.measured:>14,.2f} {self.unit:<13}{target:>14}  {verdict}"


class Remembering(BaseAgent):
    """An agent with a memory."""

    __slots__ = ("memory",)

    memory: dict[str, Any]


async def opened(registry: AgentRegistry, users: int) -> Roots:
    """Give every user an agent; return the objects that each can hold."""
    registry.register("helper", Remembering)
    manager = WebSocketManager()
    roots: dict[str, dict[str, Any]] = {}
    for number in range(users):
        user = f"user-{number}"
        agent = await registry.create_agent_for_user(
            user, "helper", UserExecutionContext(user, agent_context=DATA), manager
        )
        assert isinstance(agent, Remembering)
        agent.memory = {"note": {"of": user, "numbers": [1, 2, 3], "tags": {user}}}
        roots[user] = {
            "agent": agent,
            "context": agent.context,
            "dispatcher": agent.tool_dispatcher,
            "bridge": agent.bridge,
            "llm": agent.llm,
        }
    return roots


def seconds_of(work: Any) -> float:
    """Processor seconds of one call, with the collector off: its passes go by all there is, not by the walk."""
    gc.collect()
    gc.disable()
    begun = time.process_time()
    try:
        work()
        return time.process_time() - begun
    finally:
        gc.enable()


def floor(objects: list[Any]) -> None:
    """Ask for the referents of each object."""
    referents_of = gc.get_referents
    for item in objects:
        referents_of(item)


async def measure(users: int, rounds: int) -> list[Row]:
    """The whole table."""
    async with AgentRegistry() as registry:
        roots = await opened(registry, users)
        trusted = [agent["llm"]._llm for agent in roots.values()][:1]
        objects = [item for user in roots for item in reach(user, roots[user], trusted).objects.values()]
        found = survey(roots, trusted, text=CANARY, met=True)
        assert not found.shared, found.shared[0]
        taken: dict[str, list[float]] = {"floor": [], "walk": [], "text": []}
        for _ in range(rounds):
            taken["floor"].append(seconds_of(lambda: floor(objects)))
            taken["walk"].append(seconds_of(lambda: survey(roots, trusted)))
            taken["text"].append(seconds_of(lambda: survey(roots, trusted, text=CANARY)))
        tracemalloc.start()
        try:
            survey(roots, trusted)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    walk, text = statistics.median(taken["walk"]), statistics.median(taken["text"])
    ratios = [walked / least for walked, least in zip(taken["walk"], taken["floor"], strict=True)]
    return [
        Row("objects owned", found.objects, "objects"),
        Row("objects for each user", found.objects / users, "objects"),
        Row("references looked at for each object", found.references / found.objects, "references"),
        Row("speed of the walk", found.objects / walk, "objects/s", least=1_000_000),
        Row("speed of the walk, searching texts too", found.objects / text, "objects/s"),
        Row("speed of the walk, by references", found.references / walk, "references/s"),
        Row("the walk, against a bare loop over the same objects", statistics.median(ratios), "x", most=9),
        Row("memory of the walk, at most", peak / found.objects, "B/object", most=250),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=10_000, help="users in the registry, one agent each")
    parser.add_argument("--rounds", type=int, default=7, help="rounds whose medians are shown")
    chosen = parser.parse_args()
    rows = asyncio.run(measure(chosen.users, chosen.rounds))
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"Python {version}, {chosen.users:,} users with one agent each, medians of {chosen.rounds} rounds")
    for row in rows:
        print(row)
    return 0 if all(row.is_met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
