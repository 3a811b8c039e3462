"""What the leak checks share: users who come, work and leave, and exact counts around them."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from lab_utils.checkers.leaks import Fit, Survivor, Trend, all_freed, counts_are_back, no_steady_growth
from lab_utils.faults import Planned
from lab_utils.probes.holders import held_by
from lab_utils.probes.live import Watch, collector_off, count_now
from lab_utils.probes.memory import Series, memory_now, slope_of, top_growth, traced, traced_bytes
from lab_utils.result import Sample
from lab_utils.target import Capability, Handle, Refused, Target
from lab_utils.trial import ASKED, LAB, Client, Trial

__all__ = ["MOST_BYTES", "MOST_BYTES_AN_OPERATION", "Caller", "LeakHunt", "attempt"]

MOST_BYTES = 500_000
"""The lab's own limit of growth in a test: a hundredth of what is asked."""
MOST_BYTES_AN_OPERATION = 10_000
"""The lab's own limit of growth by one operation: a hundredth of what is asked."""

_SERIES = 3
_SITE_CYCLES = 5
_TURNS = 5
_EXPLAINED = 3


class Caller(Client):
    """A client whose operations are not recorded: the record would be memory that grows with the work."""

    async def call(self, action: str, work: Awaitable[Any], agent_type: str = "", thread: str = "") -> Any:
        return await work


async def attempt(work: Awaitable[Any]) -> str:
    """Await what must fail; return how it did as text, for an exception would keep frames and all they hold."""
    try:
        await work
    except (Refused, Planned, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


class LeakHunt:
    """Counts exactly, and reads memory, around work on one target. Made inside `opened`, with the collector off."""

    def __init__(self, trial: Trial, target: Target) -> None:
        self.trial = trial
        self.target = target
        self.watch = Watch()
        self.modules: tuple[str, ...] = ("sqlite3", "lab_utils.targets", type(target).__module__)
        self.before: Mapping[str, int] = {}
        self._to_show: list[Series] = []

    @classmethod
    @asynccontextmanager
    async def opened(cls, trial: Trial, *arguments: Any) -> AsyncIterator[LeakHunt]:
        """Open a target with these arguments of `Trial.target`; trace allocations; switch the collector off."""
        with traced(), collector_off():
            target = await trial.target(*arguments)
            yield cls(trial, target)
            # While allocations are still traced and the collector is off: stopping must not hide what is left.
            await trial.stop(target)

    async def see(self, handle: Handle) -> None:
        """Watch an agent and the parts that go with it, and count all types of the packages that they come from."""
        self.watch.see(f"agent {handle.agent_type} of {handle.user!r}", handle.native)
        if Capability.PARTS not in self.target.capabilities:
            self._know(handle.native)
            return
        for kind, part in (await self.target.parts(handle)).items():
            self._know(part)
            self.watch.see(f"{kind} of {handle.user!r}", part)

    def _know(self, part: object) -> None:
        package = type(part).__module__.partition(".")[0]
        if package not in ("builtins", "lab_utils", *self.modules):
            self.modules = (*self.modules, package)

    def counts(self) -> dict[str, int]:
        """Everything that can be left, by kind: live objects by type, tasks, timers, threads, descriptors,
        connections."""
        now = count_now(self.modules)
        kinds = {"tasks": now.tasks, "timers": now.timers, "threads": now.threads, "descriptors": now.descriptors}
        if Capability.EVENTS in self.target.capabilities:
            kinds["connections"] = self.target.connections()
        return {**now.objects, **kinds}

    def baseline(self) -> None:
        """From here on nothing may be left."""
        self.watch.forget()
        self.before = self.counts()
        self.show("baseline", self.before)

    def traced(self) -> int:
        """Traced bytes now, without what the lab itself kept to watch objects that have been freed since."""
        self.watch.drop_freed()
        return traced_bytes()

    def show(self, phase: str, counts: Mapping[str, int], *, with_rss: bool = True) -> None:
        """Add samples for the figures: memory, and live objects by type."""
        if with_rss:
            now = memory_now()
            self.trial.sample("rss", now.rss, "bytes", phase=phase)
            self.trial.sample("uss", now.uss, "bytes", phase=phase)
        self.trial.sample("traced", self.traced(), "bytes", phase=phase)
        for kind, count in counts.items():
            if not kind.startswith(("sqlite3.", "lab_utils.targets.")) or count:
                self.trial.sample(f"live_objects:{kind.rpartition('.')[2]}", count, "objects", phase=phase)

    def judge_back(self, made: int, when: str) -> None:
        """Judge that every count is back at the baseline, and that all that was watched is gone."""
        after = self.counts()
        self.show("freed", after)
        verdict = counts_are_back(self.before, after, made, self._explained(after))
        self.trial.judge(verdict)
        self.judge_freed(when)

    def judge_freed(self, when: str) -> None:
        """Judge that all that was watched is gone, and measure which share of it."""
        seen, left = self.watch.seen, self.watch.count_alive()
        if seen:
            freed = (seen - left) / seen
            metric = f"freed by reference counting {when}"
            self.trial.measure(metric, freed, "share", ASKED(">", 0.8), LAB("==", 1.0), anomaly="retained-object")
        self.trial.judge(all_freed(seen, self._survivors() if left else ()))

    def _survivors(self) -> list[Survivor]:
        alive = self.watch.alive()
        held = [(label, id(item), held_by(item, [alive, *alive])) for label, item in alive[:_EXPLAINED]]
        del alive
        gc.collect()
        left = {id(item) for _, item in self.watch.alive()}
        rest = self.watch.count_alive() - sum(key in left for _, key, _ in held)
        found = [Survivor(label, key not in left, holders) for label, key, holders in held]
        return found + [Survivor("another", False, "not looked into")] * rest

    def _explained(self, after: Mapping[str, int]) -> dict[str, list[str]]:
        """For tasks and timers that are left: which they are."""
        found: dict[str, list[str]] = {}
        if after["tasks"] > self.before.get("tasks", 0):
            tasks = [task.get_coro() for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            found["tasks"] = sorted({getattr(coro, "__qualname__", repr(coro)) for coro in tasks})
        return found

    async def trend(
        self, what: str, cycle: Callable[[int], Awaitable[None]], cycles: int, shown: int = 0, first: int = 0
    ) -> list[Trend]:
        """Repeat a cycle of the same work and return the growth of traced bytes and of live objects a cycle.

        A series that seems to grow is followed by two of a third of its length: a leak grows in every one. Live objects
        are counted after `shown` of the cycles, evenly spread.
        """
        fits: dict[str, list[Fit]] = {"bytes": [], "objects": []}
        names = {"bytes": f"traced memory of {what}", "objects": f"the number of live objects of {what}"}
        trends: list[Trend] = []
        for number in range(_SERIES):
            length = cycles if number == 0 else max(4, cycles // 3)
            series = await self._series(cycle, range(first, first + length), shown)
            first += length
            for unit, readings in series.items():
                values = readings.values
                if len(values) >= 4:
                    slope = slope_of(values, self.trial.seed + number)
                    fits[unit].append(Fit(len(values), slope.per_step, slope.low, slope.high, min(values)))
            trends = [Trend(name, unit, tuple(fits[unit])) for unit, name in names.items() if fits[unit]]
            if not any(trend.steady_growth > 0 for trend in trends):
                break
        return trends

    async def _series(self, cycle: Callable[[int], Awaitable[None]], numbers: range, shown: int) -> dict[str, Series]:
        series = {"bytes": Series(len(numbers)), "objects": Series(len(numbers))}
        every = max(1, len(numbers) // max(1, shown))
        for place, number in enumerate(numbers):
            await cycle(number)
            await self.trial.settle(_TURNS)
            series["bytes"].take(self.traced(), self.trial.now())
            if place % every == every - 1:
                series["objects"].take(sum(self.counts().values()), self.trial.now())
        # Into the samples when all is measured: they would be memory that grows from one series to the next.
        self._to_show.append(series["bytes"])
        return series

    async def judge_trend(self, trends: Sequence[Trend], cycle: Callable[[int], Awaitable[None]], first: int) -> None:
        """Judge that nothing grows; where something does, name the lines that hold more than before."""
        for series in self._to_show:
            points = zip(series.values, series.times, strict=True)
            self.trial.samples.extend(Sample("traced", value, "bytes", at, "work") for value, at in points)
        sites: list[str] = []
        if any(trend.steady_growth > 0 for trend in trends):
            before = tracemalloc.take_snapshot()
            for number in range(first, first + _SITE_CYCLES):
                await cycle(number)
            sites = [f"{_SITE_CYCLES} cycles: {line}" for line in top_growth(before, tracemalloc.take_snapshot())]
        self.trial.judge(no_steady_growth(trends, sites))
        for trend in trends:
            last = trend.fits[-1]
            for name, value in (("slope", last.slope), ("slope, at least", last.low), ("slope, at most", last.high)):
                self.trial.measure(f"{name}, of {trend.what} (95%)", value, f"{trend.unit}/cycle")
            metric = f"steady growth of {trend.what}"
            anomaly = "memory-growth" if trend.unit == "bytes" else "object-growth"
            growth, unit = trend.steady_growth, f"{trend.unit}/cycle"
            self.trial.measure(metric, growth, unit, LAB("<=", 0.0), anomaly=anomaly)
