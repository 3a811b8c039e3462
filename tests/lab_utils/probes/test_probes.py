"""The probes find planted leaks, count exactly, and do not blame a bystander."""

from __future__ import annotations

import asyncio
import gc
import mmap
import os
import random
import socket
import sqlite3
import sys
import threading
import tracemalloc
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, closing
from itertools import accumulate
from pathlib import Path

import pytest

from lab_utils.probes.live import (
    Watch,
    collector_off,
    count_now,
    drop_dead_cursors,
    grown,
    handles_now,
    open_files,
    threads_now,
)
from lab_utils.probes.memory import (
    Series,
    Slope,
    anonymous_now,
    memory_now,
    slope_of,
    top_growth,
    top_types,
    traced,
    traced_bytes,
)

HERE = (__name__,)


class Thing:
    """Something to be counted."""

    def __init__(self, held: object = None) -> None:
        self.held = held


def noise(seed: int, count: int = 40, by: float = 100.0) -> list[float]:
    rng = random.Random(seed)
    return [rng.gauss(0.0, by) for _ in range(count)]


# Slopes.


def test_an_exact_drift_is_found_exactly_and_so_is_none() -> None:
    none = slope_of([7.0] * 30, seed=1)
    assert (none.per_step, none.low, none.high, none.includes_zero) == (0.0, 0.0, 0.0, True)
    slope = slope_of([3.0 * step for step in range(80)], seed=1)
    assert (slope.per_step, slope.low, slope.high) == (3.0, 3.0, 3.0)
    assert str(slope) == "grows by 3 ± 0 a cycle (95%)"
    assert str(slope_of([-3.0 * step for step in range(80)], seed=1)) == "shrinks by 3 ± 0 a cycle (95%)"
    assert str(Slope(1.0, -2.0, 5.0)) == "flat within ±5 a cycle (95%)"
    assert str(Slope(3.0, 1.0, 4.0)) == "grows by 3 ± 2 a cycle (95%)"


@pytest.mark.parametrize("length", [6, 40])
def test_the_interval_covers_the_true_slope_about_as_often_as_it_says(length: int) -> None:
    covered = 0
    for seed in range(40):
        slope = slope_of([value + 20.0 * step for step, value in enumerate(noise(seed, length))], seed, resamples=150)
        covered += slope.low <= 20.0 <= slope.high
    assert covered >= 36


def test_a_drift_in_noise_is_found() -> None:
    for seed in range(5):
        assert slope_of([value + 30.0 * step for step, value in enumerate(noise(seed))], seed).low > 0


@pytest.mark.parametrize("length", [20, 60, 61, 150])
@pytest.mark.parametrize("at", [0.1, 0.35, 0.65, 0.9])
def test_a_single_step_is_no_drift(length: int, at: float) -> None:
    values = [0.0 if step < at * length else 5_000.0 for step in range(length)]
    assert slope_of(values, seed=1).per_step == 0.0


def test_outliers_do_not_move_the_slope() -> None:
    values = [0.0] * 50
    for place in range(0, 50, 9):
        values[place] = 1e9
    assert slope_of(values, seed=1).per_step == 0.0


def test_a_walk_that_wanders_is_not_taken_for_more_than_it_is() -> None:
    walks = [slope_of(list(accumulate(noise(seed, 60, 1.0))), seed) for seed in range(5)]
    assert all(abs(walk.per_step) < 1.0 for walk in walks)


def test_too_few_readings_give_no_slope() -> None:
    with pytest.raises(ValueError, match="3 values"):
        slope_of([1.0, 2.0, 3.0], seed=1)


# Memory.


def test_traced_bytes_show_what_is_held_and_what_is_freed() -> None:
    with traced():
        before = traced_bytes()
        held = bytearray(100_000)
        assert traced_bytes() - before >= 100_000
        del held
        assert abs(traced_bytes() - before) < 5_000


def test_names_in_the_interpreter_s_cache_of_attributes_are_not_counted() -> None:
    with traced():
        before = traced_bytes()
        names = [f"no attribute {number}" for number in range(2_000)]
        assert not any(hasattr(int, name) for name in names)
        del names
        assert traced_bytes() - before < 5_000


def test_taking_readings_costs_no_memory() -> None:
    series = Series(2_000)
    with traced():
        before = traced_bytes()
        for number in range(2_000):
            series.take(float(number), 0.5)
        assert traced_bytes() - before < 500
    assert len(series) == 2_000
    assert series.values[-1] == 1_999.0
    assert series.times[0] == 0.5
    with pytest.raises(IndexError):
        series.take(1.0, 1.0)


def test_emptying_the_free_lists_collects_no_cycle() -> None:
    with collector_off(), traced():
        watch = Watch()
        cycle = Thing()
        cycle.held = cycle
        watch.see("cycle", cycle)
        del cycle
        traced_bytes()
        assert watch.count_alive() == 1


def test_the_lines_that_hold_more_are_named_but_for_those_of_files_that_are_left_out() -> None:
    with traced():
        before = tracemalloc.take_snapshot()
        held = [bytes(10_000) for _ in range(5)]
        after = tracemalloc.take_snapshot()
    lines = top_growth(before, after)
    assert len(held) == 5
    assert "test_probes.py" in lines[0]
    assert not any(line.startswith("/") for line in lines)
    assert not any("test_probes.py" in line for line in top_growth(before, after, leave_out=["tests/lab_utils/"]))


def test_the_types_of_which_there_are_more_are_named_most_first() -> None:
    before, after = {"a": 5, "b": 1, "gone": 4}, {"a": 6, "b": 9, "new": 1_200, "c": 1}
    assert top_types(before, after) == ["+1,200 new, 1,200 in all", "+8 b, 9 in all", "+1 a, 6 in all"]
    assert top_types(after, after) == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere it is USS")
def test_anonymous_memory_is_what_the_process_has_taken_and_no_file(tmp_path: Path) -> None:
    size = 16 << 20
    file = tmp_path / "mapped"
    file.write_bytes(bytes(size))
    before = anonymous_now()
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert sum(mapped[:: mmap.PAGESIZE]) == 0
        assert memory_now().rss - anonymous_now() >= size
        assert abs(anonymous_now() - before) < size // 2
    # Nothing that Python traces: it is there all the same.
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as taken:
        taken[:] = b"x" * size
        assert anonymous_now() - before > size // 2
        assert abs(memory_now().anonymous - anonymous_now()) < size // 2


# Live counts.


async def sleeper() -> None:
    await asyncio.Event().wait()


async def left_after(leak: Callable[[ExitStack], object]) -> dict[str, int]:
    """The kinds with more objects when `leak` has run beside innocent work of the same kind; then it is undone."""
    with ExitStack() as undo, collector_off():
        bystander, timer = asyncio.create_task(sleeper()), asyncio.get_running_loop().call_later(60, print)
        kept = Thing()
        await asyncio.sleep(0)
        before = count_now(HERE)
        Thing(Thing())
        innocent = asyncio.create_task(asyncio.sleep(0))
        asyncio.get_running_loop().call_later(60, print).cancel()
        await innocent
        del innocent
        leak(undo)
        await asyncio.sleep(0)
        more = grown(before, count_now(HERE))
    assert kept.held is None
    timer.cancel()
    bystander.cancel()
    await asyncio.gather(bystander, return_exceptions=True)
    return more


class Again:
    """Asks to be called at every turn of the loop, until it is over."""

    def __init__(self) -> None:
        self.over = False
        self()

    def __call__(self) -> None:
        if not self.over:
            asyncio.get_running_loop().call_soon(self)


def a_reader(undo: ExitStack) -> None:
    """A pipe that the loop is to read."""
    reading, writing = os.pipe()
    asyncio.get_running_loop().add_reader(reading, print)
    undo.callback(os.close, writing)
    undo.callback(os.close, reading)
    undo.callback(asyncio.get_running_loop().remove_reader, reading)


def a_thread(undo: ExitStack) -> None:
    released = threading.Event()
    thread = threading.Thread(target=released.wait)
    thread.start()
    undo.callback(thread.join)
    undo.callback(released.set)


def a_cycle(_: ExitStack) -> None:
    one = Thing()
    one.held = Thing(one)


@pytest.mark.parametrize(
    ("leak", "expected"),
    [
        (lambda undo: None, {}),
        (lambda undo: undo.callback(asyncio.create_task(sleeper()).cancel), {"tasks": 1}),
        (lambda undo: undo.callback(asyncio.get_running_loop().call_later(60, print).cancel), {"timers": 1}),
        (a_thread, {"threads": 1}),
        (lambda undo: undo.callback(os.close, os.open(os.devnull, os.O_RDONLY)), {"descriptors": 1}),
        (lambda undo: undo.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)), {"sockets": 1}),
        (lambda undo: undo.callback(setattr, Again(), "over", True), {"handles": 1, f"{__name__}.Again": 1}),
        (a_reader, {"handles": 1, "descriptors": 2}),
        (lambda undo: undo.callback(id, Thing(Thing())), {f"{__name__}.Thing": 2}),
        (a_cycle, {f"{__name__}.Thing": 2}),
    ],
    ids=["nothing", "task", "timer", "thread", "descriptor", "socket", "handle", "reader", "objects", "cycle"],
)
async def test_exactly_what_was_leaked_is_counted(
    leak: Callable[[ExitStack], object], expected: dict[str, int]
) -> None:
    assert await left_after(leak) == expected


async def test_a_cancelled_timer_is_no_timer_and_is_shown() -> None:
    before = count_now(HERE)
    asyncio.get_running_loop().call_later(60, print).cancel()
    after = count_now(HERE)

    assert (after.timers - before.timers, after.cancelled_timers - before.cancelled_timers) == (0, 1)


async def test_what_is_cancelled_and_the_steps_of_tasks_are_no_handles() -> None:
    loop = asyncio.get_running_loop()
    before = len(handles_now(loop))
    task, future = asyncio.create_task(sleeper()), loop.create_future()
    waiter = asyncio.ensure_future(asyncio.wait_for(future, None))
    loop.call_soon(print).cancel()
    first = len(handles_now(loop)) - before
    await asyncio.sleep(0)
    future.set_result(None)
    second = len(handles_now(loop)) - before
    loop.call_soon(int)
    third = len(handles_now(loop)) - before
    task.cancel()
    await waiter

    assert (first, second, third) == (0, 0, 1)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere descriptors are not counted")
def test_looking_at_files_interns_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    interned: list[str] = []

    def intern(text: str) -> str:
        interned.append(text)
        return text

    monkeypatch.setattr(sys, "intern", intern)
    descriptor = os.open(os.devnull, os.O_RDONLY)
    try:
        assert open_files()[descriptor] == os.devnull
        assert interned == []
    finally:
        os.close(descriptor)


def test_the_collector_is_as_it_was_afterwards() -> None:
    assert gc.isenabled()
    with collector_off():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_a_watch_keeps_nothing_and_counts_each_once() -> None:
    watch, held, gone = Watch(), Thing(), Thing()
    assert all([watch.see("held", held), watch.see("held", held), watch.see("gone", gone)])
    assert not watch.see("a number", 7)
    del gone
    assert (watch.seen, watch.count_alive()) == (2, 1)
    watch.drop_freed()
    assert [label for label, _ in watch.alive()] == ["held"]
    assert watch.seen == 2
    del held
    watch.drop_freed()
    assert watch.alive() == []


def test_the_threads_of_one_pool_count_as_one_while_they_have_nothing_to_do() -> None:
    before = threads_now()
    with ThreadPoolExecutor(3) as one, ThreadPoolExecutor(2) as other:
        assert threads_now() == before
        at_work, go_on = threading.Barrier(4), threading.Event()
        calls = [one.submit(lambda: (at_work.wait(), go_on.wait())) for _ in range(3)]
        at_work.wait()
        at_once = threads_now()
        go_on.set()
        wait(calls)
        assert at_once == before + 3
        assert threads_now() == before + 1
        other.submit(int).result()
        assert threads_now() == before + 2
    assert threads_now() == before


def test_a_list_of_a_target_that_a_connection_holds_is_left_alone() -> None:
    class Kept(sqlite3.Connection):
        __slots__ = ("seen",)
        seen: list[weakref.ref[Thing]]

    with closing(Kept(":memory:")) as connection:
        connection.seen = [weakref.ref(Thing()) for _ in range(3)]
        assert any(one is connection.seen for one in gc.get_referents(connection))
        drop_dead_cursors()
        assert len(connection.seen) == 3


def test_a_connection_forgets_the_cursors_that_are_gone_and_keeps_the_others() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        kept = connection.execute("select 1")
        for _ in range(50):
            connection.execute("select 1").fetchall()
        (cursors,) = [one for one in gc.get_referents(connection) if type(one) is list and one]
        assert len(cursors) == 51
        drop_dead_cursors()
        assert [one() for one in cursors] == [kept]
