"""The time limit of a check's process."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from lab_utils.checks.isolation.cuts import Cut
from lab_utils.checks.isolation.exploration import lived
from lab_utils.checks.registration.callers import workload_of
from lab_utils.checks.registration.cores import Core
from lab_utils.interleavings import run_schedule
from lab_utils.interleavings.observing import STEPS
from lab_utils.runner import watch
from lab_utils.runner.journal import Journal, read_beats, read_journal, read_position
from lab_utils.runner.watch import _seconds_in_line, _Watch, is_overdue
from lab_utils.runner.worker import GiveUp, Message
from lab_utils.target import Command, Handle
from lab_utils.targets.reference import ReferenceTarget
from lab_utils.trial import Trial, checked


@pytest.mark.parametrize(
    ("seconds", "in_line", "late"),
    [(119, 0, False), (120, 0, True), (500, 400, False), (500, 300, True), (599, 598, False), (600, 599, True)],
)
def test_seconds_in_line_for_a_processor_are_not_the_checks_own(seconds: float, in_line: float, late: bool) -> None:
    assert is_overdue(seconds, in_line, 120) is late


def test_a_process_that_is_gone_waits_for_nothing() -> None:
    assert all(seconds >= 0 for seconds in _seconds_in_line([os.getpid()]).values())
    assert _seconds_in_line([-1]) == {}


class LateNumber:
    """A child whose number comes after its first message."""

    connection, output = SimpleNamespace(), -1

    def __init__(self, polls: int) -> None:
        self.polls = polls
        self.pid = None if polls else 7

    def poll(self) -> None:
        self.polls -= 1
        self.pid = None if self.polls else 7


@pytest.mark.parametrize("polls", [0, 1, 2])
def test_a_process_is_not_idle_before_its_number_is_known(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, polls: int
) -> None:
    asked: list[int | None] = []

    def no_processes(pid: int | None) -> list[Any]:
        asked.append(pid)
        return []

    monkeypatch.setattr(watch, "_tree", no_processes)
    child: Any = LateNumber(polls)
    job: Any = SimpleNamespace()
    looker = _Watch(child, job, tmp_path, 1.0, 1.0, None, None, None, None)
    looker._look(1.0)
    assert asked == [None if polls == 2 else 7]
    assert (looker._still_since is None) == (polls == 2)


def test_a_process_that_the_target_has_started_waits_in_line_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    child: Any = LateNumber(0)
    job: Any = SimpleNamespace()
    monkeypatch.setattr(watch, "_tree", lambda _: [SimpleNamespace(pid=7), SimpleNamespace(pid=8)])
    monkeypatch.setattr(watch, "_cpu_seconds", lambda *_: 0.0)
    looker = _Watch(child, job, tmp_path, 1.0, 1.0, None, None, None, None)
    # The second child began and ended between looks; what it waited stays counted.
    looks = [{(7, "7"): 0.1}, {(7, "7"): 0.1, (8, "8"): 3.0}, {(7, "7"): 0.1, (9, "9"): 1.5}]
    for now, lines in enumerate(looks, 1):
        monkeypatch.setattr(watch, "_seconds_in_line", lambda _, lines=lines: lines)
        looker._looked_at = now - 1.0
        looker._look(float(now))
    assert looker._starved == pytest.approx(0.1 + 1.0 + 1.0)


def test_the_time_in_which_a_process_is_stopped_is_not_the_checks_own(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        child: Any = SimpleNamespace(connection=None, output=-1, pid=process.pid)
        looker = _Watch(child, cast(Any, None), tmp_path, 1.0, 1.0, None, None, None, None)
        for now in range(1, 9):
            looker._look(float(now))
        process.kill()
    assert looker._starved == 8
    # Nor does it hold its interpreter.
    assert looker._without_beat == 0


@pytest.mark.parametrize(
    ("state", "share_of_its_own", "held_s"),
    [("R", 0.0, 0.0), ("D", 0.0, 0.0), ("R", 0.5, 4.0), ("R", 1.0, 8.0), ("S", 0.0, 8.0)],
    ids=["memory is emptied for it", "memory is fetched", "it does both", "it computes", "it waits"],
)
def test_what_the_system_does_for_a_call_is_no_time_that_it_holds_the_interpreter(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state: str, share_of_its_own: float, held_s: float
) -> None:
    """Such as to find three gigabytes for one call."""

    def had(_: object, kinds: Sequence[str] = ("user", "system")) -> float:
        return now * (share_of_its_own if "system" not in kinds else 1.0)

    child: Any = LateNumber(0)
    monkeypatch.setattr(watch, "_tree", lambda _: [])
    monkeypatch.setattr(watch, "_cpu_seconds", had)
    monkeypatch.setattr(watch, "_states", lambda _: frozenset(state))
    looker = _Watch(child, cast(Any, None), tmp_path, 1.0, 1.0, None, None, None, None)
    for now in range(1, 10):
        looker._looked_at = now - 1.0
        looker._look(float(now))
        # The first look is of a process that has just begun.
        looker._without_beat = 0.0 if now == 1 else looker._without_beat
    assert looker._without_beat == held_s


def test_the_time_in_which_the_watching_process_was_stopped_is_not_the_checks_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(watch, "_tree", lambda _: [])
    child: Any = LateNumber(0)
    looker = _Watch(child, cast(Any, None), tmp_path, 1.0, 1.0, None, None, None, None)
    for now in (1.0, 2.0, 32.0, 33.0):
        looker._look(now)
    assert looker._starved == 28


async def test_a_target_that_starts_is_not_watched(tmp_path: Path) -> None:
    journal, seen = Journal(tmp_path / "journal"), list[tuple[bool, int]]()

    class Slow(ReferenceTarget):
        async def start(self, *arguments: Any, **options: Any) -> None:
            # In a task, as a time limit has it: no frame of the watched step is called `start` then.
            await asyncio.wait_for(self.load(), 60)
            await super().start(*arguments, **options)

        async def load(self) -> None:
            seen.append((trial.is_starting, read_beats(tmp_path / "journal")))

    trial = Trial(Slow, {}, 1)
    trial.on_starting = journal.starting
    journal.beat()
    target = await trial.target()
    seen.append((trial.is_starting, read_beats(tmp_path / "journal")))
    await trial.stop(target)
    assert seen == [(True, 0), (False, 1)]


def test_the_time_in_which_a_check_gives_way_is_not_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ours, theirs = Pipe()
    child: Any = SimpleNamespace(connection=ours, output=-1, poll=lambda: None)
    job: Any = SimpleNamespace(stuck_after=None, parameters={})
    looker = _Watch(child, job, tmp_path, 1e9, 100.0, None, None, None, None)
    for now, kind in ((0.0, Message.BEGAN), (10.0, Message.AWAY), (310.0, Message.BACK)):
        monkeypatch.setattr(time, "monotonic", lambda now=now: now)
        theirs.send_bytes(kind)
        looker._take(ours)
    looker._capabilities = frozenset()
    looker._late(399.0)
    assert looker._given_up is None
    looker._late(401.0)
    assert looker._given_up is not None


def test_a_journal_may_be_read_while_it_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path, sizes, write = tmp_path / "journal", list[int](), Path.write_bytes

    def in_two(made: Path, data: bytes) -> int:
        for size in (0, 10, len(data)):
            sizes.append(write(made, data[:size]))
            assert (read_position(path), read_beats(path), read_journal(path)) == (0, 0, [])
        return len(data)

    monkeypatch.setattr(Path, "write_bytes", in_two)
    journal = Journal(path)
    assert len(sizes) == 3
    journal.beat()
    journal.reach(3)
    journal.write("create u1")
    assert (read_position(path), read_beats(path), read_journal(path)) == (3, 1, ["create u1"])


def half(step: str) -> bytes:
    return Message.PROGRESS + msgspec.json.encode((step, 0.5))


@pytest.mark.parametrize(
    ("messages", "operation_at", "in_line", "late_at", "goes_on"),
    [
        # The limit is 100 seconds: of the last 25 of them it is asked.
        ([(70.0, half("a"))], 0.0, 0.0, 101.0, False),
        ([(80.0, half("a"))], 0.0, 0.0, 101.0, True),
        # The same again is not further.
        ([(70.0, half("a")), (80.0, half("a"))], 0.0, 0.0, 101.0, False),
        ([(70.0, half("a")), (80.0, half("b"))], 0.0, 0.0, 101.0, True),
        ([], 70.0, 0.0, 101.0, False),
        ([], 80.0, 0.0, 101.0, True),
        # Neither the time in line for a processor nor that in which it gave way is the check's own.
        ([(80.0, half("a"))], 0.0, 60.0, 161.0, True),
        ([(70.0, half("a"))], 0.0, 60.0, 161.0, False),
        ([(80.0, half("a")), (90.0, Message.AWAY), (390.0, Message.BACK)], 0.0, 0.0, 401.0, True),
        ([(70.0, half("a")), (90.0, Message.AWAY), (390.0, Message.BACK)], 0.0, 0.0, 401.0, False),
    ],
)
def test_a_check_at_its_limit_is_only_slow_if_it_came_further_lately(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    messages: list[tuple[float, bytes]],
    operation_at: float,
    in_line: float,
    late_at: float,
    goes_on: bool,
) -> None:
    ours, theirs = Pipe()
    child: Any = SimpleNamespace(connection=ours, output=-1, pid=7, poll=lambda: None)
    job: Any = SimpleNamespace(stuck_after=None, parameters={})
    monkeypatch.setattr(watch, "_tree", lambda _: [])
    journal = Journal(tmp_path / "journal")
    looker = _Watch(child, job, tmp_path, 1e9, 100.0, None, None, None, None)
    for now, message in ((0.0, Message.BEGAN), *messages):
        monkeypatch.setattr(time, "monotonic", lambda now=now: now)
        theirs.send_bytes(message)
        looker._take(ours)
    if operation_at:
        journal.reach(1)
        looker._looked_at = operation_at - 1.0
        looker._look(operation_at)
    looker._capabilities, looker._starved = frozenset(), in_line
    looker._late(late_at)
    assert msgspec.json.decode(theirs.recv_bytes(), type=GiveUp).goes_on is goes_on


@pytest.mark.parametrize(
    ("since", "limit_s", "patience", "goes_on"),
    [(24.9, 100.0, 0.0, True), (25.0, 100.0, 0.0, False), (89.9, 100.0, 90.0, True), (90.0, 100.0, 90.0, False)],
)
def test_a_call_may_take_as_long_at_the_limit_as_before(
    since: float, limit_s: float, patience: float, goes_on: bool
) -> None:
    assert watch.is_going_on(since, limit_s, patience) is goes_on


def test_each_answer_in_a_simulated_history_is_counted() -> None:
    seen: list[int] = []

    class Looks(ReferenceTarget):
        async def run(self, handle: Handle, command: Command) -> Any:
            seen.append(STEPS.answers)
            return await super().run(handle, command)

    before = STEPS.answers
    run_schedule(workload_of(Core("create", "end", 0), lambda: checked(Looks()), 1))
    assert STEPS.answers > before
    lived(Cut("write", "cancelled", 2, times=30), lambda: checked(Looks()), 1)
    # Those of a crowd begin at the same count.
    assert len(set(seen)) > len(seen) / 2 > 30
