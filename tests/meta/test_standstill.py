"""A check that waits for what never ends costs its own verdict, and neither the others nor the notebook's time."""

from __future__ import annotations

import asyncio
import gc
import linecache
import logging
import re
import subprocess
import sys
import threading
import time
import tracemalloc
import warnings
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from queue import SimpleQueue
from typing import Any

import pytest

from lab_utils.checks.isolation.logged import recorded_logs
from lab_utils.checks.memory.leak_hunt import Caller, LeakHunt
from lab_utils.checks.tenants.counted_cost import judge_cost_of_ending
from lab_utils.probes.live import collector_off
from lab_utils.probes.memory import traced
from lab_utils.runner import runner
from lab_utils.runner.leaving import Switches
from lab_utils.runner.stillness import Looks
from lab_utils.target import Command, EndReport, Handle, Recipe
from lab_utils.targets.reference import ReferenceTarget
from lab_utils.trial import Check, Stuck, Trial
from lab_utils.values.result import CheckResult
from lab_utils.values.verdict import Outcome

Run = Callable[[type[ReferenceTarget], Callable[[Trial], Awaitable[None]]], CheckResult]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a body as if it were a check, on a target of this kind, with next to no patience."""

    def run(kind: type[ReferenceTarget], body: Callable[[Trial], Awaitable[None]]) -> CheckResult:
        check = Check(
            "made_up", "user_isolation", "claim", "data", "looks like", body, ("SharedDispatcher",), frozenset()
        )
        monkeypatch.setattr(runner, "CHECKS", {"made_up": check})
        monkeypatch.setattr(runner, "target_factory", lambda _: kind)
        return runner.run_check("made_up", target="made_up", stuck_after=0.01, still_after=0.01)

    return run


def test_a_bare_call_that_never_ends_is_given_up_and_its_target_stopped(run: Run) -> None:
    stopped: list[str] = []

    class RunNeverEnds(ReferenceTarget):
        async def run(self, handle: Handle, command: Command) -> Any:
            await asyncio.Event().wait()

        async def stop(self) -> None:
            stopped.append(self.name)

    async def body(trial: Trial) -> None:
        target = await trial.target([Recipe("helper")])
        client = trial.client(target, "c", "ada")
        await client.run(await client.create("helper"), Command("get"))
        raise AssertionError("was given up")

    result = run(RunNeverEnds, body)
    assert result.outcome is Outcome.FAIL
    (finding,) = result.verdict.findings
    assert finding.anomaly == "never-ends"
    assert finding.sentence.startswith("the check waits for what does not end: nothing moved for 0.02 s;")
    assert "create ada/helper" in finding.witness[0]
    last = r"> RunNeverEnds.run, test_standstill.py:\d+ > Event.wait, locks.py:\d+$"
    assert [line for line in finding.witness[1:] if re.search(last, line)]
    assert stopped == ["reference"]
    assert result.traceback == ""


def test_concurrent_calls_that_never_end_are_told_with_where_they_wait(run: Run) -> None:
    class RunNeverEnds(ReferenceTarget):
        async def run(self, handle: Handle, command: Command) -> Any:
            if handle.user == "ada":
                await asyncio.Event().wait()

    async def body(trial: Trial) -> None:
        target = await trial.target([Recipe("helper")])

        async def use(user: str) -> None:
            client = trial.client(target, "c", user)
            await client.run(await client.create("helper"), Command("get"))

        await trial.together(map(use, ("ada", "grace")))
        raise AssertionError("was given up")

    (finding,) = run(RunNeverEnds, body).verdict.findings
    assert finding.anomaly == "never-ends"
    assert finding.sentence.startswith("1 of 2 concurrent operations did not end: nothing moved for 0.01 s;")
    (place,) = (line for line in finding.witness if "waits in" in line)
    assert re.search(r"> Client.call, .* > RunNeverEnds.run, test_standstill.py:\d+ > Event.wait, locks", place)


def test_a_target_that_holds_up_the_loop_costs_its_own_check_alone(run: Run) -> None:
    released, held = threading.Event(), threading.Event()
    threads: list[threading.Thread] = []

    class Blocks(ReferenceTarget):
        async def end(self, user: str) -> EndReport:
            threads.append(threading.current_thread())
            released.wait()
            held.set()
            return await super().end(user)

    async def body(trial: Trial) -> None:
        target = await trial.target()
        await trial.client(target, "c", "ada").create("helper")
        await target.end("ada")

    try:
        result = run(Blocks, body)
        assert not held.is_set()
    finally:
        released.set()
    assert result.outcome is Outcome.FAIL
    (finding,) = result.verdict.findings
    assert finding.anomaly == "never-ends"
    assert "the event loop does not turn: its thread is left as it is" in finding.sentence
    assert "create ada/helper" in finding.witness[0]
    (thread,) = threads
    assert thread.daemon
    (line,) = (line for line in finding.witness if line.startswith("thread 'check made_up' is in "))
    assert "Blocks.end, test_standstill.py:" in line
    # What happens in it later changes nothing of what was found.
    thread.join()
    assert len(result.verdict.findings) == 1


def test_after_a_check_was_given_up_a_slow_stop_has_its_time(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: list[str] = []
    enough = threading.Event()
    look = Looks.look

    class StopsSlowly(ReferenceTarget):
        async def run(self, handle: Handle, command: Command) -> Any:
            await asyncio.Event().wait()

        async def stop(self) -> None:
            stopped.append("begun")
            await asyncio.get_running_loop().run_in_executor(None, enough.wait)
            stopped.append("done")

    async def body(trial: Trial) -> None:
        # How long the stop takes is counted in looks: this trial's own patience is no limit here.
        monkeypatch.setattr(trial, "ends", patient)
        target = await trial.target([Recipe("helper")])
        await target.run(await target.create("ada", "helper"), Command("get"))

    async def patient(work: Awaitable[Any], what: str) -> Any:
        return await work

    def counted(self: Looks) -> None:
        look(self)
        # More than show that a loop does not turn, fewer than show that all stands still.
        if stopped and self.alike == 8:
            enough.set()

    monkeypatch.setattr(Looks, "look", counted)
    (finding,) = run(StopsSlowly, body).verdict.findings
    assert stopped == ["begun", "done"]
    assert "the event loop" not in finding.sentence


def test_a_check_that_ends_while_it_is_being_given_up_keeps_its_verdict(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = threading.Event()
    give_up = Trial.give_up

    def after_the_end(self: Trial, why: Any) -> None:
        ends.set()
        for thread in threading.enumerate():
            if thread.name == "check made_up":
                thread.join()
        give_up(self, why)

    async def body(trial: Trial) -> None:
        await asyncio.get_running_loop().run_in_executor(None, ends.wait)
        trial.require(True, "anything", "holds")

    monkeypatch.setattr(Trial, "give_up", after_the_end)
    assert run(ReferenceTarget, body).outcome is Outcome.PASS


def test_a_loop_that_is_held_up_has_several_looks_in_which_to_turn_before_it_is_left(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    after_giving_up: list[int] = []
    look, give_up = Looks.look, Trial.give_up

    def counted(self: Looks) -> None:
        look(self)
        if after_giving_up:
            after_giving_up.append(self.alike)

    def noted(self: Trial, why: Stuck) -> None:
        after_giving_up.append(0)
        give_up(self, why)

    class Blocks(ReferenceTarget):
        async def end(self, user: str) -> EndReport:
            released.wait()
            return await super().end(user)

    async def body(trial: Trial) -> None:
        await (await trial.target()).end("ada")

    monkeypatch.setattr(Looks, "look", counted)
    monkeypatch.setattr(Trial, "give_up", noted)
    try:
        assert run(Blocks, body).outcome is Outcome.FAIL
    finally:
        released.set()
    assert after_giving_up[-4:] == [0, 1, 2, 3]


def test_what_is_given_up_twice_is_found_once(run: Run) -> None:
    async def body(trial: Trial) -> None:
        trial.give_up(Stuck("the first"))
        trial.give_up(Stuck("the second"))
        await asyncio.Event().wait()

    (finding,) = run(ReferenceTarget, body).verdict.findings
    assert finding.anomaly == "never-ends"
    assert finding.sentence.startswith("the first;")


def test_what_a_check_of_memory_has_switched_is_switched_back_when_its_thread_is_left(run: Run) -> None:
    released = threading.Event()

    class Blocks(ReferenceTarget):
        async def end(self, user: str) -> EndReport:
            released.wait()
            return await super().end(user)

    async def body(trial: Trial) -> None:
        async with LeakHunt.opened(trial, [Recipe("helper")]) as hunt:
            await hunt.leave("ada")

    try:
        assert run(Blocks, body).outcome is Outcome.FAIL
        assert (gc.isenabled(), tracemalloc.is_tracing()) == (True, False)
    finally:
        released.set()
        _join_checks()


def test_what_was_switched_before_stays_so() -> None:
    with traced(), collector_off():
        Switches().turn_back()
        assert (gc.isenabled(), tracemalloc.is_tracing()) == (False, True)


def test_what_a_check_of_logs_listens_to_is_let_go_of_when_its_thread_is_left(run: Run) -> None:
    released = threading.Event()
    root = logging.getLogger()
    before = (root.level, list(root.handlers), warnings.showwarning, ThreadPoolExecutor.submit)
    levels = [handler.level for handler in root.handlers]

    async def body(trial: Trial) -> None:
        with recorded_logs():
            assert root.level == 1
            released.wait()

    try:
        assert run(ReferenceTarget, body).verdict.findings[0].anomaly == "never-ends"
        assert (root.level, list(root.handlers), warnings.showwarning, ThreadPoolExecutor.submit) == before
        assert [handler.level for handler in root.handlers] == levels
    finally:
        released.set()
        _join_checks()


_HANGS_IN_A_POOL = """
import asyncio, sys, threading
from lab_utils.runner import runner
from lab_utils.targets.reference import ReferenceTarget

class Hangs(ReferenceTarget):
    async def create(self, *args, **options):
        if sys.argv[1] == "default":
            await asyncio.to_thread(threading.Event().wait)
        import concurrent.futures
        self.pool = concurrent.futures.ThreadPoolExecutor()
        await asyncio.get_running_loop().run_in_executor(self.pool, threading.Event().wait)

runner.target_factory = lambda _: Hangs
print(runner.run_check(sys.argv[2], stuck_after=0.05, still_after=0.1).outcome)
"""


@pytest.mark.parametrize("pool", ["default", "its own"])
def test_a_thread_of_a_pool_that_never_ends_does_not_keep_the_process_from_ending(pool: str) -> None:
    check = "per_user_agent_registry_isolation_validation"
    command = [sys.executable, "-c", _HANGS_IN_A_POOL, pool, check]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == "FAIL\n"


def test_a_thread_of_the_loops_pool_that_never_ends_is_not_blamed_on_the_loop(run: Run) -> None:
    released = threading.Event()

    async def body(trial: Trial) -> None:
        await asyncio.to_thread(released.wait)

    try:
        first, second = run(ReferenceTarget, body).verdict.findings
    finally:
        released.set()
        _join_checks()
    assert first.sentence.startswith("the check waits for what does not end: nothing moved for 0.02 s;")
    assert "what comes after the work does not end either: its thread is left as it is;" in second.sentence
    assert any(line.startswith("thread 'asyncio_0' is in ") for line in second.witness)


def test_a_check_that_is_interrupted_works_on_beside_no_other(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    began = threading.Event()
    stopped: list[str] = []

    class Stops(ReferenceTarget):
        async def stop(self) -> None:
            stopped.append(self.name)
            await super().stop()

    async def body(trial: Trial) -> None:
        async with LeakHunt.opened(trial, [Recipe("helper")]):
            trial.stuck_after = 30.0
            began.set()
            await asyncio.Event().wait()

    def interrupted(*_: object) -> None:
        began.wait()
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "_wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(Stops, body)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("check ")]
    assert stopped == ["reference"]
    assert (gc.isenabled(), tracemalloc.is_tracing()) == (True, False)


def test_a_target_whose_making_never_ends_is_found_where_it_may_serve_sockets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    released = threading.Event()
    makers: list[threading.Thread] = []

    class NeverMade(ReferenceTarget):
        def __init__(self) -> None:
            makers.append(threading.current_thread())
            if makers[-1] is not threading.main_thread():
                released.wait()
            super().__init__()

    monkeypatch.setattr(runner, "target_factory", lambda _: NeverMade)
    try:
        result = runner.run_check("event_delivery_isolation_between_users", stuck_after=0.01, still_after=0.01)
    finally:
        released.set()
        _join_checks()
    assert [finding.anomaly for finding in result.verdict.findings] == ["never-ends"]
    # Where nobody would have seen that it does not end.
    assert threading.main_thread() not in makers


def test_what_is_stopped_for_longer_than_the_patience_still_has_its_time(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The trial's own patience alone is on trial here.
    monkeypatch.setattr(Looks, "look", lambda _: None)

    class Slow(ReferenceTarget):
        async def start(self, *args: Any) -> None:
            # As for a process that was stopped: all timers are overdue at once.
            time.sleep(0.3)  # noqa: ASYNC251
            for _ in range(4):
                await asyncio.sleep(0)
            await super().start(*args)

    async def body(trial: Trial) -> None:
        trial.stuck_after = 0.2
        await trial.target()
        event = asyncio.Event()
        asyncio.get_running_loop().call_soon(time.sleep, 0.3)
        # Set some turns later, when a timer of all the time at once would have been over.
        setting = asyncio.create_task(trial.settle(4))
        setting.add_done_callback(lambda _: event.set())
        trial.require(await trial.reached(event), "not-reached", "the event was set")

    assert run(Slow, body).outcome is Outcome.PASS


def test_what_ignores_its_cancellation_is_given_up_without_a_look(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Looks, "look", lambda _: None)

    class Ignores(ReferenceTarget):
        async def stop(self) -> None:
            while True:
                with suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()

    async def body(trial: Trial) -> None:
        await trial.target()

    first, second = run(Ignores, body).verdict.findings
    assert "stopping the target 'reference' did not end in 0.01 s, and ignored its cancellation" in first.sentence
    assert second.anomaly == "task-left"


def test_what_ended_in_time_is_given_up_no_more(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Looks, "look", lambda _: None)
    given_up: list[bool] = []

    async def slow_to_be_cancelled() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    async def body(trial: Trial) -> None:
        event = asyncio.Event()
        event.set()
        trial.require(await trial.reached(event), "not-reached", "the event was set")
        with suppress(Stuck):
            await trial.ends(slow_to_be_cancelled(), "this")
        # Longer than any timer of the two, which all begin before this one.
        await asyncio.sleep(2 * trial.stuck_after)
        given_up.append(trial.has_given_up)

    assert run(ReferenceTarget, body).outcome is Outcome.PASS
    assert given_up == [False]


def test_calls_that_are_not_recorded_move_the_trial(run: Run) -> None:
    seen: list[object] = []

    class Looked(ReferenceTarget):
        trial: Trial

        async def create(self, *args: Any, **options: Any) -> Handle:
            seen.append(self.trial.moved())
            handle = await super().create(*args, **options)
            seen.append(self.trial.moved())
            return handle

    async def body(trial: Trial) -> None:
        Looked.trial = trial
        target = await trial.target()
        await Caller(trial, target, "c", "ada").create("helper")
        await Caller(trial, target, "c", "grace").create("helper")
        trial.require(not list(trial.history), "recorded", "these are not recorded")
        seen.append(trial.moved())
        await judge_cost_of_ending(trial)

    assert run(Looked, body).outcome is Outcome.PASS
    assert seen[:5] == [(1, 0), (1, 0), (3, 0), (3, 0), (4, 0)]
    # Each of the thousand that make the others is a movement of its own.
    assert len(set(seen[5:])) >= 1_000


def _join_checks() -> None:
    for thread in threading.enumerate():
        if thread.name.startswith("check "):
            thread.join()


# The looks themselves.


class Steps:
    """A thread that waits at one line until it is told to go on to another."""

    def __init__(self) -> None:
        self._told: SimpleQueue[bool] = SimpleQueue()
        self._thread = self._line = 0

    def work(self) -> None:
        self._thread = threading.get_ident()
        while self._told.get():
            if not self._told.get():
                break

    def settle(self) -> None:
        """Return when it waits at a line where it has not waited last, and does not merely go there."""
        while True:
            frame = sys._current_frames().get(self._thread)
            # It waits inside `get`, which is no Python: what is innermost then is its caller.
            if frame is None or frame.f_lineno == self._line:
                continue
            if ".get()" in linecache.getline(frame.f_code.co_filename, frame.f_lineno):
                self._line = frame.f_lineno
                return

    def go_on(self) -> None:
        self._told.put(True)
        self.settle()

    def end(self) -> None:
        self._told.put(False)


@contextmanager
def stepping(start: Callable[[Steps], Callable[[], object]]) -> Iterator[Steps]:
    steps = Steps()
    join = start(steps)
    try:
        steps.settle()
        yield steps
    finally:
        steps.end()
        join()


def in_a_thread(steps: Steps) -> Callable[[], object]:
    thread = threading.Thread(target=steps.work, name="steps")
    thread.start()
    return thread.join


def in_an_executor(steps: Steps) -> Callable[[], object]:
    pool = ThreadPoolExecutor(1, "steps")
    pool.submit(steps.work)
    return pool.shutdown


@pytest.mark.parametrize("start", [in_a_thread, in_an_executor])
def test_looks_are_alike_until_a_thread_goes_on(start: Callable[[Steps], Callable[[], object]]) -> None:
    looks, alike = Looks(lambda: None, lambda: 0), []
    with stepping(start) as steps:
        for on in (False, False, False, True, False):
            if on:
                steps.go_on()
            looks.look()
            alike.append(looks.alike)
        assert alike == [0, 1, 2, 0, 1]
        (line,) = looks.places()
        assert re.fullmatch(r"thread 'steps\w*' is in .* > Steps.work, test_standstill.py:\d+", line)


def _first(told: SimpleQueue[None]) -> None:
    told.get()


def _second(told: SimpleQueue[None]) -> None:
    told.get()


def _through_another(told: SimpleQueue[None]) -> None:
    _first(told)


@pytest.mark.parametrize(("before", "after"), [(_first, _second), (_first, _through_another)])
def test_the_same_instruction_in_another_function_or_for_another_caller_is_another_place(
    before: Callable[[SimpleQueue[None]], None], after: Callable[[SimpleQueue[None]], None]
) -> None:
    told: SimpleQueue[None] = SimpleQueue()

    def work() -> None:
        for call in (before, after):
            call(told)

    def settle(call: Callable[[SimpleQueue[None]], None]) -> None:
        while True:
            frame = sys._current_frames().get(thread.ident or 0)
            if frame is not None and "told.get()" in linecache.getline(frame.f_code.co_filename, frame.f_lineno):
                codes = [frame.f_code]
                while (frame := frame.f_back) is not None:
                    codes.append(frame.f_code)
                if call.__code__ in codes:
                    return

    looks = Looks(lambda: None, lambda: 0)
    thread = threading.Thread(target=work)
    thread.start()
    try:
        settle(before)
        looks.look()
        looks.look()
        assert looks.alike == 1
        told.put(None)
        settle(after)
        looks.look()
        assert looks.alike == 0
    finally:
        told.put(None)
        told.put(None)
        thread.join()


def test_a_thread_that_waits_in_an_event_loop_is_told_by_its_tasks_alone() -> None:
    looks = Looks(lambda: None, lambda: 0)
    with closing(asyncio.new_event_loop()) as loop:
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            while (frame := sys._current_frames().get(thread.ident or 0)) is None or frame.f_code.co_name != "select":
                pass
            assert looks.places() == []
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()


def test_threads_that_were_there_before_are_not_looked_at() -> None:
    with stepping(in_a_thread) as steps:
        looks = Looks(lambda: None, lambda: 0)
        looks.look()
        steps.go_on()
        looks.look()
        assert looks.alike == 1
        assert looks.places() == []


def test_looks_are_not_alike_when_something_has_moved() -> None:
    moved = [1, 1, 1, 2, 2, 2, 2]
    looks = Looks(lambda: None, lambda: moved.pop(0))
    alike = []
    while moved:
        looks.look()
        alike.append(looks.alike)
    assert alike == [0, 1, 0, 0, 1, 2]


def test_what_moves_is_not_looked_at_however_idle_it_is() -> None:
    moved, looked_at = iter([1, 2, 3, 3, 4]), []
    looks = Looks(lambda: looked_at.append(len(done)), lambda: next(moved), lambda: 0.0, lambda: 0.0)
    done: list[int] = []
    for _ in range(4):
        looks.look()
        done.append(looks.alike)
    assert (done, looked_at) == ([0, 0, 0, 0], [2])


def test_what_is_at_work_is_not_looked_at() -> None:
    # (seconds since the start, seconds of the processor): idle, idle by 2%, by 20 ms, at work, idle, at work.
    times = [(0.0, 0.0), (5.0, 0.01), (10.0, 0.1), (10.1, 0.12), (15.1, 0.25), (20.1, 0.25), (20.2, 0.28)]
    clock, cpu = iter([at for at, _ in times]), iter([used for _, used in times])
    asked: list[int] = []
    looks = Looks(lambda: asked.append(len(alike)), lambda: 0, lambda: next(clock), lambda: next(cpu))
    alike: list[int] = []
    for _ in times[1:]:
        looks.look()
        alike.append(looks.alike)
    assert alike == [0, 1, 2, 0, 0, 0]
    assert asked == [0, 1, 2, 4]


def test_what_changes_while_it_is_read_has_moved() -> None:
    answers = iter([0, 0, 0, None, None, 0, 0, 0])

    def moved() -> int:
        answer = next(answers)
        if answer is None:
            raise RuntimeError("dictionary changed size during iteration")
        return answer

    looks, alike = Looks(lambda: None, moved), []
    for _ in range(7):
        looks.look()
        alike.append(looks.alike)
    assert alike == [0, 1, 0, 0, 0, 0, 1]


def test_looks_are_alike_until_a_task_goes_on() -> None:
    first, second = asyncio.Event(), asyncio.Event()

    async def inner() -> None:
        await first.wait()
        await second.wait()

    async def outer() -> None:
        await inner()

    with closing(asyncio.new_event_loop()) as loop:
        looks, alike = Looks(lambda: loop, lambda: 0), []

        def look_twice() -> None:
            loop.run_until_complete(asyncio.sleep(0))
            for _ in range(2):
                looks.look()
                alike.append(looks.alike)

        task = loop.create_task(outer())
        look_twice()
        look_twice()
        (line,) = looks.places()
        assert line.startswith(f"{task.get_name()} waits in ")
        assert re.search(r" outer, test_standstill.py:\d+ > inner, test_standstill.py:\d+ > Event.wait, ", line)
        first.set()
        look_twice()
        second.set()
        loop.run_until_complete(task)
        look_twice()
        assert alike == [0, 1, 2, 3, 0, 1, 0, 1]


def test_of_tasks_the_oldest_are_told_first() -> None:
    with closing(asyncio.new_event_loop()) as loop:
        tasks = [loop.create_task(asyncio.sleep(0), name=f"Task-{number}") for number in (10, 100, 9, 2)]
        told = [line.split()[0] for line in Looks(lambda: loop, lambda: 0).places()]
        assert told == ["Task-2", "Task-9", "Task-10", "Task-100"]
        loop.run_until_complete(asyncio.gather(*tasks))


def test_of_many_tasks_a_dozen_is_told_and_how_many_there_are() -> None:
    with closing(asyncio.new_event_loop()) as loop:
        tasks = [loop.create_task(asyncio.sleep(0)) for _ in range(14)]
        *places, last = Looks(lambda: loop, lambda: 0).places()
        assert (len(places), last) == (12, "and 2 tasks more")
        loop.run_until_complete(asyncio.gather(*tasks[:2]))
        assert len(Looks(lambda: loop, lambda: 0).places()) == 0
