"""How long calls that concern every user hold the event loop: `python benchmarks/registry_scale.py`.

A task that only asks for its next turn measures the longest time between two of its turns while a call is awaited, in
processor time of this thread, so that other processes do not count. The collector's time is shown beside it and is not
part of it: how long a full collection takes is decided by how many objects the process holds. Exit code 1 if a target
is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from registry import AgentRegistry, BaseAgent, Connection, Limits, UserExecutionContext, WebSocketManager

HOLD_S = 0.02
"""The longest that a call may hold the loop."""
AWAITING_S = 3.0
"""The longest that ending 100,000 sessions may take whose agents' cleanups await, in all."""


class Tidy(BaseAgent):
    """A cleanup that does not await."""

    async def cleanup(self) -> None:
        self.tidied = True


class Yielding(BaseAgent):
    """A cleanup that gives up the processor once."""

    async def cleanup(self) -> None:
        await asyncio.sleep(0)


class Slow(BaseAgent):
    """A cleanup of 0.1 s, in two steps: a deadline by the clock alone cuts it off where the loop is busy."""

    async def cleanup(self) -> None:
        for _ in range(2):
            await asyncio.sleep(0.05)


@dataclass(slots=True)
class Seen:
    """The effect of a call on the loop: seconds of its longest hold, of the whole call and of the longest
    collection."""

    hold: float = 0.0
    total: float = 0.0
    collection: float = 0.0
    errors: list[str] = field(default_factory=list)

    @property
    def cancelled(self) -> int:
        return sum("did not end within" in error for error in self.errors)


class Meter:
    """Measures a call. The collector's work is measured by its own callbacks."""

    def __init__(self) -> None:
        self.seen = Seen()
        self._collecting = 0.0
        self._collected = 0.0
        self._stopped = False

    def _on_collection(self, phase: str, _: dict[str, int]) -> None:
        now = time.thread_time()
        if phase == "start":
            self._collecting = now
        else:
            self._collected += now - self._collecting
            self.seen.collection = max(self.seen.collection, now - self._collecting)

    async def _tick(self) -> None:
        last, collected = time.thread_time(), self._collected
        while not self._stopped:
            await asyncio.sleep(0)
            now = time.thread_time()
            self.seen.hold = max(self.seen.hold, now - last - (self._collected - collected))
            last, collected = now, self._collected

    async def measure(self, call: Callable[[], Any]) -> Seen:
        gc.collect()
        gc.callbacks.append(self._on_collection)
        ticking = asyncio.create_task(self._tick())
        await asyncio.sleep(0)
        begun = time.perf_counter()
        try:
            answer = call()
            if isinstance(answer, Awaitable):
                answer = await answer
            await asyncio.sleep(0)  # So that the ticking sees the last hold as well.
        finally:
            self.seen.total = time.perf_counter() - begun
            self._stopped = True
            await ticking
            gc.callbacks.remove(self._on_collection)
        if isinstance(answer, dict):
            self.seen.errors = answer.get("errors", [])
        return self.seen


@dataclass(slots=True)
class World:
    """A registry of so many users with an agent each, and the objects that a call may need beside it."""

    registry: AgentRegistry
    manager: WebSocketManager
    users: list[str]
    now: list[float]
    clients: list[Connection] = field(default_factory=list)

    @classmethod
    async def make(cls, case: Case, count: int) -> World:
        now = [0.0]
        registry = AgentRegistry(limits=case.limits, clock=lambda: now[0])
        registry.register("helper", case.agent)
        world = cls(registry, WebSocketManager(), [f"user-{number}" for number in range(count)], now)
        for user in world.users:
            manager = world.manager if case.has_clients else None
            if manager is not None:
                world.clients.append(manager.connect(user))
            await registry.create_agent_for_user(user, "helper", UserExecutionContext(user), manager)
        return world

    async def sweep(self, later: float) -> Any:
        self.now[0] += later
        return await self.registry.lifecycle.sweep()

    async def end_each(self) -> dict[str, Any]:
        reports = await asyncio.gather(*(self.registry.cleanup_user_session(user) for user in self.users))
        return {"errors": [error for report in reports for error in report["errors"]]}


@dataclass(frozen=True, slots=True)
class Case:
    """A call over so many users; how long it may hold the loop, and take in all (seconds for 100,000 users)."""

    name: str
    call: Callable[[World], Any]
    agent: type[BaseAgent] = BaseAgent
    limits: Limits = Limits()  # noqa: RUF009  # Frozen.
    has_clients: bool = False
    holds: float | None = HOLD_S
    total: float | None = None


DAY = 86_400.0
SHORT = Limits(close_timeout=0.5)


def emergency(world: World) -> Any:
    return world.registry.emergency_cleanup_all()


CASES = (
    Case("get_registry_health", lambda world: world.registry.get_registry_health()),
    Case("repr of the registry", lambda world: repr(world.registry)),
    Case("monitor_all_users", lambda world: world.registry.monitor_all_users()),
    Case("sweep, none due", lambda world: world.sweep(0.0)),
    Case("sweep, all due", lambda world: world.sweep(DAY)),
    Case("emergency, no cleanup", emergency),
    Case("emergency, cleanup at once", emergency, Tidy),
    Case("emergency, cleanup awaits", emergency, Yielding, total=AWAITING_S),
    Case("emergency, 0.1 s of 0.5", emergency, Slow, SHORT),
    Case("aclose, cleanup awaits", lambda world: world.registry.aclose(), Yielding, total=AWAITING_S),
    # That many callers are tasks of the benchmark's own, which hold the loop themselves.
    Case("a call for each, 0.1 s of 0.5", World.end_each, Slow, SHORT, holds=None),
    Case("connections of all users", lambda world: world.manager.connection_count(), has_clients=True),
    Case("users with a channel", lambda world: world.manager.users, has_clients=True),
    Case("close of the manager", lambda world: world.manager.aclose(), has_clients=True),
)


async def run(case: Case, count: int) -> Seen:
    world = await World.make(case, count)
    seen = await Meter().measure(lambda: case.call(world))
    await world.registry.aclose()
    return seen


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--only", default="", help="run the cases whose name contains this")
    chosen = parser.parse_args()
    missed = 0
    print(f"{'':<32}{'users':>9}{'hold ms':>10}{'total s':>10}{'collector ms':>14}{'cancelled':>11}")
    for case in CASES:
        for count in chosen.users if chosen.only in case.name else ():
            seen = asyncio.run(run(case, count))
            limit = None if case.total is None else case.total * max(1.0, count / 100_000)
            is_met = (case.holds is None or seen.hold <= case.holds) and (limit is None or seen.total <= limit)
            is_met = is_met and seen.cancelled == 0
            missed += not is_met
            figures = f"{count:>9,}{seen.hold * 1e3:>10.1f}{seen.total:>10.2f}{seen.collection * 1e3:>14.1f}"
            print(f"{case.name:<32}{figures}{seen.cancelled:>11,}{'' if is_met else '  MISSED'}", flush=True)
    print(f"targets: hold <= {HOLD_S * 1e3:g} ms; cleanups that await <= {AWAITING_S:g} s; none cancelled")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
