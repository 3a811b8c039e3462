"""Shared code of the leak checks: users who come, work and leave, and exact counts around them."""

from __future__ import annotations

import asyncio
import functools
import gc
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import islice
from typing import Any

from lab_utils.checks.memory.rest import MOMENT_S, Rest
from lab_utils.checks.memory.slopes import Cycle, Slopes
from lab_utils.checks.memory.sockets import CutShort
from lab_utils.judges.leaks import Survivor, Trend, all_freed, counts_are_back, no_steady_growth, repeated_growth
from lab_utils.probes.holders import explained
from lab_utils.probes.leftovers import Before, growing, most_held
from lab_utils.probes.live import (
    KINDS,
    Watch,
    collector_off,
    count_now,
    drop_dead_cursors,
    handles_now,
    threads_now,
    timers_now,
    type_counts,
)
from lab_utils.probes.memory import memory_now, top_growth, top_types, traced, traced_bytes
from lab_utils.target import Capability, EndReport, Handle, Refused, Target
from lab_utils.trial import ASKED, LAB, Client, Trial
from lab_utils.trial.faults import Gate, Planned, planned_in
from lab_utils.values.result import Budget

__all__ = [
    "MOST_ASKED_BYTES",
    "MOST_BYTES",
    "MOST_BYTES_AN_OPERATION",
    "Caller",
    "LeakHunt",
    "attempt",
    "in_a_moment",
]

MOST_ASKED_BYTES = 50_000_000
"""The requirement's limit of growth in a test."""
MOST_BYTES = 500_000
"""The lab's own limit of growth in a test: a hundredth of the requirement."""
MOST_BYTES_AN_OPERATION = 10_000
"""The lab's own limit of growth by one operation: a hundredth of the requirement."""

_LEAST_CYCLES = 12
_SITE_CYCLES = 5
_NOISE = 0.1
_FEW_BYTES = 200
_COLLECTED_CYCLES = 12
_OWN_FILES = ("lab_utils/probes/", "lab_utils/checks/")
_EXPLAINED = 2
_PAUSE_S = 0.01
_EXPLAINED_KINDS = 3
_NO_DIGITS = str.maketrans("", "", "0123456789")


class Caller(Client):
    """A client whose operations are not recorded: the record would be memory that grows with the work.

    Their begin, end and duration are reported all the same: a slow target that works on has not come to a
    standstill."""

    async def call(self, action: str, work: Awaitable[Any], agent_type: str = "", thread: str = "") -> Any:
        self._log.next_position()
        began = self._log.now()
        try:
            answer = await work
            self._log.took(self._log.now() - began)
            return answer
        finally:
            self._log.next_position()


async def attempt(client: Client, work: Awaitable[Any], *, may_fail: bool = False) -> str:
    """Await a call that must fail; return its failure as text, for an exception would keep frames and all they hold.

    A RuntimeError of the target's own is noted, unless the call may fail in whatever way: it is asked to, or the end of
    the session cuts it off.
    """
    since = Planned.so_far
    try:
        await work
    except Exception as error:
        if not isinstance(error, (Refused, RuntimeError)) and planned_in(error) is None:
            raise
        if not may_fail:
            client.note_failure("a call", error, since)
        return f"{type(error).__name__}: {error}"
    return ""


async def in_a_moment(holds: Callable[[], bool]) -> None:
    """Wait for a condition for a second at most."""
    for _ in range(round(MOMENT_S / _PAUSE_S)):
        if holds():
            break
        await asyncio.sleep(_PAUSE_S)


def _grows(trends: Sequence[Trend]) -> bool:
    return any(trend.decides and trend.steady_growth > 0 for trend in trends)


def _without_noise(trends: Sequence[Trend], collected: Sequence[Trend]) -> list[Trend]:
    """The trends with a collection after each cycle. A growth in bytes that is then less than a tenth of the growth
    without, or less than half of it and 200 bytes, does not decide if no object is added: caches and free lists
    that the garbage had emptied fill for some hundred cycles. A leak below it shows as soon as the cycle is broken."""
    if any(trend.unit == "objects" and trend.steady_growth > 0 for trend in collected):
        return list(collected)
    most = max((trend.steady_growth for trend in trends if trend.decides and trend.unit == "bytes"), default=0.0)
    limit = max(_NOISE * most, min(_FEW_BYTES, most / 2))
    is_noise = [trend.unit == "bytes" and trend.steady_growth < limit for trend in collected]
    return [replace(one, decides=False) if noise else one for one, noise in zip(collected, is_noise, strict=True)]


class LeakHunt:
    """Counts exactly, and reads memory, around work on one target. Made inside `opened`, with the collector off."""

    def __init__(self, trial: Trial, target: Target) -> None:
        self.trial = trial
        self.target = target
        self.watch = Watch()
        self.modules: tuple[str, ...] = ("sqlite3", "lab_utils.targets", type(target).__module__)
        self.before: Mapping[str, int] = {}
        self._has_database = False
        self._there_before = Before(())
        self._roots = {"the target": target}
        self._slopes = Slopes(trial, self.traced, self.counts)
        self._told: set[str] = set()
        self._rest = Rest()
        self.garbage = 0
        """Bytes that the cyclic collector has freed."""
        self.found_garbage = 0
        """Those of them that are a finding, `reference-cycle`: they are not counted as growth too."""

    @classmethod
    @asynccontextmanager
    async def opened(cls, trial: Trial, *arguments: Any, **named: Any) -> AsyncIterator[LeakHunt]:
        """Open a target with these arguments of `Trial.target`; trace allocations; switch the collector off."""
        with traced(), collector_off():
            target = await trial.target(*arguments, **named)
            if Capability.END not in target.capabilities:
                trial.note(
                    "The target has no way to end a session: here a user leaves by never coming back, and the lab "
                    "keeps no handle of theirs. Everything left then, the target keeps for as long as it lives."
                )
            yield cls(trial, target)
            # While allocations are still traced and the collector is off: stopping must not hide a leak.
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

    @property
    def finds_agents(self) -> bool:
        """Whether `see_agent_of` can find any."""
        able = self.target.capabilities
        return Capability.LOOKUP in able or Capability.GET_OR_CREATE in able

    async def see_agent_of(self, user: str, agent_type: str) -> None:
        """Watch an agent that is there, found as the target finds one."""
        handle: Handle | None = None
        if Capability.LOOKUP in self.target.capabilities:
            handle = await self.target.get(user, agent_type)
        elif Capability.GET_OR_CREATE in self.target.capabilities:
            handle = await self.target.get_or_create(user, agent_type)
        if handle is not None:
            await self.see(handle)

    async def leave(self, user: str) -> EndReport | None:
        """Let a user leave; None if the target has no way to end a session, so that they just do not come back."""
        if Capability.END not in self.target.capabilities:
            return None
        report: EndReport = await Caller(self.trial, self.target, "the end", user).end()
        return report

    async def cancelled(self, gate: Gate, work: Awaitable[Any]) -> None:
        """Cancel a call once it is inside the gate."""
        before, caller = gate.entered, Caller(self.trial, self.target, "the client that is cancelled", "")
        task = asyncio.ensure_future(attempt(caller, work, may_fail=True))
        reached = await self.trial.waiting.until(lambda: gate.entered > before or task.done())
        told = task.result() if task.done() else "" if reached else "it never began"
        self.require(not told, "failed-operation", "the call to be cancelled was not under way", told)
        task.cancel()
        await asyncio.wait({task})

    def require(self, holds: bool, anomaly: str, sentence: str, *witness: object) -> None:
        """As `Trial.require`, and of findings that differ in their figures alone only the first: one for every cycle
        would be memory of the lab that grows with the cycles."""
        kind = anomaly + sentence.translate(_NO_DIGITS)
        if holds or kind not in self._told:
            self.trial.require(holds, anomaly, sentence, *witness)
        if not holds:
            self._told.add(kind)

    def _know(self, part: object) -> None:
        package = type(part).__module__.partition(".")[0]
        if package not in ("builtins", "lab_utils", *self.modules):
            self.modules = (*self.modules, package)

    def counts(self) -> dict[str, int]:
        """Everything that can be left, by kind: live objects by type, tasks, timers, handles, threads, descriptors,
        sockets, connections."""
        now = count_now(self.modules)
        kinds = {kind: getattr(now, kind) for kind in KINDS}
        if Capability.EVENTS in self.target.capabilities:
            kinds["connections"] = self.target.connections()
        return {**now.objects, **kinds}

    def baseline(self) -> None:
        """From here on nothing may be left."""
        self.watch.forget()
        # Garbage of before must not be subtracted from a growth that comes after.
        gc.collect()
        self._there_before = Before(self.modules)
        self.before = self.counts()
        self._look_for_databases()
        self.show("baseline", self.before)

    def _look_for_databases(self) -> None:
        self._has_database = type_counts(("sqlite3",))["sqlite3.Connection"] > 0

    def traced(self) -> int:
        """Traced bytes now, without the lab's own records on watched objects that have been freed since."""
        self.watch.drop_freed()
        if self._has_database:
            drop_dead_cursors()
        return traced_bytes()

    def show(self, phase: str, counts: Mapping[str, int], *, with_rss: bool = True) -> None:
        """Add samples for the figures: memory, and live objects by type."""
        if with_rss:
            now = memory_now()
            self.trial.sample("rss", now.rss, "bytes", phase=phase)
            self.trial.sample("uss", now.uss, "bytes", phase=phase)
            self.trial.sample("anonymous", now.anonymous, "bytes", phase=phase)
        self.trial.sample("traced", self.traced(), "bytes", phase=phase)
        for kind, count in counts.items():
            if not kind.startswith(("sqlite3.", "lab_utils.targets.")) or count:
                self.trial.sample(f"live_objects:{kind.rpartition('.')[2]}", count, "objects", phase=phase)

    async def judge_back(self, made: int, when: str) -> None:
        """Judge that every count is back at the baseline, and that all that was watched is gone."""
        # A timer that is over in a moment, such as that of a write that was put off, is not left.
        await in_a_moment(lambda: timers_now(asyncio.get_running_loop()) <= self.before["timers"])
        after = self.counts()
        self.show("freed", after)
        explained = self._explained(after)
        held = self.traced()
        self.judge_freed(when)
        more = [kind for kind, count in after.items() if count > self.before.get(kind, 0)]
        gc.collect()
        self.garbage = max(0, held - self.traced())
        left = self.counts()
        garbage = [kind for kind in more if left.get(kind, 0) <= self.before.get(kind, 0)]
        # Without a kind of object that is counted, a few bytes are no finding: the lab and Python leave some too.
        if garbage or self.garbage > MOST_BYTES:
            sentence = f"objects of users who left are freed by the cyclic collector only, {when}"
            witness = [f"{kind}: {after[kind]}, and {self.before.get(kind, 0)} before" for kind in garbage]
            self.trial.find("reference-cycle", sentence, *witness, f"{self.garbage:,} bytes in all")
            self.found_garbage = self.garbage
        after = {**after, **{kind: left.get(kind, 0) for kind in garbage}}
        self.trial.judge(counts_are_back(self.before, after, made, explained))

    def judge_freed(self, when: str) -> None:
        """Judge that all that was watched is gone, and measure which share of it. Where nothing could be watched, leave
        this part out: the counts by type are judged all the same."""
        seen, left = self.watch.seen, self.watch.count_alive()
        if not seen:
            self.trial.leave_out(f"the share of agents freed {when}: none of them can be watched by a weak reference")
            return
        survivors = self._survivors() if left else []
        freed = (seen - left) / seen
        metric = f"freed by reference counting {when}"
        anomaly = "reference-cycle" if all(one.in_cycle for one in survivors) else "retained-object"
        self.trial.measure(metric, freed, "share", ASKED(">", 0.8), LAB("==", 1.0), anomaly=anomaly,
                           explained=lambda: [f"{one.label}: {one.holders}" for one in survivors[:1]])  # fmt: skip
        self.trial.judge(all_freed(seen, survivors))

    def grown_since(self, before: int) -> tuple[float, float]:
        """Traced bytes beyond `before`, over all cycles so far, and their `repeated_growth`."""
        now = self.traced()
        return now - before, repeated_growth([before, *self._slopes.traced_readings, now])

    def measure_cycles(self, grown: float, repeated: float) -> None:
        """Hold the growth over all cycles against the limit that was asked for, and the part of it that is more than
        a single step against the lab's own."""
        metric = "traced growth over all cycles"
        self.measure_growth(metric, grown - self.found_garbage, "bytes", ASKED("<", MOST_ASKED_BYTES))
        metric += ", without a step that came once"
        self.measure_growth(metric, repeated - self.found_garbage, "bytes", LAB("<=", MOST_BYTES))

    async def grown_again(self, grown: Sequence[int], *stages: Callable[[], Awaitable[None]]) -> list[int]:
        """Take the traced bytes that a round of work had added after each of its stages; return them without garbage
        that is a finding.

        If the last is beyond the lab's own limit, the round is repeated, and of two readings the smaller counts: a step
        that came once is no growth. It is not repeated where no user can leave: the second round would add nothing.
        """
        once = [one - self.found_garbage for one in grown]
        if once[-1] <= MOST_BYTES or Capability.END not in self.target.capabilities:
            return once
        before, again = self.traced() + self.found_garbage, []
        for stage in stages:
            await stage()
            again.append(self.traced() - before)
        return list(map(min, once, again))

    def measure_growth(self, metric: str, value: float, unit: str, *budgets: Budget) -> None:
        """Hold a growth of traced memory against its budgets; a broken budget names the lines that hold most, and the
        holders of their objects."""
        explained = functools.cache(lambda: tuple(most_held(self._roots)) if self.trial.explains else ())
        self.trial.measure(metric, value, unit, *budgets, anomaly="memory-growth", explained=explained)

    def _survivors(self) -> list[Survivor]:
        alive = self.watch.alive()
        held = [(label, id(item), self._held(item, alive)) for label, item in alive[:_EXPLAINED]]
        held += [(label, id(item), "") for label, item in alive[_EXPLAINED:]]
        del alive
        gc.collect()
        left = {id(item) for _, item in self.watch.alive()}
        return [Survivor(label, key not in left, holders) for label, key, holders in held]

    def _held(self, item: object, alive: list[tuple[str, Any]]) -> str:
        return explained(item, [alive, *alive], self._roots) if self.trial.explains else ""

    def _explained(self, after: Mapping[str, int]) -> dict[str, list[str]]:
        """For each kind with more objects left: some of them, their holders, and the place of their allocation."""
        more = [kind for kind, count in after.items() if count > self.before.get(kind, 0) and self.trial.explains]
        return {kind: self._there_before.left(kind, self._roots, 1) for kind in more[:_EXPLAINED_KINDS]}

    def count_watched(self) -> dict[str, int]:
        """Counts without a look at everything alive: watched objects, tasks, timers, handles, threads."""
        loop = asyncio.get_running_loop()
        found = {"watched": self.watch.count_alive(), "threads": threads_now()}
        return found | {
            "tasks": len(asyncio.all_tasks()),
            "timers": timers_now(loop),
            "handles": len(handles_now(loop)),
        }

    async def trend(
        self,
        what: str,
        cycle: Cycle,
        cycles: int,
        shown: int = 0,
        first: int = 0,
        *,
        counts: Callable[[], Mapping[str, int]] | None = None,
    ) -> list[Trend]:
        """Repeat a cycle of the same work and return the growth of each quantity, as `Slopes.trend` has it.

        `counts`: returns the numbers of objects, in place of the method of that name."""
        self._look_for_databases()
        if counts is not None:
            self._slopes = Slopes(self.trial, self.traced, counts)
        return await self._slopes.trend(what, cycle, cycles, shown, first)

    async def judge_trend(self, trends: Sequence[Trend], cycle: Cycle, first: int, *, in_figures: bool = True) -> None:
        """Judge that nothing grows; where something does, name the types of the new objects and the lines that hold
        more.

        `in_figures`: the readings are the ones that the trial's figures show."""
        self._slopes.show(trends, in_figures=in_figures)
        found: list[str] = []
        if (
            _grows(trends)
            and (self.garbage or gc.collect())
            and not _grows(collected := _without_noise(trends, await self._collected(cycle, first)))
        ):
            trend = next(trend for trend in trends if trend.decides and trend.steady_growth > 0)
            sentence = f"{trend}, and not with a collection after each cycle: it is garbage in reference cycles"
            self.trial.find("reference-cycle", sentence, *map(str, trends), *map(str, collected))
            trends = collected
        if _grows(trends) and self.trial.explains:
            found = [f"{_SITE_CYCLES} cycles: {line}" for line in await self._what_grows(cycle, first)]
        self.trial.judge(no_steady_growth(trends, found))
        for trend in trends:
            if trend.decides:
                metric, growth, unit = f"steady growth of {trend.what}", trend.steady_growth, f"{trend.unit}/cycle"
                anomaly = "memory-growth" if trend.unit == "bytes" else "object-growth"
                self.trial.measure(metric, growth, unit, LAB("<=", 0.0), anomaly=anomaly, explained=lambda: found)

    async def judge_flat(self, what: str, steps: Sequence[str], cycle: Cycle, cycles: int, warm_ups: int) -> None:
        """Warm up, repeat a cycle at least so often, and judge that neither memory nor the number of watched objects
        grows. `steps`: one cycle's work, in words. A cycle that raises `CutShort` ends this."""
        self.trial.note(f"{what.capitalize()}, after {warm_ups} cycles to warm up; in each: {', '.join(steps)}.")
        try:
            for number in range(warm_ups):
                await cycle(number)
            self.watch.forget()
            # Watched objects: the bytes show a leak of any other kind, without a look at everything alive.
            most = max(_LEAST_CYCLES, cycles)
            trends = await self.trend(what, cycle, most, most, warm_ups, counts=self.count_watched)
            done = max(sum(fit.cycles for fit in trend.fits) for trend in trends)
            await self.judge_trend(trends, cycle, warm_ups + done, in_figures=False)
        except CutShort:
            self.trial.leave_out(f"growth over {what}, for a client was not let in")
        else:
            self.trial.measure(f"cycles of {what}", done, "cycles")

    async def _collected(self, cycle: Cycle, first: int) -> list[Trend]:
        """What grows if the cyclic collector runs after each cycle."""

        async def collected(number: int) -> None:
            # Far from the numbers of the cycles before and after.
            await cycle(first + 100_000 + number)
            gc.collect()

        # Objects are counted after each cycle, else there would be no trend of them.
        what, cycles = "the same with a collection after each cycle", _COLLECTED_CYCLES
        return await self._slopes.trend(what, collected, cycles, shown=cycles)

    async def _what_grows(self, cycle: Cycle, first: int) -> list[str]:
        """Over some more cycles: the types with more objects, the lines of code that hold more, and the holders."""
        there_before = Before(self.modules)
        # Whatever Python keeps of the first count is none of the target's.
        type_counts()
        with growing() as grown:
            await self._emptied()
            before = tracemalloc.take_snapshot()
            # Between the two snapshots, each of which is many objects itself.
            types_before = type_counts()
            for number in range(first, first + _SITE_CYCLES):
                await cycle(number)
            await self._emptied()
            types_after = type_counts()
            # The first count itself.
            types_after[f"{Counter.__module__}.{Counter.__qualname__}"] -= 1
            types = top_types(types_before, types_after)
            after = tracemalloc.take_snapshot()
        lines = types + top_growth(before, after, leave_out=_OWN_FILES) + grown.lines(self._roots, _SITE_CYCLES)
        left = (line for kind in self.counts() for line in there_before.left(kind, self._roots, 1))
        return [*lines, *islice(left, _EXPLAINED)]

    async def at_rest(self) -> None:
        """Nothing is ready to run, and what a timer kept for a moment after a call is gone."""
        await self.trial.waiting.settle()
        await self._rest.reached()

    async def _emptied(self) -> None:
        """The same, and the interpreter's free lists and the lab's own are empty."""
        await self.at_rest()
        self.traced()
