"""An hour of users who connect, work, drop, resume, stall and leave; at its end everything must be given back.

    python -m benchmarks.soak [--minutes M] [--users N] [--seed N] [--json FILE]

Registry and server run on this thread's loop, the clients on a loop in another thread. Every cycle begins and ends with
nobody connected. Tasks, sockets, descriptors, threads and live objects must at the end be back at the baseline taken
after the warm-up, and the interval of the slope of anonymous memory over the cycles must include 0; exit 1 otherwise.
Prints a line a minute.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import gc
import json
import platform
import random
import sys
import time
from array import array
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
from starlette.applications import Starlette
from starlette.routing import Mount

from lab_utils.probes.live import count_now
from lab_utils.probes.memory import memory_now, slope_of
from lab_utils.sockets.device import EventClient, Tally
from lab_utils.sockets.fleet import ClientFleet
from lab_utils.sockets.loopback import LoopbackServer, serving
from registry import AgentRegistry, AgentRequest, BaseAgent, UserExecutionContext, WebSocketManager
from registry.events.tokens import TokenSigner
from registry.events.wire import CloseCode, SocketLimits

WARM_UP = 5
READINGS = 240
MOST_PER_MINUTE = 6_000  # No cycle over sockets is that quick: the room is never used up.
COUNTED = ("registry", "uvicorn", "websockets", "starlette", "asyncio", "_asyncio", "lab_utils.sockets.device")
LIMITS = SocketLimits(max_events=200, max_bytes=262_144, close_timeout=0.2)
LONG = "x" * 20_000


class Talker(BaseAgent):
    """Thinks aloud as often and as long as its command says."""

    async def execute(self, request: AgentRequest) -> Any:
        for step in range(request.parameters["thoughts"]):
            await self.think(f"{request.text}/{step}/{request.parameters['filling']}")
            await asyncio.sleep(0)


class Soak:
    """The cycles, and their readings."""

    def __init__(self, users: int, seed: int) -> None:
        self.users = users
        self.rng = random.Random(seed)
        self.signer = TokenSigner(self.rng.randbytes(32).hex())
        self.manager = WebSocketManager(limits=LIMITS)
        self.registry = AgentRegistry()
        self.registry.register("talker", Talker)
        self.fleet = ClientFleet()
        self.seen: Counter[str] = Counter()
        self.wrong: list[str] = []

    async def cycle(self, server: LoopbackServer, number: int) -> None:
        """Every user comes, works, and leaves."""
        await asyncio.gather(*(self._user(server, f"user-{number % 7}-{each}") for each in range(self.users)))
        self.fleet.clients.clear()
        while server.connection_count or self.manager.users:  # noqa: ASYNC110  # Sockets close when the peer's do.
            await asyncio.sleep(0.01)
        self.seen["cycles"] += 1

    async def _user(self, server: LoopbackServer, user: str) -> None:
        fleet, registry = self.fleet, self.registry
        url, token = server.url("/events/"), self.signer.issue(user)
        devices = [fleet.add(EventClient(url, token, retry_s=0.01)) for _ in range(self.rng.randint(1, 2))]
        await fleet.until(lambda one: one.is_ready, devices)
        agent = await registry.create_agent_for_user(user, "talker", UserExecutionContext(user), self.manager)
        expected = 0
        for run in range(3):
            fault = self.rng.choice(["none", "drop", "resume", "stall"])
            thoughts = self.rng.randint(1, 30)
            running = asyncio.ensure_future(
                agent.run(AgentRequest(f"run {run}", {"thoughts": thoughts, "filling": ""}))
            )
            expected += thoughts + 2
            if fault == "drop":
                await fleet.do(devices[0].drop)
                self.seen["drops"] += 1
            await running
            if fault == "stall":
                expected = await self._stall(agent, devices[0], expected)
            await self._arrived(devices, expected)
        await self._leave(user, devices)

    async def _stall(self, agent: BaseAgent, device: EventClient, expected: int) -> int:
        """A device that reads nothing while more is sent than is kept: it is cut off, and must resynchronise."""
        fleet, user = self.fleet, agent.context.user_id
        await self._arrived([device], expected)
        connected = self.manager.connection_count(user)
        await fleet.do(device.stall)
        while self.manager.connection_count(user) == connected:
            await agent.run(AgentRequest("flood", {"thoughts": 100, "filling": LONG}))
            expected += 102
        await fleet.do(device.resume_reading)
        self.seen["stalls"] += 1
        return expected

    async def _arrived(self, devices: list[EventClient], expected: int) -> None:
        await self.fleet.until(lambda one: one.is_ready and one.seq >= expected, devices)

    async def _leave(self, user: str, devices: list[EventClient]) -> None:
        for device in devices:
            await self.fleet.do(lambda one=device: setattr(one, "reconnect", False))  # type: ignore[misc]
        await self.registry.cleanup_user_session(user)
        await self.fleet.until(lambda one: one.is_ended, devices)
        for device in devices:
            tally: Tally = device.tally
            self.seen.update({name: value for name, value in asdict(tally).items() if isinstance(value, int)})
            self.seen["cut_off"] += tally.close_codes.count(CloseCode.SLOW_CONSUMER)
            self.seen["sessions_ended"] += device.close_code == CloseCode.SESSION_ENDED
            if tally.duplicates or tally.gaps or device.close_code != CloseCode.SESSION_ENDED:
                self.wrong.append(f"{user}: {device!r} {tally}")


def count() -> dict[str, int]:
    """Everything that must come back to where it was."""
    gc.collect()
    found = count_now(COUNTED)
    numbers = {"tasks": found.tasks, "timers": found.timers, "threads": found.threads, "descriptors": found.descriptors}
    numbers["sockets"] = len(psutil.Process().net_connections())
    # A cancelled timer stays in its loop's heap until its time has come; `timers` are those that were not.
    found.objects.pop("asyncio.events.TimerHandle", None)
    return numbers | {f"objects {name}": number for name, number in found.objects.items()}


async def counted() -> dict[str, int]:
    """The most of each that some of a few readings found: the server's own tick, every tenth of a second, is a timer in
    most of them and none in the turn in which it is due."""
    readings = []
    for _ in range(5):
        readings.append(count())
        await asyncio.sleep(0.03)
    return {name: max(reading.get(name, 0) for reading in readings) for name in set().union(*readings)}


def settle() -> None:
    """Give the system the memory that the allocator only keeps for later, so that resident memory is in use."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def anonymous_now() -> tuple[int, int]:
    """Bytes resident: anonymous ones, and all.

    Not USS: that counts a page of the interpreter's own file as long as nobody else has it mapped, so it falls by 10 MB
    when somebody on the machine starts another Python, and rises again when that ends.
    """
    if psutil.LINUX:
        found = psutil.Process().memory_info()
        return found.rss - found.shared, found.rss
    now = memory_now()
    return now.uss, now.rss


async def soak(minutes: float, users: int, seed: int) -> dict[str, Any]:
    """Run for that long; return the figures."""
    it = Soak(users, seed)
    app = Starlette(routes=[Mount("/events", it.manager.asgi_app(it.signer))])
    # Room for every reading there can be, written to at once: a list that grows would be growth that it measures.
    anonymous = array("q", bytes(8 * int(MOST_PER_MINUTE * max(1.0, minutes))))
    read = 0
    resident_first = resident = 0
    began = time.monotonic()
    async with it.registry, serving(app, ws_ping_interval=None) as server:
        for number in range(WARM_UP):
            await it.cycle(server, number)
        # A descriptor is closed a turn or two after the connection that had it.
        await asyncio.sleep(0.5)
        baseline = await counted()
        objects = len(gc.get_objects())
        number = WARM_UP
        next_line = 1
        while (elapsed := time.monotonic() - began) < 60 * minutes and read < len(anonymous):
            await it.cycle(server, number)
            number += 1
            settle()
            own, resident = anonymous_now()
            anonymous[read] = own
            resident_first = resident_first or resident
            read += 1
            if elapsed > 60 * next_line:
                print(
                    f"{next_line:3d} min: cycle {number}, {it.seen['events']:,} events, {it.seen['drops']} drops, "
                    f"{it.seen['resumes']} resumes, {it.seen['stalls']} stalls, {own / 1e6:.1f} MB, "
                    f"tasks {len(asyncio.all_tasks())}, wrong {len(it.wrong)}",
                    flush=True,
                )
                next_line += 1
        await asyncio.sleep(0.5)
        after = await counted()
        objects_after = len(gc.get_objects())
        await it.fleet.aclose()
    # Readings are thinned to so many, evenly, and the first fifth is left out: allocators settle in it.
    settled = anonymous[read // 5 : read]
    step = max(1, len(settled) // READINGS)
    slope = slope_of(settled[::step], seed)
    more = {name: after[name] - baseline.get(name, 0) for name in after if after[name] > baseline.get(name, 0)}
    return {
        "minutes": (time.monotonic() - began) / 60,
        "python": platform.python_version(),
        "users_per_cycle": users,
        "seed": seed,
        "seen": dict(it.seen),
        "baseline": {name: value for name, value in baseline.items() if not name.startswith("objects ")},
        "after": {name: value for name, value in after.items() if not name.startswith("objects ")},
        "objects_counted": sum(value for name, value in baseline.items() if name.startswith("objects ")),
        "all_objects_before_after": [objects, objects_after],
        "more_than_at_the_baseline": more,
        "wrong": it.wrong[:20],
        "anonymous_first_last_bytes": [anonymous[0], anonymous[read - 1]],
        "rss_first_last_bytes": [resident_first, resident],
        "anonymous_slope_bytes_per_cycle": slope.per_step / step,
        "anonymous_slope_interval": [slope.low / step, slope.high / step],
        "slope_includes_zero": slope.includes_zero,
        "ok": not more and not it.wrong and slope.includes_zero,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--seed", type=int, default=20_261)
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    figures = asyncio.run(soak(options.minutes, options.users, options.seed))
    text = json.dumps(figures, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")
    return 0 if figures["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
