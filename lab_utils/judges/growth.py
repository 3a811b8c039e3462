"""Reads a grid of runs: how close each measurement comes to its budget, and how it grows with a parameter."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from lab_utils.judges.comparison import by_metric
from lab_utils.values.digest import CheckDigest, Digest, MeasuredDigest
from lab_utils.values.grid import SEED, Axis, Point

__all__ = ["Growth", "Margin", "growths", "margins", "measured_by_point"]

Runs = Sequence[tuple[Point, Digest]]

_T: Final = {1: 12.706, 2: 4.303}
_Z: Final = 1.95996


@dataclass(frozen=True, slots=True)
class Margin:
    """The point of a grid at which a measurement comes closest to a budget that decides, or breaks it most.

    `left` is the share of the budget that is left: 0 at the limit, negative beyond it.
    """

    check: str
    metric: str
    unit: str
    value: float
    comparison: str
    limit: float
    source: str
    left: float
    point: Point


@dataclass(frozen=True, slots=True)
class Growth:
    """A measurement grows as a power of a parameter: doubling `axis` multiplies it by `2 ** exponent`.

    `low` and `high`: the 95% interval of the exponent; NaN where there are too few runs for one.
    """

    axis: str
    check: str
    metric: str
    unit: str
    exponent: float
    low: float
    high: float
    runs: int


def margins(runs: Runs) -> list[Margin]:
    """The worst margin of each measurement and each of its budgets that decide, the worst first."""
    worst: dict[tuple[str, str, str], Margin] = {}
    for point, digest in runs:
        for check in digest.checks:
            for one in check.measured:
                if not one.comparison or not one.decides or (left := _left(one)) is None:
                    continue
                key = check.check, one.metric, one.source
                if key not in worst or left < worst[key].left:
                    about = one.unit, one.value or 0.0, one.comparison, one.limit, one.source
                    worst[key] = Margin(check.check, one.metric, *about, left, point)
    return sorted(worst.values(), key=lambda one: one.left)


def _left(one: MeasuredDigest) -> float | None:
    """None for a value that is not known, and for a budget that leaves no room: it is kept, or it is broken."""
    if one.value is None:
        return None
    if one.comparison in ("<", "<=") and one.limit > 0:
        return 1 - one.value / one.limit
    if one.comparison in (">", ">=") and one.limit > 0:
        return one.value / one.limit - 1
    is_kept = {"<": one.value < one.limit, "<=": one.value <= one.limit, "==": one.value == one.limit}.get(
        one.comparison, one.value >= one.limit
    )
    return None if is_kept else -math.inf


def measured_by_point(runs: Runs, check: str, metric: str) -> list[tuple[Point, float]]:
    """The values of one measurement."""
    return [
        (point, value)
        for point, digest in runs
        for one in digest.checks
        if one.check == check and (value := _value(one, metric)) is not None
    ]


def _value(check: CheckDigest, metric: str) -> float | None:
    one = by_metric(check).get(metric)
    return one.value if one else None


def growths(axes: Sequence[Axis], runs: Runs) -> list[Growth]:
    """How each measurement grows with each axis of amounts, by least squares over the logarithms; the fastest first.

    Runs that differ in other axes are compared among themselves, those of other seeds and repeats with all. A value
    that is somewhere not above zero, or the same everywhere, has no exponent.
    """
    found: list[Growth] = []
    named = list(dict.fromkeys((check.check, metric) for _, run in runs for check, metric, _ in _every(run)))
    units = {(check.check, one.metric): one.unit for _, run in runs for check, _, one in _every(run)}
    for check, metric in named:
        values = measured_by_point(runs, check, metric)
        if any(value <= 0 for _, value in values) or len({value for _, value in values}) < 2:
            continue
        found += [
            Growth(axis.name, check, metric, units[check, metric], *fit, len(values))
            for axis in axes
            if axis.is_numeric and (fit := _fit(axis, axes, values)) is not None
        ]
    return sorted(found, key=lambda one: -one.exponent)


def _every(run: Digest) -> Iterator[tuple[CheckDigest, str, MeasuredDigest]]:
    for check in run.checks:
        for metric, one in by_metric(check).items():
            # The ends of an interval are no measurements of their own.
            if ", at " not in metric:
                yield check, metric, one


def _fit(axis: Axis, axes: Sequence[Axis], values: Iterable[tuple[Point, float]]) -> tuple[float, float, float] | None:
    groups: dict[tuple[object, ...], list[tuple[float, float]]] = {}
    others = [other.name for other in axes if other.name not in (axis.name, SEED)]
    for point, value in values:
        amount = float(point.values[axis.name])
        if amount <= 0:
            return None
        groups.setdefault(tuple(point.values[name] for name in others), []).append((math.log(amount), math.log(value)))
    centred: list[tuple[float, float]] = []
    for group in groups.values():
        mean_x, mean_y = (statistics.fmean(side) for side in zip(*group, strict=True))
        centred += [(x - mean_x, y - mean_y) for x, y in group]
    across = math.fsum(x * x for x, _ in centred)
    if across <= 0:
        return None
    slope = math.fsum(x * y for x, y in centred) / across
    freedom = len(centred) - len(groups) - 1
    if freedom < 1:
        return slope, math.nan, math.nan
    spread = math.sqrt(math.fsum((y - slope * x) ** 2 for x, y in centred) / freedom / across)
    return slope, slope - _t(freedom) * spread, slope + _t(freedom) * spread


def _t(freedom: int) -> float:
    """The 97.5% point of Student's distribution, within 1%."""
    if freedom in _T:
        return _T[freedom]
    z, n = _Z, freedom
    return (
        z
        + (z**3 + z) / (4 * n)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
    )
