"""Tests that run at once are put in an order in which no process is left alone with the long ones."""

from __future__ import annotations

import pytest

from tests.order import dealt


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [0, 5, 100])
def test_each_test_is_there_once(processes: int, count: int) -> None:
    longest, long, others = range(2), range(2, 23), range(23, 23 + count)
    assert sorted(dealt(longest, long, others, processes)) == [*range(23 + count)]


def test_each_process_begins_with_its_share_of_the_long_ones_at_another_place() -> None:
    longest, long = ["sweep 1", "sweep 2", "sweep 3"], ["a1", "a2", "a3", "b1", "b2", "b3", "c1", "c2", "c3"]
    order = dealt(longest, long, [f"short {number}" for number in range(6)], 3)
    assert [order[start : start + 6] for start in (0, 6, 12)] == [
        ["sweep 1", "a1", "b1", "c1", "short 0", "short 1"],
        ["sweep 2", "b2", "c2", "a2", "short 2", "short 3"],
        ["sweep 3", "c3", "a3", "b3", "short 4", "short 5"],
    ]
