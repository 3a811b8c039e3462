"""Measures memory: the process's USS and RSS, traced bytes, and the slope of a series with its confidence interval."""

from __future__ import annotations

import random
import statistics
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations

import psutil

__all__ = ["Memory", "Slope", "memory_now", "slope_of", "traced"]


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of this process: `rss` resident, `uss` resident and its own alone."""

    rss: int
    uss: int


def memory_now() -> Memory:
    """Measure this process now; takes about a millisecond for USS."""
    full = psutil.Process().memory_full_info()
    return Memory(rss=full.rss, uss=full.uss)


@contextmanager
def traced() -> Iterator[None]:
    """Trace allocations, so that `tracemalloc.get_traced_memory()` tells the bytes that Python objects hold."""
    if tracemalloc.is_tracing():
        yield
        return
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


@dataclass(frozen=True, slots=True)
class Slope:
    """The growth of a series per step, with a 95% confidence interval."""

    per_step: float
    low: float
    high: float

    @property
    def includes_zero(self) -> bool:
        """True if the series may as well be flat."""
        return self.low <= 0.0 <= self.high

    def __str__(self) -> str:
        if self.includes_zero:
            return f"flat within {max(abs(self.low), abs(self.high)):.4g} a cycle (95%)"
        return f"grows by {self.per_step:.4g} a cycle (95%: {self.low:.4g} to {self.high:.4g})"


def slope_of(values: Sequence[float], seed: int, resamples: int = 400) -> Slope:
    """The Theil-Sen slope of a series, with a moving-block bootstrap interval of its residuals.

    The median of the slopes of all pairs (Theil 1950, Sen 1968) ignores up to 29% of outliers, which a garbage
    collection or an allocator's step is. The interval resamples the residuals in blocks (Künsch 1989), for successive
    readings of memory are not independent. Raises `ValueError` for fewer than four values.
    """
    count = len(values)
    if count < 4:
        raise ValueError(f"{count} values give no slope worth an interval; measure at least 4")
    per_step = _theil_sen(values)
    middle = statistics.median(value - per_step * step for step, value in enumerate(values))
    residuals = [value - per_step * step - middle for step, value in enumerate(values)]
    if not any(residuals):
        return Slope(per_step, per_step, per_step)
    rng = random.Random(seed)
    block = max(2, round(count ** (1 / 3)))
    slopes = []
    for _ in range(resamples):
        drawn: list[float] = []
        while len(drawn) < count:
            start = rng.randrange(count - block + 1)
            drawn.extend(residuals[start : start + block])
        slopes.append(_theil_sen([middle + per_step * step + drawn[step] for step in range(count)]))
    slopes.sort()
    return Slope(per_step, slopes[int(0.025 * resamples)], slopes[int(0.975 * resamples) - 1])


def _theil_sen(values: Sequence[float]) -> float:
    # All pairs are quadratic; beyond this many points, pairs half a series apart serve as well and are linear.
    count = len(values)
    if count > 60:
        half = count // 2
        return statistics.median((values[step + half] - values[step]) / half for step in range(count - half))
    return statistics.median((values[b] - values[a]) / (b - a) for a, b in combinations(range(count), 2))
