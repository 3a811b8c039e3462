"""Margins and exponents of a grid whose values are known."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from lab_utils.judges.growth import growths, margins
from lab_utils.values.digest import DIGEST_FORMAT, CheckDigest, Digest, MeasuredDigest
from lab_utils.values.grid import Axis, Point, points_of
from lab_utils.values.verdict import Outcome

USERS = Axis("users", (10, 30, 100, 300))
SEEDS = Axis("seed", tuple(range(1, 6)))
Runs = list[tuple[Point, Digest]]


def grid(*axes: Axis, repeats: int = 1, measured: Callable[[Point], list[MeasuredDigest]]) -> Runs:
    def run(point: Point) -> Digest:
        check = CheckDigest("first", "user_isolation", Outcome.PASS, "", 0.1, (), tuple(measured(point)))
        words = ("target", "smoke", 7, "", "3.11.0", "machine")
        return Digest(DIGEST_FORMAT, f"{point.number}", "passed", "", 1.0, *words, {}, (check,))

    return [(point, run(point)) for point in points_of(axes, repeats)]


def test_the_exponent_of_a_power_lies_in_its_interval() -> None:
    rng = random.Random(7)

    def measured(point: Point) -> list[MeasuredDigest]:
        users = float(point.values["users"])
        noisy = 0.01 * users**1.5 * math.exp(rng.gauss(0, 0.1))
        level = math.exp(rng.gauss(0, 0.1))
        exact, zero, end = 3 * users, 0.0, noisy
        return [
            MeasuredDigest("work", noisy, "s"),
            MeasuredDigest("level", level, "s"),
            MeasuredDigest("objects", exact, "objects"),
            MeasuredDigest("left", zero, "objects"),
            MeasuredDigest("slope, at least, of work", end, "s"),
        ]

    found = {one.metric: one for one in growths((USERS, SEEDS), grid(USERS, SEEDS, measured=measured))}
    assert list(found) == ["work", "objects", "level"], "the fastest first; without zeros, ends of intervals and seeds"
    assert found["work"].low < 1.5 < found["work"].high < found["work"].low + 0.3
    assert found["level"].low < 0 < found["level"].high
    assert (found["objects"].low, found["objects"].high) == pytest.approx((1.0, 1.0))


def test_runs_that_differ_in_another_parameter_are_not_compared() -> None:
    cycles = Axis("cycles", (4, 8))

    def measured(point: Point) -> list[MeasuredDigest]:
        return [MeasuredDigest("work", float(point.values["users"]) * 1000 ** float(point.values["cycles"]), "s")]

    found = {one.axis: one for one in growths((USERS, cycles), grid(USERS, cycles, measured=measured))}
    assert (found["users"].low, found["users"].high) == pytest.approx((1.0, 1.0))
    assert found["cycles"].exponent == pytest.approx(4 * math.log(1000) / math.log(2))


def test_two_runs_have_an_exponent_and_no_interval() -> None:
    two = Axis("users", (10, 20))
    (found,) = growths((two,), grid(two, measured=lambda at: [MeasuredDigest("work", float(at.values["users"]), "s")]))
    assert found.exponent == pytest.approx(1.0)
    assert math.isnan(found.low)


def test_the_worst_margin_of_each_budget_is_that_of_one_run() -> None:
    def measured(point: Point) -> list[MeasuredDigest]:
        value = float(point.number)
        return [
            MeasuredDigest("bytes", value, "bytes", "<", 8.0, "lab", True),
            MeasuredDigest("bytes", value, "bytes", "<", 40.0, "asked", True),
            MeasuredDigest("fair", 1 / value, "share", ">=", 0.1, "lab", True),
            MeasuredDigest("left", value - 1, "objects", "==", 0.0, "lab", True),
            MeasuredDigest("rss", value, "bytes", "<", 0.5, "lab", False),
            MeasuredDigest("kept", 0.0, "objects", "<=", 0.0, "lab", True),
            MeasuredDigest("unknown", None, "s", "<", 1.0, "lab", True),
        ]

    found = [(one.metric, one.source, one.left, one.point.number) for one in margins(grid(USERS, measured=measured))]
    assert found == [
        ("left", "lab", -math.inf, 2),
        ("bytes", "lab", 0.5, 4),
        ("bytes", "asked", 0.9, 4),
        ("fair", "lab", 1.5, 4),
    ]
