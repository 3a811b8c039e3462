"""The exact sum: `math.fsum` to the last bit, and never more floats than it may hold."""

from __future__ import annotations

import functools
import math
import operator
import sqlite3
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from registry.usage.database import ExactSum

LEAST = 100
# Far apart in size, so that every rounding error of a plain sum would show; their sums stay finite.
VALUES = st.floats(min_value=-1e300, max_value=1e300, allow_nan=False)


def summed(values: list[float | None], most: int = LEAST) -> ExactSum:
    made = ExactSum(most)
    for value in values:
        made.step(value)
        assert len(made) <= most
    return made


@given(st.lists(VALUES, max_size=50), st.integers(1, 12))
@example([1e300, 1.0, -1e300, 5e-324], 40)
@example([0.1, 1e16, -1e16], 50)
def test_it_is_fsum_to_the_last_bit(values: list[float], times: int) -> None:
    repeated = values * times
    assert summed([*repeated]).finalize() == math.fsum(repeated)


@given(st.lists(st.sampled_from([2.0**power for power in range(-1074, 990, 61)] + [0.0, -1.0, 3.7]), max_size=400))
def test_even_where_the_sum_spans_all_sizes_of_a_double(values: list[float]) -> None:
    assert summed([*values]).finalize() == math.fsum(values)


def test_a_plain_running_sum_would_show_another_figure() -> None:
    values = [0.1] * 1_000
    # Not by `sum`, which is compensated from Python 3.12 on.
    assert functools.reduce(operator.add, values) != math.fsum(values)
    assert summed([*values]).finalize() == math.fsum(values) == 100.0


def test_nulls_do_not_count_and_nothing_sums_to_zero() -> None:
    assert summed([]).finalize() == 0.0
    assert summed([None, 0.5, None]).finalize() == 0.5


def test_sqlite_takes_it_for_an_aggregate() -> None:
    connection = sqlite3.connect(":memory:")
    connection.create_aggregate("fsum", 1, cast(Any, ExactSum))
    values = [(number % 3, number / 7) for number in range(15_000)]
    connection.execute("CREATE TABLE t (kind, value)")
    connection.executemany("INSERT INTO t VALUES (?, ?)", values)
    found = dict(connection.execute("SELECT kind, fsum(value) FROM t GROUP BY kind"))
    connection.close()
    assert found == {kind: math.fsum(value for one, value in values if one == kind) for kind in range(3)}


@pytest.mark.parametrize(("make", "most"), [(ExactSum, 4_096), (lambda: ExactSum(100), 100)])
def test_a_sum_holds_fewer_floats_than_it_may(make: Any, most: int) -> None:
    total = make()
    for count in range(1, most):
        total.step(1.0)
        assert len(total) == count
    total.step(1.0)
    assert len(total) == 1
    assert total.finalize() == most
    with pytest.raises(ValueError, match="most=99"):
        ExactSum(99)
