"""A cache that fills once is no leak, and findings that the lab records are not counted against a target."""

from __future__ import annotations

import asyncio
import gc
import importlib
import tracemalloc
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest

from lab_utils.checks.memory.leak_hunt import MOST_BYTES, LeakHunt
from lab_utils.probes.memory import traced
from lab_utils.runner import run_check
from lab_utils.target import Command, EndReport, Handle, Target
from lab_utils.targets.reference import ReferenceTarget
from lab_utils.trial import Trial
from lab_utils.values.verdict import Outcome

FEW: dict[str, int | float | str | bool] = {"cycles": 4, "long_cycles": 12, "operations_per_cycle": 2}


class ImportsOnFirstUse(ReferenceTarget):
    """A library is imported by the first run, and found in the table of modules by all others."""

    async def run(self, handle: Handle, command: Command) -> Any:
        importlib.import_module("xmlrpc.client")
        return await super().run(handle, command)


class CachingTheLast(ReferenceTarget):
    """A kilobyte is kept for each of the last four users."""

    def __init__(self) -> None:
        super().__init__()
        self.last: OrderedDict[str, str] = OrderedDict()

    async def create(self, user: str, *arguments: Any, **options: Any) -> Handle:
        self.last.pop(user, None)
        self.last[user] = user.ljust(1_000)
        if len(self.last) > 4:
            self.last.popitem(last=False)
        return await super().create(user, *arguments, **options)


class TableReplacedOnce(ReferenceTarget):
    """A table is replaced by one of 2 MB when the twentieth user leaves: the sixth cycle after the warm-up."""

    def __init__(self) -> None:
        super().__init__()
        self.ends = 0
        self.kept = [bytes(1_000)]

    async def end(self, user: str) -> EndReport:
        self.ends += 1
        self.grow()
        return await super().end(user)

    def grow(self) -> None:
        if self.ends == 20:
            self.kept[0] = bytes(2_000_000)


class KeepsInBursts(TableReplacedOnce):
    """Every tenth user leaves 300 kB: a burst in every fifth cycle."""

    def grow(self) -> None:
        if self.ends % 10 == 0:
            self.kept.append(bytes(300_000))


def test_a_leak_in_bursts_is_found() -> None:
    result = run_check("long_running_session_resource_management", target=KeepsInBursts, parameters=FEW)
    assert "memory-growth" in {finding.anomaly for finding in result.verdict.findings}


class SetsAside(ReferenceTarget):
    """Everything so far is set aside from collections after the first run, as by a server that has warmed up."""

    warm = False

    async def run(self, handle: Handle, command: Command) -> Any:
        answer = await super().run(handle, command)
        if not self.warm:
            self.warm = True
            gc.freeze()
        return answer


@pytest.mark.parametrize("make", [ImportsOnFirstUse, CachingTheLast, TableReplacedOnce, SetsAside])
def test_what_is_kept_once_is_no_leak(make: Callable[[], Target]) -> None:
    result = run_check("long_running_session_resource_management", target=make, parameters=FEW)
    assert result.verdict.outcome is Outcome.PASS, result.verdict.reason


class StopsTracing(ReferenceTarget):
    """Keeps each user, and ends what would show it."""

    end_tracing = staticmethod(tracemalloc.stop)
    kept: tuple[str, ...] = ()

    async def create(self, user: str, *arguments: Any, **options: Any) -> Handle:
        self.kept = (*self.kept, user.ljust(5_000))
        self.end_tracing()
        return await super().create(user, *arguments, **options)


class ClearsTraces(StopsTracing):
    end_tracing = staticmethod(tracemalloc.clear_traces)


@pytest.mark.parametrize("make", [StopsTracing, ClearsTraces])
def test_memory_that_cannot_be_measured_any_more_is_unknown(make: Callable[[], Target]) -> None:
    result = run_check("long_running_session_resource_management", target=make, parameters=FEW)
    assert result.verdict.outcome is Outcome.UNKNOWN
    assert "the target called tracemalloc.stop() or clear_traces()" in result.verdict.reason


async def test_a_round_that_grew_beyond_the_limit_is_repeated_and_the_smaller_growth_counts() -> None:
    hunt = LeakHunt(Trial(ReferenceTarget, {}, 7), ReferenceTarget())
    kept: list[bytes] = []

    async def leave_once() -> None:
        kept.append(bytes(2_000_000 if not kept else 0))

    async def leave_each_time() -> None:
        kept.append(bytes(2_000_000))

    with traced():
        for leave, is_leak in ((leave_once, False), (leave_each_time, True)):
            before = hunt.traced()
            await leave()
            (grown,) = await hunt.grown_again([hunt.traced() - before], leave)
            assert (grown > MOST_BYTES) is is_leak


async def test_the_labs_own_findings_do_not_grow_with_the_cycles() -> None:
    trial = Trial(ReferenceTarget, {}, 7)
    hunt = LeakHunt(trial, ReferenceTarget())
    for number in range(3):
        hunt.require(False, "wrong-count", f"{number} of 32 closed")
        hunt.require(False, "wrong-count", "a reset closed none")
    found = [finding.sentence for verdict in trial.verdicts for finding in verdict.findings]
    assert found == ["0 of 32 closed", "a reset closed none"]


async def test_objects_that_cannot_be_watched_are_left_out_and_not_unknown() -> None:
    trial = Trial(ReferenceTarget, {}, 7)
    hunt = LeakHunt(trial, ReferenceTarget())
    hunt.watch.see("a tuple", ("of a framework",))
    hunt.judge_freed("after it")
    assert not trial.verdicts
    assert "weak reference" in trial.left_out[0]


async def test_a_timer_that_is_soon_over_was_not_left() -> None:
    trial = Trial(ReferenceTarget, {}, 7)
    async with LeakHunt.opened(trial) as hunt:
        hunt.baseline()
        await hunt.see(await hunt.target.create("ada", "helper"))
        await hunt.leave("ada")
        asyncio.get_running_loop().call_later(0.05, asyncio.Event().set)
        await hunt.judge_back(1, "when a write was put off")
    assert "leaked-timer" not in {finding.anomaly for verdict in trial.verdicts for finding in verdict.findings}
