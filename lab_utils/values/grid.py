"""The values of a sweep: its axes, and a point for each run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Final

from lab_utils.values.profiles import Value

__all__ = ["MOST_RUNS", "SEED", "Axis", "Point", "count_of", "points_of", "spelled"]

SEED: Final = "seed"
MOST_RUNS: Final = 2_000
"""A grid of more runs is a slip of the keys, or wants to be several grids."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One parameter that varies, or the seed; `name` may begin with a category. No value stands twice."""

    name: str
    values: tuple[Value, ...]

    @property
    def is_numeric(self) -> bool:
        """Whether its values are amounts: text, booleans and seeds are not."""
        return self.name != SEED and all(type(value) in (int, float) for value in self.values)


@dataclass(frozen=True, slots=True)
class Point:
    """One run of a grid. `repeat` counts from 1."""

    number: int
    values: Mapping[str, Value]
    repeat: int
    repeats: int

    @property
    def name(self) -> str:
        """The point in words: `users=10 seed=3, 2 of 3`."""
        words = " ".join(f"{name}={spelled(value)}" for name, value in self.values.items())
        which = f"{self.repeat} of {self.repeats}" if self.repeats > 1 else ""
        return ", ".join(filter(None, [words, which])) or "the run"


def spelled(value: Value) -> str:
    """A value as the command line takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def count_of(axes: Sequence[Axis], repeats: int) -> int:
    """The number of runs."""
    return prod(len(axis.values) for axis in axes) * repeats


def points_of(axes: Sequence[Axis], repeats: int) -> Iterator[Point]:
    """Every combination of the values, each `repeats` times; the first axis varies slowest, repeats fastest."""
    names = [axis.name for axis in axes]
    combined = product(*(axis.values for axis in axes), range(1, repeats + 1))
    for number, (*values, repeat) in enumerate(combined, 1):
        yield Point(number, dict(zip(names, values, strict=True)), int(repeat), repeats)
