"""The time limit of a check's process."""

from __future__ import annotations

import os

import pytest

from lab_utils.runner.watch import _seconds_in_line, is_overdue


@pytest.mark.parametrize(
    ("seconds", "in_line", "late"),
    [(119, 0, False), (120, 0, True), (500, 400, False), (500, 300, True), (599, 598, False), (600, 599, True)],
)
def test_seconds_in_line_for_a_processor_are_not_the_checks_own(seconds: float, in_line: float, late: bool) -> None:
    assert is_overdue(seconds, in_line, 120) is late


def test_a_process_that_is_gone_waits_for_nothing() -> None:
    assert _seconds_in_line(os.getpid()) >= 0
    assert _seconds_in_line(-1) == 0
