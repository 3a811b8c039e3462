"""Speed and size of a target's users, beside a plain dict: `python -m benchmarks.target_speed NAME`.

A user is created with one agent, which notes a short text; is looked up; and is ended. The floor is that of
`registry_speed`: a dict of slotted objects with a lock for each user, called without any asyncio. All is processor time
of one process, a few users at a time in turns, and the median of the rounds is shown. Bytes are those that Python
allocates, after a collection; a file that a framework keeps is not among them. `make frameworks` runs it in each
framework's own environment.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import sys
import time
import tracemalloc
from collections import defaultdict
from pathlib import Path

from benchmarks.registry_speed import Floor, chunks
from lab_utils.target import Capability, Command, Recipe, Target
from lab_utils.targets import make_target

CHUNK = 25
TYPE = "helper"
NOTE = Command("write", {"key": "note", "value": "call back on Monday"})


async def begun(name: str) -> Target:
    target = make_target(name)
    await target.start([Recipe(TYPE)], {}, 5.0)
    return target


async def create(target: Target, user: str) -> None:
    handle = await target.create(user, TYPE, connect=False)
    await target.run(handle, NOTE)


def write(floor: Floor, user: str) -> None:
    floor.create(user, TYPE).data = {"note": "call back on Monday"}


async def one_round(name: str, users: list[str], into: dict[str, list[float]]) -> None:
    """Microseconds a user of each step, of the floor and of the target in turn."""
    floor, target = Floor(), await begun(name)
    clock = time.process_time
    try:
        for some in chunks(users, CHUNK):
            start = clock()
            for user in some:
                write(floor, user)
            between = clock()
            for user in some:
                await create(target, user)
            note(into, "create", start, between, clock(), len(some))
        for some in chunks(users, CHUNK):
            start = clock()
            for user in some:
                floor.find(user, TYPE)
            between = clock()
            if Capability.LOOKUP in target.capabilities:
                for user in some:
                    await target.get(user, TYPE)
            note(into, "get", start, between, clock(), len(some))
        for some in chunks(users, CHUNK):
            start = clock()
            for user in some:
                floor.end(user)
            between = clock()
            if Capability.END in target.capabilities:
                for user in some:
                    await target.end(user)
            note(into, "end", start, between, clock(), len(some))
    finally:
        await target.stop()


def note(into: dict[str, list[float]], step: str, start: float, between: float, end: float, users: int) -> None:
    into[f"floor_{step}"].append((between - start) / users * 1e6)
    into[step].append((end - between) / users * 1e6)


async def sizes(name: str, users: list[str]) -> tuple[float, float | None]:
    """Traced bytes that a live user takes, and that one who was ended has left."""
    target = await begun(name)
    can_end = Capability.END in target.capabilities
    try:
        # Others came first: objects made once, and room in the tables, are there.
        for user in users:
            await create(target, f"first-{user}")
        if can_end:
            for user in users:
                await target.end(f"first-{user}")
        gc.collect()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for user in users:
                await create(target, user)
            gc.collect()
            live = tracemalloc.get_traced_memory()[0] - before
            if not can_end:
                return live / len(users), None
            for user in users:
                await target.end(user)
            gc.collect()
            return live / len(users), (tracemalloc.get_traced_memory()[0] - before) / len(users)
        finally:
            tracemalloc.stop()
    finally:
        await target.stop()


async def measure(name: str, users: int, rounds: int) -> dict[str, float | None]:
    names = [f"user-{number}" for number in range(users)]
    found: dict[str, list[float]] = defaultdict(list)
    # The first round warms up.
    await one_round(name, names, defaultdict(list))
    for _ in range(rounds):
        gc.collect()
        await one_round(name, names, found)
    target = make_target(name)
    lacks = {"get": Capability.LOOKUP, "end": Capability.END}
    live, left = await sizes(name, names)
    return {
        **{
            f"{step}_us": None if lacks.get(step) not in (None, *target.capabilities) else statistics.median(times)
            for step, times in found.items()
        },
        "live_bytes": live,
        "left_bytes": left,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", help="its name, or package.module:Name")
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="a file for the figures")
    chosen = parser.parse_args()
    figures = asyncio.run(measure(chosen.target, chosen.users, chosen.rounds))
    if chosen.json:
        chosen.json.write_text(json.dumps(figures), encoding="utf-8")
    for name, value in figures.items():
        print(f"{name:<18}" + ("-" if value is None else f"{value:,.1f}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
