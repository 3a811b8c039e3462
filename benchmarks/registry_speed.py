"""Speed and size of the registry, as multiples of the least that could do: `python benchmarks/registry_speed.py`.

The floor is a plain dict of slotted objects with a `threading.Lock` for each user, called without any asyncio: stricter
than any real service. The peer is the session store of agent-framework-core (extra `bench`), which copies a session on
the way in and out; without the package its rows are left out. Each create makes its context, as a service does for each
request. All take turns in one process, a few users at a time, for machines flip between two speeds; all is processor
time. Against the floor the median of the ratios is shown, the collector off; against the peer the ratio of the sums,
the collector's work included. Exit code 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import statistics
import sys
import threading
import time
import tracemalloc
import warnings
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from registry import AgentRegistry, BaseAgent, UserExecutionContext

CHUNK = 250
"""Users between two changes of turn: long enough for the clock, short beside a machine's changes of speed."""
NESTED = {
    "profile": {"tier": "enterprise", "regions": ["eu", "us"], "limits": {"tokens": 1_000, "cost": 2.5}},
    "history": [{"role": "user", "text": f"question {n}", "tags": ["a", "b"]} for n in range(5)],
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `target` None: reported, not judged."""

    name: str
    measured: float
    target: float | None
    unit: str

    @property
    def is_met(self) -> bool:
        return self.target is None or self.measured <= self.target

    def __str__(self) -> str:
        target = "" if self.target is None else f"<= {self.target:,g}{self.unit}"
        verdict = "" if self.target is None else "ok" if self.is_met else "MISSED"
        return f"{self.name:<58}{self.measured:>10,.2f}{self.unit:<3}{target:>14}  {verdict}"


# --------------------------------------------------------------------------------------------------------------- floor


class FloorAgent:
    """The entries of the floor."""

    __slots__ = ("agent_type", "data", "user_id")

    def __init__(self, user_id: str, agent_type: str) -> None:
        self.user_id = user_id
        self.agent_type = agent_type
        self.data: dict[str, Any] | None = None


class FloorUser:
    """One user of the floor."""

    __slots__ = ("agents", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.agents: dict[str, FloorAgent] = {}


class Floor:
    """A dict of users, each with a lock of its own."""

    __slots__ = ("users",)

    def __init__(self) -> None:
        self.users: dict[str, FloorUser] = {}

    def create(self, user_id: str, agent_type: str) -> FloorAgent:
        user = self.users.get(user_id)
        if user is None:
            user = self.users.setdefault(user_id, FloorUser())
        with user.lock:
            agent = user.agents[agent_type] = FloorAgent(user_id, agent_type)
        return agent

    def find(self, user_id: str, agent_type: str) -> FloorAgent | None:
        user = self.users.get(user_id)
        if user is None:
            return None
        with user.lock:
            return user.agents.get(agent_type)

    def end(self, user_id: str) -> int:
        user = self.users.pop(user_id, None)
        if user is None:
            return 0
        with user.lock:
            ended = len(user.agents)
            user.agents.clear()
        return ended


# ----------------------------------------------------------------------------------------------------------- the rounds


class Tidy(BaseAgent):
    """An agent with a cleanup of its own, which does not suspend."""

    __slots__ = ("tidied",)

    async def cleanup(self) -> None:
        self.tidied = True


def fresh() -> AgentRegistry:
    registry = AgentRegistry()
    registry.register("helper", BaseAgent)
    registry.register("tidy", Tidy)
    return registry


def chunks(users: list[str], size: int) -> list[list[str]]:
    return [users[start : start + size] for start in range(0, len(users), size)]


async def one_round(
    users: list[str], agent_type: str, data: dict[str, Any] | None, into: dict[str, list[float]]
) -> None:
    """Create, find and end one agent of every user, on the floor and on the registry in turn, a few users at a time."""
    floor = Floor()
    clock = time.process_time
    async with fresh() as registry:
        for name in ("create", "find", "end"):
            for some in chunks(users, CHUNK):
                begun = clock()
                if name == "create":
                    for user in some:
                        floor.create(user, agent_type)
                    between = clock()
                    for user in some:
                        context = UserExecutionContext(user, agent_context=data)
                        await registry.create_agent_for_user(user, agent_type, context)
                elif name == "find":
                    for user in some:
                        floor.find(user, agent_type)
                    between = clock()
                    for user in some:
                        await registry.get_user_agent(user, agent_type)
                else:
                    for user in some:
                        floor.end(user)
                    between = clock()
                    for user in some:
                        await registry.cleanup_user_session(user)
                into[name].append((clock() - between) / (between - begun))
        assert registry.get_registry_health()["total_user_sessions"] == 0


async def ratios(users: int, rounds: int, agent_type: str, data: dict[str, Any] | None = None) -> dict[str, float]:
    """Median of the registry's time by the floor's for the same users, for each step."""
    names = [f"user-{n}" for n in range(users)]
    await one_round(names, agent_type, data, {"create": [], "find": [], "end": []})
    found: dict[str, list[float]] = {"create": [], "find": [], "end": []}
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            await one_round(names, agent_type, data, found)
    finally:
        gc.enable()
    return {step: statistics.median(measured) for step, measured in found.items()}


@dataclass(frozen=True, slots=True)
class Steps:
    """The work for one user, by one of two that are compared."""

    create: Callable[[str], Awaitable[object]]
    find: Callable[[str], Awaitable[object]]
    end: Callable[[str], Awaitable[object]]


def steps_of_peer() -> Steps | None:
    """The peer with no session yet; None without its package."""
    if find_spec("agent_framework") is None:
        return None
    with warnings.catch_warnings():
        # That its session store is experimental.
        warnings.simplefilter("ignore")
        from agent_framework import AgentSession, SessionStore

        store = SessionStore()
    return Steps(lambda user: store.set(user, AgentSession(session_id=user)), store.get, store.delete)


def steps_of(registry: AgentRegistry) -> Steps:
    """The same of ours, which gives a user an agent."""
    return Steps(
        lambda user: registry.create_agent_for_user(user, "helper", UserExecutionContext(user)),
        lambda user: registry.get_user_agent(user, "helper"),
        registry.cleanup_user_session,
    )


async def against_peer(users: int, rounds: int) -> dict[str, float]:
    """Our time by the peer's for the same users, for each step; empty without the peer."""
    names = [f"user-{n}" for n in range(users)]
    taken = {step: [0.0, 0.0] for step in ("create", "find", "end")}
    for number in range(rounds + 1):
        peer = steps_of_peer()
        if peer is None:
            return {}
        async with fresh() as registry:
            for step, sums in taken.items():
                for some in chunks(names, CHUNK):
                    for place, one in enumerate((peer, steps_of(registry))):
                        do = getattr(one, step)
                        begun = time.process_time()
                        for name in some:
                            await do(name)
                        # The first round warms up.
                        sums[place] += (time.process_time() - begun) if number else 0.0
    return {step: ours / peers for step, (peers, ours) in taken.items()}


async def cost_of_ending_one(users: int, rng: random.Random, picked: int = 300) -> float:
    """Median seconds for ending one session of so many, chosen at random and opened again."""
    async with fresh() as registry:
        for n in range(users):
            await registry.create_agent_for_user(f"user-{n}", "helper", UserExecutionContext(f"user-{n}"))
        taken = []
        gc.collect()
        gc.disable()
        try:
            for _ in range(picked):
                user = f"user-{rng.randrange(users)}"
                begun = time.process_time()
                await registry.cleanup_user_session(user)
                taken.append(time.process_time() - begun)
                await registry.create_agent_for_user(user, "helper", UserExecutionContext(user))
        finally:
            gc.enable()
    return statistics.median(taken)


async def growth_of_ending(rounds: int) -> float:
    rng = random.Random(7)
    pairs = [(await cost_of_ending_one(1_000, rng), await cost_of_ending_one(10_000, rng)) for _ in range(rounds)]
    return statistics.median(many / few for few, many in pairs)


async def sizes(users: int) -> tuple[float, float]:
    """Traced bytes that a live one-agent user takes, and that one who went has left, with the collector off."""
    names = [f"user-{n}" for n in range(users)]
    async with fresh() as registry:
        # The dict is as large as it will be, the free lists are full: only a user's own memory is counted.
        for name in names:
            await registry.create_agent_for_user(name, "helper", UserExecutionContext(name))
        for name in names[1:]:
            await registry.cleanup_user_session(name)
        gc.collect()
        gc.disable()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for name in names[1:]:
                await registry.create_agent_for_user(name, "helper", UserExecutionContext(name))
            live = tracemalloc.get_traced_memory()[0] - before
            for name in names[1:]:
                await registry.cleanup_user_session(name)
            left = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
            gc.enable()
    return live / (users - 1), left / (users - 1)


async def measure(users: int, rounds: int) -> list[Row]:
    """The whole table."""
    plain = await ratios(users, rounds, "helper")
    tidy = await ratios(users, rounds, "tidy")
    nested = await ratios(users, max(3, rounds // 3), "helper", NESTED)
    growth = await growth_of_ending(max(3, rounds // 5))
    live, left = await sizes(users)
    peer = await against_peer(users, rounds)
    targets = {"create": 1.0, "find": 1.0, "end": 1.05}
    return [
        Row("create an agent, against the floor", plain["create"], 8, "x"),
        Row("find one", plain["find"], 4, "x"),
        Row("end a session", plain["end"], 8, "x"),
        Row("end a session whose agent has a cleanup of its own", tidy["end"], 10, "x"),
        Row("end one of 10,000, against one of 1,000", growth, 2.5, "x"),
        Row("a live one-agent user", live, 1_200, " B"),
        Row("the leftovers of a user who left", left, 40, " B"),
        Row("create with nested data in the context", nested["create"], None, "x"),
        Row("end with nested data in the context", nested["end"], None, "x"),
        *(Row(f"{step}, against the peer", ratio, targets[step], "x") for step, ratio in peer.items()),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=2_000, help="users in a round, one agent each")
    parser.add_argument("--rounds", type=int, default=15, help="rounds whose medians are compared")
    chosen = parser.parse_args()
    rows = asyncio.run(measure(chosen.users, chosen.rounds))
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"Python {version}, {chosen.users:,} users with one agent each, medians of {chosen.rounds} rounds")
    for row in rows:
        print(row)
    return 0 if all(row.is_met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
