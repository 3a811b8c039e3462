"""Schedules: enumerated without a gap, replayed exactly, shrunk to the least; and a loop that reports its errors."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import math
import os
import re
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("detangle")

from lab_utils.interleavings import (
    BadToken,
    Cancel,
    NotExplorable,
    Outcome,
    Schedule,
    Stage,
    Token,
    Workload,
    explore,
    exploring,
    in_words,
    run_schedule,
    simulation,
    suspensions_of,
)
from lab_utils.interleavings.observing import STEPS
from lab_utils.trial.faults import Gate

ROOT = Path(__file__).resolve().parents[3]


def steps_of(callers: Sequence[str], steps: int, seen: list[str]) -> Workload:
    """Each caller notes its name, then suspends, so often."""

    async def work(stage: Stage) -> None:
        seen.clear()
        await stage.together({name: walk(name) for name in callers})

    async def walk(name: str) -> None:
        for step in range(steps):
            seen.append(f"{name}{step}")
            await asyncio.sleep(0)

    return work


def lost_update(bystanders: int = 0) -> Workload:
    """Two callers read, suspend only if the other is not under way, and write."""

    async def work(stage: Stage) -> None:
        value = 0

        async def add(*, suspends: bool) -> None:
            nonlocal value
            read = value
            if suspends:
                await asyncio.sleep(0)
            value = read + 1

        async def idle() -> None:
            await asyncio.sleep(0)

        others = {f"bystander {number}": idle() for number in range(bystanders)}
        # In asyncio's own order the second has written before the first begins.
        await stage.together({"second": add(suspends=False), **others, "first": add(suspends=True)})
        if value != 2:
            stage.find("lost-update", f"two were added, and there is {value}")

    return work


# ------------------------------------------------------------------------------------------------------- enumeration


def test_the_empty_schedule_is_asyncios_own_order() -> None:
    seen: list[str] = []
    run_schedule(steps_of("ab", 3, seen))
    own = [*seen]

    async def main() -> None:
        seen.clear()

        async def walk(name: str) -> None:
            for step in range(3):
                seen.append(f"{name}{step}")
                await asyncio.sleep(0)

        await asyncio.wait([asyncio.ensure_future(walk(name)) for name in "ab"])

    asyncio.run(main())
    assert own == seen == ["a0", "b0", "a1", "b1", "a2", "b2"]


def all_kinds_of_steps(seen: list[Any]) -> Workload:
    """Steps of tasks, callbacks, timers and threads; of each kind some are cancelled before their turn."""

    async def work(stage: Stage) -> None:
        seen.clear()
        loop, last = asyncio.get_running_loop(), asyncio.Event()

        async def call() -> None:
            loop.call_soon(seen.append, "callback")
            loop.call_soon(seen.append, "cancelled").cancel()
            loop.call_later(2, last.set)
            loop.call_later(1, seen.append, "cancelled").cancel()
            await last.wait()

        async def wait() -> None:
            other = asyncio.create_task(asyncio.sleep(5), name="the other")
            await asyncio.wait({other}, timeout=1)
            seen.append(other.cancel())
            await loop.run_in_executor(None, loop.call_soon_threadsafe, seen.append, "thread")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await last.wait()
                    await asyncio.sleep(3)
            seen.append(loop.time())

        async def fail() -> None:
            await asyncio.sleep(0)
            raise KeyError("nobody asks")

        async def note(name: str) -> None:
            for turn in range(2):
                seen.append((name, turn))
                await asyncio.sleep(0)

        later: list[asyncio.Task[None]] = []
        unasked = asyncio.ensure_future(fail())
        answers = await stage.together({"call": call(), "wait": wait()}, Cancel("call", 1, after=4))
        seen.append((unasked.done(), [str(one) for one in answers.values()]))
        for name in ("first", "second"):
            later.append(asyncio.create_task(note(name)))
            loop.call_soon(seen.append, f"beside the {name}")
        await asyncio.wait(later)

    return work


@pytest.mark.parametrize("most_steps", [20_000, 9, 7])
@pytest.mark.parametrize("trace", [False, True])
@pytest.mark.parametrize("schedule", [(), ((0, 1),), ((1, 1), (3, 1)), ((2, 2),)])
def test_quick_steps_are_those_of_the_loop_itself(
    schedule: Schedule, trace: bool, most_steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lived() -> tuple[Outcome, list[Any], int]:
        seen: list[Any] = []
        before = STEPS.count
        outcome = run_schedule(all_kinds_of_steps(seen), schedule, trace=trace, most_steps=most_steps)
        return outcome, seen, STEPS.count - before

    quick = lived()
    monkeypatch.setattr(simulation, "quicken", lambda *_: None)
    monkeypatch.setattr(simulation, "QUICKENED", ())
    assert quick == lived()
    assert ("thread" in quick[1]) == (most_steps == 20_000)


def test_without_a_bound_every_order_of_the_steps_is_run() -> None:
    seen: list[str] = []
    orders: set[tuple[str, ...]] = set()
    inner = steps_of("ab", 3, seen)

    async def work(stage: Stage) -> None:
        await inner(stage)
        orders.add(tuple(seen))

    explored = explore(work, deviations=20)
    assert explored.exhausted
    # Two callers with three steps each can be interleaved in as many ways, and in no other.
    assert len(orders) == math.comb(6, 3)


@pytest.mark.parametrize(("callers", "deviations"), [("abc", 0), ("abc", 1), ("abc", 2), ("ab", 3), ("ab", 4)])
def test_every_schedule_of_the_bound_is_run_once_and_none_beyond(
    monkeypatch: pytest.MonkeyPatch, callers: str, deviations: int
) -> None:
    ran: list[Schedule] = []
    inner = steps_of(callers, 2, [])

    def whole(bound: int) -> set[Schedule]:
        """The same by depth first, from the decisions that each run reports."""
        found: set[Schedule] = set()
        todo: list[Schedule] = [()]
        while todo:
            schedule = todo.pop()
            found.add(schedule)
            decisions = run_schedule(inner, schedule).decisions
            after = schedule[-1][0] if schedule else -1
            if len(schedule) < bound:
                todo += [
                    (*schedule, (number, taken))
                    for number, (alternatives, _) in enumerate(decisions)
                    if number > after
                    for taken in range(1, alternatives)
                ]
        return found

    expected = whole(deviations)

    def run(workload: Workload, schedule: Schedule = (), *, trace: bool = False) -> Outcome:
        outcome = run_schedule(workload, schedule, trace=trace)
        ran.append(outcome.schedule)
        return outcome

    monkeypatch.setattr(exploring, "run_schedule", run)
    explored = explore(inner, deviations=deviations)
    assert (explored.bounded, explored.exhausted) == (len(expected), True)
    assert sorted(ran) == sorted(expected)


def test_what_prepares_and_what_judges_runs_in_asyncios_own_order() -> None:
    inner = steps_of("ab", 2, [])
    orders: set[tuple[str, ...]] = set()

    async def work(stage: Stage) -> None:
        around: list[str] = []

        async def walk(name: str) -> None:
            for _ in range(2):
                around.append(name)
                await asyncio.sleep(0)

        await asyncio.gather(walk("x"), walk("y"))
        await inner(stage)
        await asyncio.gather(walk("x"), walk("y"))
        orders.add(tuple(around))

    assert explore(work, deviations=2).bounded == explore(inner, deviations=2).bounded
    assert orders == {("x", "y") * 4}


def test_a_limit_is_told_as_one() -> None:
    assert explore(steps_of("abc", 3, []), deviations=3, random=5, is_over=lambda: True).schedules == 1
    explored = explore(steps_of("abc", 3, []), deviations=3, most=10)
    assert (explored.bounded, explored.exhausted) == (10, False)
    assert str(explored) == "10 of the schedules with up to three deviations, not all of them"
    assert in_words(0, 12, True) == "12 schedules in asyncio's own order"
    assert in_words(1, 1_234, True) == "every schedule with up to one deviation: 1,234 schedules"


def test_a_workload_that_is_not_deterministic_is_never_called_exhausted() -> None:
    runs = 0

    async def work(stage: Stage) -> None:
        nonlocal runs
        runs += 1
        # The first run has more steps, so that schedules are derived that no later run can follow.
        await steps_of("ab", 4 if runs == 1 else 1, [])(stage)

    assert not explore(work, deviations=1).exhausted


# ------------------------------------------------------------------------------------------------ finding and shrinking


def test_of_a_target_that_waits_for_the_lab_its_own_line_is_told_as_well() -> None:
    async def work(stage: Stage) -> None:
        gate = Gate()

        async def outer() -> None:
            await asyncio.sleep(0)
            await inner()

        async def inner() -> None:
            await gate("ada")

        async def opens() -> None:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            gate.open()

        await stage.together({"outer": outer(), "opens": opens()})

    told = [line.partition(": ")[2] for line in run_schedule(work, trace=True).interleaving if " outer: " in line]
    own = r"goes on at (\w+/)*test_interleavings.py:\d+ outer"
    assert re.fullmatch(own, told[1])
    assert re.fullmatch(
        r"goes on at lab_utils/trial/faults.py:\d+ __call__, within .*test_interleavings.py:\d+ inner; .*", told[2]
    )


def test_a_race_is_found_with_the_least_schedule_and_its_interleaving() -> None:
    assert not run_schedule(lost_update()).problems
    explored = explore(lost_update(), deviations=3)
    assert not explored.exhausted
    failing = explored.failing
    assert failing is not None
    assert failing.problem.anomaly == "lost-update"
    assert failing.schedule == ((0, 1),)
    begins = [line for line in failing.interleaving if "begins" in line]
    assert begins == ["   1* first: begins  (ahead of second)", "   2  second: begins; answers None"]
    assert any("test_interleavings.py:" in line and " add; answers" in line for line in failing.interleaving)


@pytest.mark.parametrize("kind", ["random", "priority"])
def test_seeded_schedules_find_it_too_and_are_shrunk(kind: str) -> None:
    seeded: Any = {kind: 200}
    explored = explore(lost_update(3), deviations=0, seed=7, **seeded)
    assert explored.failing is not None
    # The one deviation that counts: the first begins ahead of the second, the oldest of five.
    assert len(explored.failing.schedule) == 1
    assert explored.schedules > explored.bounded == 1


def test_seeded_schedules_are_the_same_for_the_same_seed_and_others_for_another() -> None:
    def orders(seed: int, kind: str) -> list[tuple[str, ...]]:
        found: list[tuple[str, ...]] = []
        seen: list[str] = []
        inner = steps_of("abcd", 3, seen)

        async def work(stage: Stage) -> None:
            await inner(stage)
            found.append(tuple(seen))

        seeded: Any = {kind: 20}
        explore(work, deviations=0, seed=seed, **seeded)
        return found

    for kind in ("random", "priority"):
        assert orders(1, kind) == orders(1, kind) != orders(2, kind)
        assert len(set(orders(1, kind))) > 5


def test_what_fails_in_asyncios_own_order_needs_no_deviation() -> None:
    async def work(stage: Stage) -> None:
        await steps_of("ab", 2, [])(stage)
        stage.find("always", "whatever the order")

    explored = explore(work, deviations=2, random=5)
    assert explored.failing is not None
    assert (explored.failing.schedule, explored.schedules) == ((), 1)


def test_the_collector_and_the_locks_are_given_back() -> None:
    own = (asyncio.Lock.acquire, asyncio.Lock.release, asyncio.Semaphore.acquire, asyncio.Semaphore.release)
    states: list[bool] = []

    async def work(stage: Stage) -> None:
        states.append(gc.isenabled())
        assert asyncio.Lock.acquire is not own[0] or len(states) == 1

    explore(work, deviations=0, random=2)
    assert states == [False] * 3
    assert gc.isenabled()
    assert own == (asyncio.Lock.acquire, asyncio.Lock.release, asyncio.Semaphore.acquire, asyncio.Semaphore.release)


# ---------------------------------------------------------------------------------------------------- failures


def found(body: Callable[[], object], *callers: str) -> Outcome:
    async def work(stage: Stage) -> None:
        await stage.together({name: body() for name in callers or ("caller",)})  # type: ignore[misc]

    return run_schedule(work)


def test_who_waits_for_ever_is_named_with_who_holds_the_lock() -> None:
    lock = asyncio.Lock()

    async def take_and_keep() -> None:
        await lock.acquire()
        await asyncio.sleep(0)

    async def work(stage: Stage) -> None:
        await stage.together({"keeper": take_and_keep(), "waiter": take_and_keep()})

    (problem,) = run_schedule(work).problems
    assert problem.anomaly == "never-ends"
    assert "waiter waits to acquire Lock `lock`, held by keeper" in problem.sentence
    assert "test_interleavings.py:" in problem.sentence


def test_time_is_virtual_and_polling_without_end_is_found() -> None:
    async def poll() -> None:
        while True:  # noqa: ASYNC110  # What is to be found.
            await asyncio.sleep(3_600)

    async def wait() -> None:
        await asyncio.sleep(3_600)

    assert found(wait).problems == ()
    (problem,) = found(poll).problems
    assert problem.anomaly == "never-ends"


def test_the_next_timer_is_the_first_that_is_not_cancelled() -> None:
    seen: list[float | None] = []

    async def workload(stage: Stage) -> None:
        seen.append(stage.until_next_timer())
        loop = asyncio.get_running_loop()
        later = [loop.call_later(seconds, int) for seconds in (3.0, 1.0, 2.0)]
        later[1].cancel()
        seen.append(stage.until_next_timer())
        await asyncio.sleep(2.0)
        seen.append(stage.until_next_timer())

    assert run_schedule(workload, ()).problems == ()
    assert seen == [None, 2.0, 1.0]


def test_an_error_that_nobody_handles_and_a_task_left_are_found() -> None:
    async def fail() -> None:
        raise KeyError("nobody asks")

    tasks: list[asyncio.Task[None]] = []

    async def spawn() -> None:
        tasks.append(asyncio.ensure_future(fail()))
        await asyncio.sleep(0)

    async def leave() -> None:
        tasks.extend(asyncio.ensure_future(asyncio.Event().wait()) for _ in range(40))  # type: ignore[arg-type]

    assert [problem.anomaly for problem in found(spawn).problems] == ["unhandled-error"]
    (left,) = found(leave).problems
    assert left.anomaly == "task-left"
    assert left.sentence.startswith("40 tasks left when all was closed: ")
    assert left.sentence.endswith(", and 37 more")


def test_what_a_caller_raises_is_its_answer_and_what_the_workload_raises_is_raised() -> None:
    errors: list[BaseException | None] = []

    async def fail() -> None:
        raise KeyError("mine")

    async def work(stage: Stage) -> None:
        answers = await stage.together({"a": fail()})
        errors.append(answers["a"].error)
        raise ValueError("the workload's own mistake")

    with pytest.raises(ValueError, match="own mistake"):
        run_schedule(work)
    assert isinstance(errors[0], KeyError)


def test_real_sockets_are_refused_and_said_to_be() -> None:
    async def listen() -> None:
        with socket.socket() as one:
            try:
                await asyncio.get_running_loop().sock_accept(one)
            except Exception as error:
                raise RuntimeError("wrapped, as a client library does") from error

    with pytest.raises(NotExplorable, match="sock_accept"):
        found(listen)


@pytest.mark.parametrize("is_swallowed", [False, True])
def test_a_server_that_the_simulated_network_does_not_reach_is_no_failure(is_swallowed: bool) -> None:
    async def connect() -> None:
        with contextlib.suppress(OSError if is_swallowed else ZeroDivisionError):
            await asyncio.open_connection("localhost", 5432)

    with pytest.raises(NotExplorable, match="not reached over the simulated network"):
        found(connect)


@pytest.mark.parametrize("is_swallowed", [False, True])
def test_a_result_of_a_real_thread_is_no_call_that_never_ends(is_swallowed: bool) -> None:
    async def wait() -> None:
        of_a_thread: concurrent.futures.Future[None] = concurrent.futures.Future()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(asyncio.wrap_future(of_a_thread)), 1.0 if is_swallowed else None)

    with pytest.raises(NotExplorable, match="real thread"):
        found(wait)


@pytest.mark.parametrize("is_swallowed", [False, True])
def test_a_job_in_a_thread_that_waits_for_the_loop_is_no_call_that_never_ends(is_swallowed: bool) -> None:
    def job(loop: asyncio.AbstractEventLoop) -> None:
        with contextlib.suppress(Exception if is_swallowed else ZeroDivisionError):
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result()

    async def wait() -> None:
        await asyncio.to_thread(job, asyncio.get_running_loop())

    with pytest.raises(NotExplorable, match="waits for the loop"):
        found(wait)


@pytest.mark.parametrize("is_late", [False, True])
def test_an_answer_of_a_thread_that_the_target_began_is_no_call_that_never_ends(is_late: bool) -> None:
    is_over = threading.Event()

    def answer(loop: asyncio.AbstractEventLoop, answered: asyncio.Future[None]) -> None:
        if is_late:
            is_over.wait()
        # As a driver does, for its loop may have been closed.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(answered.set_result, None)

    async def wait() -> None:
        loop = asyncio.get_running_loop()
        answered = loop.create_future()
        thread = threading.Thread(target=answer, args=(loop, answered))
        thread.start()
        if not is_late:
            thread.join()
        await answered

    with pytest.raises(NotExplorable, match="a real thread"):
        found(wait)
    is_over.set()


def test_a_job_in_a_thread_may_run_a_loop_of_its_own_and_send_to_the_first() -> None:
    heard: list[int] = []

    def job(loop: asyncio.AbstractEventLoop) -> int:
        assert threading.current_thread() is not threading.main_thread()
        loop.call_soon_threadsafe(heard.append, 1)
        # It has work left: so much that a short wait for it is in vain on any machine.
        while time.thread_time() < 0.12:
            pass
        return asyncio.run(asyncio.sleep(0, 2))

    async def work() -> None:
        assert await asyncio.to_thread(job, asyncio.get_running_loop()) == 2
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 / 0)

    assert not found(work).problems
    assert heard == [1]


# ------------------------------------------------------------------------------------------------------- cancellation


def cancelling(point: int, after: int, seen: list[str]) -> Workload:
    async def work(stage: Stage) -> None:
        seen.clear()

        async def walk(name: str, steps: int) -> None:
            try:
                for step in range(steps):
                    seen.append(f"{name}{step}")
                    await asyncio.sleep(0)
            except asyncio.CancelledError:
                seen.append(f"{name} cancelled")
                raise

        told = lambda: seen.append("told")  # noqa: E731
        answers = await stage.together({"a": walk("a", 3), "b": walk("b", 4)}, Cancel("a", point, after, told))
        if isinstance(answers["a"].error, asyncio.CancelledError):
            stage.find("cancelled", "as asked")

    return work


def test_suspensions_are_counted_and_each_can_be_cancelled() -> None:
    seen: list[str] = []
    assert suspensions_of(cancelling(0, 0, seen)) == 3
    for point in (1, 2, 3):
        outcome = run_schedule(cancelling(point, 0, seen))
        assert outcome.was_cancelled
        assert [problem.anomaly for problem in outcome.problems] == ["cancelled"]
        assert [line for line in seen if line.startswith("a")] == [
            *(f"a{step}" for step in range(point)),
            "a cancelled",
        ]
        assert seen.index("told") == seen.index(f"a{point - 1}") + 1
    assert not run_schedule(cancelling(4, 0, seen)).was_cancelled


def test_a_cancellation_some_steps_later_comes_so_many_steps_later() -> None:
    seen: list[str] = []
    run_schedule(cancelling(1, 1, seen))
    assert seen[:3] == ["a0", "b0", "told"]
    run_schedule(cancelling(1, 2, seen))
    assert seen[:4] == ["a0", "b0", "a1", "told"]


# -------------------------------------------------------------------------------------------------------------- tokens

PYTHON = f"py{sys.version_info.major}.{sys.version_info.minor}"
TOKEN = Token("registration/create+end@0", "agent_registry", "left-behind", 20_261, ((7, 1), (12, 2)))


@pytest.mark.parametrize("schedule", [(), ((0, 1),), ((7, 1), (12, 2))])
def test_a_token_is_read_as_it_was_written(schedule: Schedule) -> None:
    token = Token("registration/end.cancelled-3-1+create@1", "my.module:Target", "wrong-count", 7, schedule)
    text = str(token)
    assert Token.parse(f" {text}\n") == token
    # Nothing that a shell would take for its own.
    assert not set(text) & set(" \t$`'\"\\|&;<>()*?[]{}!#^")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda text: text.replace("rl2~", "rl1~"), "of version rl1, this lab reads rl2; run the check again"),
        (lambda text: text.replace("rl2~", ""), "is not a token: a token begins with rl2~ or rc1~"),
        (lambda text: text[:-1], "checksum"),
        (lambda text: text.replace("20261", "20262"), "checksum"),
        (lambda text: text.replace("~agent_registry", ""), "has 7 parts, not 8"),
        (lambda text: "", "is not a token"),
    ],
)
def test_a_token_that_cannot_be_run_says_why(change: Callable[[str], str], why: str) -> None:
    with pytest.raises(BadToken, match=why):
        Token.parse(change(str(TOKEN)))


@pytest.mark.parametrize(
    ("rest", "why"),
    [
        ("py2.7~w~t~a~1~fifo", r"made under py2\.7, this is py3"),
        *((f"{PYTHON}~w~t~a~1~{choices}", "no seed or schedule") for choices in ("x", "1-", "1-2-3", "")),
    ],
)
def test_a_token_of_another_python_or_with_a_broken_schedule_says_so(rest: str, why: str) -> None:
    text = f"rl2~{rest}"
    with pytest.raises(BadToken, match=why):
        Token.parse(f"{text}~{zlib.crc32(text.encode()):08x}")


@pytest.mark.parametrize("kind", ["futures", "tasks"])
def test_sets_of_what_the_loop_makes_are_walked_in_an_order_of_their_own(kind: str) -> None:
    """Not in that of their addresses, which no replay could repeat."""

    def walked(junk: int) -> list[int]:
        order: list[int] = []
        kept: list[object] = []

        async def work(stage: Stage) -> None:
            loop = asyncio.get_running_loop()
            made: list[asyncio.Future[None]] = []
            for number in range(40):
                made.append(loop.create_future() if kind == "futures" else loop.create_task(asyncio.sleep(0)))
                # So that the next one is somewhere else than it would have been.
                kept.extend(bytearray(size * 37) for size in range(number * junk % 11))
            order.extend(made.index(one) for one in set(made))
            await asyncio.sleep(0)

        run_schedule(work)
        return order

    assert walked(0) == walked(1) == walked(3)


REPLAYED = """
import asyncio
from lab_utils.interleavings import run_schedule

async def work(stage):
    order = []
    async def wake(event):
        await event.wait()
        order.append(asyncio.current_task().get_name())
    async def caller():
        event = asyncio.Event()
        # Sets of tasks and of futures, as TaskGroup and many registries keep them.
        waiting = {asyncio.get_running_loop().create_future() for _ in range(40)}
        async def wait(future, name):
            await future
            order.append(name)
        named = {asyncio.ensure_future(wait(future, f"f{n}")) for n, future in enumerate(sorted(waiting, key=hash))}
        tasks = {asyncio.create_task(wake(event), name=f"t{n}") for n in range(40)}
        await asyncio.sleep(0)
        for future in waiting:
            future.set_result(None)
        for task in tasks:
            if not order or hash(task) % 3:
                task.cancel()
        event.set()
        await asyncio.wait(tasks | named)
    await stage.together({"a": caller(), "b": caller()})
    stage.find("order", " ".join(order))

out = run_schedule(work, ((0, 1), (3, 2), (9, 1)), trace=True)
print(*out.interleaving, *out.problems, sep="\\n")
"""


def test_a_schedule_runs_the_same_in_another_process_and_under_another_hash_seed() -> None:
    said = {
        subprocess.run(
            [sys.executable, "-c", f"{'x = [object()] * 1000; ' * junk}{REPLAYED}"],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed, junk in (("1", 0), ("2", 1), ("3", 0))
    }
    (only,) = said
    assert only.count("ahead of") == 3
    assert " t" in only
