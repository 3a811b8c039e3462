"""Turns: so many processes at once, or one alone, whatever becomes of those before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="checks run as they come")

TAKES = (
    "import sys, pathlib; from lab_utils.runner.slots import take_slot\n"
    "take_slot(pathlib.Path(sys.argv[1]), 2, alone=sys.argv[2] == 'alone', more=int(sys.argv[2] == 'more'))\n"
    "print('has it', flush=True); sys.stdin.read()"
)


class Taker:
    """A process that takes a turn and keeps it until it is released."""

    def __init__(self, folder: Path, how: str = "beside") -> None:
        command = [sys.executable, "-c", TAKES, str(folder), how]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def has_it(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"has it\n"

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
