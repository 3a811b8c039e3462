"""Turns: so many processes at once, or one alone, whatever becomes of those before."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from lab_utils.runner.runner import run_check
from lab_utils.runner.server import slots
from lab_utils.values.verdict import Outcome

if sys.platform != "win32":
    import fcntl

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="checks run as they come")

TAKES = (
    "import sys, pathlib; from lab_utils.runner.slots import take_turn\n"
    "turn = take_turn(pathlib.Path(sys.argv[1]), 2, alone=sys.argv[2] == 'alone', more=int(sys.argv[2] == 'more'))\n"
    "print('has it', flush=True)\n"
    "if sys.argv[2] == 'polite':\n"
    "    while not turn.is_wanted(): pass\n"
    "    turn.give_way()\n"
    "    print('has it', flush=True)\n"
    "sys.stdin.read()"
)


class Taker:
    """A process that takes a turn and keeps it until it is released."""

    def __init__(self, folder: Path, how: str = "beside") -> None:
        command = [sys.executable, "-c", TAKES, str(folder), how]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def has_it(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"has it\n"

    @staticmethod
    def is_free(seat: Path) -> bool:
        with seat.open("r+b") as file, suppress(OSError):
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False

    def goes(self) -> None:
        self.process.kill()
        self.process.communicate()


def test_two_at_once_then_one_alone_then_two_again(tmp_path: Path) -> None:
    first, second = Taker(tmp_path), Taker(tmp_path)
    first.has_it()
    second.has_it()
    alone = Taker(tmp_path, "alone")
    first.goes()
    assert alone.process.poll() is None
    second.goes()
    alone.has_it()
    later = [Taker(tmp_path), Taker(tmp_path)]
    alone.goes()
    for one in later:
        one.has_it()
    for one in later:
        one.goes()


def test_a_third_has_its_turn_when_either_of_two_goes(tmp_path: Path) -> None:
    takers = [Taker(tmp_path), Taker(tmp_path)]
    for one in takers:
        one.has_it()
    for gone in takers:
        third = Taker(tmp_path)
        gone.goes()
        third.has_it()
        third.goes()


def test_only_those_who_name_more_seats_come_in_beside_two(tmp_path: Path) -> None:
    takers = [Taker(tmp_path), Taker(tmp_path)]
    for one in takers:
        one.has_it()
    another = Taker(tmp_path, "more")
    another.has_it()
    third = Taker(tmp_path)
    another.goes()
    assert third.process.poll() is None
    takers[0].goes()
    third.has_it()
    takers[1].goes()
    third.goes()


def test_those_who_give_way_come_back_to_their_seats_when_the_one_alone_has_gone(tmp_path: Path) -> None:
    polite = [Taker(tmp_path, "polite"), Taker(tmp_path, "polite")]
    for one in polite:
        one.has_it()
    alone = Taker(tmp_path, "alone")
    alone.has_it()
    third = Taker(tmp_path)
    alone.goes()
    for one in polite:
        one.has_it()
    polite[0].goes()
    third.has_it()
    polite[1].goes()
    third.goes()


def test_a_long_check_lets_one_in_that_must_be_alone_and_goes_on() -> None:
    came: list[Taker] = []

    def come(step: str, _: float) -> None:
        if step == "exploring schedules" and not came:
            came.append(Taker(Path(slots()), "alone"))
            came[0].has_it()
            # The check keeps one while it is away; of one that has ended all would be free.
            seats = [Taker.is_free(seat) for seat in Path(slots()).glob("seat-*")]
            assert not all(seats)
            came[0].goes()

    result = run_check("concurrent_agent_registration_safety", parameters={"deviations": 1}, on_progress=come)
    assert result.verdict.outcome is Outcome.PASS, result.verdict
    assert came
