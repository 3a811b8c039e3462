"""Turns: so many processes at once, or one alone, whatever becomes of those before."""

from __future__ import annotations

import asyncio
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lab_utils.runner.runner import run_check
from lab_utils.runner.server import SLOTS_VARIABLE
from lab_utils.targets.reference import ReferenceTarget
from lab_utils.values.verdict import Outcome

if sys.platform != "win32":
    import fcntl

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="checks run as they come")

TAKES = (
    "import sys, pathlib, time; from lab_utils.runner.slots import take_turn\n"
    "turn = take_turn(pathlib.Path(sys.argv[1]), 2, alone=sys.argv[2] == 'alone', more=int(sys.argv[2] == 'more'))\n"
    "print(time.monotonic_ns(), flush=True)\n"
    "if sys.argv[2] == 'polite':\n"
    "    while not turn.is_wanted(): pass\n"
    "    turn.give_way()\n"
    "    print(time.monotonic_ns(), flush=True)\n"
    "sys.stdin.read()"
)


class Taker:
    """A process that takes a turn, says when, and keeps it until it is released."""

    def __init__(self, folder: Path, how: str = "beside") -> None:
        self.folder = folder
        command = [sys.executable, "-c", TAKES, str(folder), how]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def has_it(self, after: int = 0) -> None:
        """Wait for its turn, which comes `after` this time of the clock that all processes share."""
        assert self.process.stdout is not None
        assert int(self.process.stdout.readline()) > after

    def is_at(self, lock: str) -> None:
        """Wait until it holds this lock and waits for the next one, or has its turn too early."""
        assert self.process.stdout is not None
        held = 0
        # One that only passes holds it for a look or two.
        while held < 1_000 and not select.select([self.process.stdout], [], [], 0)[0]:
            held = 0 if is_free(self.folder / lock) else held + 1

    def goes(self) -> None:
        self.process.kill()
        self.process.communicate()

    def released(self) -> int:
        """End it, and return a time before that."""
        now = time.monotonic_ns()
        self.goes()
        return now


@pytest.fixture
def take(tmp_path: Path) -> Iterator[Callable[..., Taker]]:
    """Start takers of one folder; a test that fails leaves none of them, for whom every later check would wait."""
    takers: list[Taker] = []

    def take(how: str = "beside") -> Taker:
        takers.append(Taker(tmp_path, how))
        return takers[-1]

    yield take
    for taker in takers:
        taker.goes()


def is_free(lock: Path) -> bool:
    with lock.open("r+b") as file, suppress(OSError):
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def test_two_at_once_then_one_alone_then_two_again(take: Callable[..., Taker]) -> None:
    first, second = take(), take()
    first.has_it()
    second.has_it()
    alone = take("alone")
    alone.is_at("alone")
    first.goes()
    alone.has_it(after=second.released())
    later = [take(), take()]
    later[0].is_at("door")
    released = alone.released()
    for one in later:
        one.has_it(after=released)
    for one in later:
        one.goes()


def test_a_third_has_its_turn_when_either_of_two_goes(take: Callable[..., Taker]) -> None:
    takers = [take(), take()]
    for one in takers:
        one.has_it()
    for gone in takers:
        # It stays in the seat of who has gone, so the next one waits for the other.
        third = take()
        third.is_at("door")
        third.has_it(after=gone.released())


def test_only_those_who_name_more_seats_come_in_beside_two(take: Callable[..., Taker]) -> None:
    takers = [take(), take()]
    for one in takers:
        one.has_it()
    another = take("more")
    another.has_it()
    third = take()
    third.is_at("door")
    another.goes()
    third.has_it(after=takers[0].released())
    takers[1].goes()
    third.goes()


def test_those_who_give_way_come_back_to_their_seats_when_the_one_alone_has_gone(take: Callable[..., Taker]) -> None:
    polite = [take("polite"), take("polite")]
    for one in polite:
        one.has_it()
    alone = take("alone")
    alone.has_it()
    third = take()
    third.is_at("door")
    released = alone.released()
    for one in polite:
        one.has_it(after=released)
    third.has_it(after=polite[0].released())
    polite[1].goes()
    third.goes()


class HeldOnce(ReferenceTarget):
    """The first one of a process opens for reading, as it starts, the pipe that the environment names."""

    has_started = False

    async def start(self, *arguments: Any, **options: Any) -> None:
        if not HeldOnce.has_started:
            HeldOnce.has_started = True
            await asyncio.to_thread(Path(os.environ["HELD_BY"]).read_bytes)
        await super().start(*arguments, **options)


def test_a_long_check_lets_one_in_that_must_be_alone_and_goes_on(
    take: Callable[..., Taker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = tmp_path / "held-by"
    os.mkfifo(pipe)
    monkeypatch.setenv(SLOTS_VARIABLE, str(tmp_path))
    monkeypatch.setenv("HELD_BY", str(pipe))
    seats: list[bool] = []

    def come() -> None:
        # Opens once the check has its turn and starts its target, which goes on when the pipe is closed.
        with pipe.open("wb"):
            alone = take("alone")
            while is_free(tmp_path / "alone"):
                pass
        alone.has_it()
        # The check keeps one while it is away; of one that has ended all would be free.
        seats.extend(is_free(seat) for seat in tmp_path.glob("seat-*"))
        alone.goes()

    # A check that never starts its target leaves it waiting.
    threading.Thread(target=come, daemon=True).start()
    held = f"{__name__}:{HeldOnce.__name__}"
    result = run_check("concurrent_agent_registration_safety", target=held, parameters={"deviations": 1})
    assert result.verdict.outcome is Outcome.PASS, result.verdict
    assert sorted(seats) == [False, True]
