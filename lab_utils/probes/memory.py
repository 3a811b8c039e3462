"""Measures memory: the process's own and resident, traced bytes, and the slope of a series with its interval."""

from __future__ import annotations

import gc
import math
import random
import statistics
import sys
import threading
import tracemalloc
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from operator import itemgetter, sub, truediv
from pathlib import Path
from typing import Final

import psutil

__all__ = [
    "Memory",
    "Series",
    "Slope",
    "TracingEnded",
    "anonymous_now",
    "memory_now",
    "slope_of",
    "top_growth",
    "top_types",
    "traced",
    "traced_bytes",
]

_MOST_PAIRS = 400

Pairs = list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of this process: `rss` resident, `uss` resident and its own alone, `anonymous` as of `anonymous_now`."""

    rss: int
    uss: int
    anonymous: int


def memory_now() -> Memory:
    """Measure this process now; takes about a millisecond for USS."""
    full = psutil.Process().memory_full_info()
    return Memory(rss=full.rss, uss=full.uss, anonymous=anonymous_now())


def anonymous_now() -> int:
    """Bytes of this process that are resident and backed by no file: its heap, its stacks, its own mappings.

    For slopes, in place of USS. USS counts a page of the interpreter's own file only while nobody else has it mapped,
    so it falls by 10 MB when somebody on the machine starts another Python, and rises again when that ends. It takes
    some microseconds where USS takes a millisecond. Memory shared on purpose counts in neither. Not on Linux: USS.
    """
    process = psutil.Process()
    if not psutil.LINUX:
        return int(process.memory_full_info().uss)
    found = process.memory_info()
    return int(found.rss - found.shared)


class TracingEnded(RuntimeError):
    """The program under test ended the tracing of allocations, or cleared the traces: its memory cannot be measured."""


_proofs: list[bytearray] = []
"""Objects whose traces show that allocations are still traced, and that no trace was cleared."""


@contextmanager
def traced() -> Iterator[None]:
    """Trace allocations, so that `traced_bytes` returns the bytes that Python objects hold."""
    was_tracing = tracemalloc.is_tracing()
    if not was_tracing:
        tracemalloc.start()
    _proofs.append(bytearray(8))
    try:
        yield
    finally:
        _proofs.pop()
        if not was_tracing:
            tracemalloc.stop()


class Series:
    """Readings of one quantity with their times, kept in memory set aside beforehand: taking one allocates nothing that
    stays, and so does not grow the measured quantity."""

    def __init__(self, capacity: int) -> None:
        self._values = array("d", bytes(8 * capacity))
        self._times = array("d", bytes(8 * capacity))
        self._count = 0

    def take(self, value: float, at_s: float) -> None:
        """Add a reading. Raises `IndexError` beyond the capacity."""
        self._values[self._count] = value
        self._times[self._count] = at_s
        self._count += 1

    @property
    def values(self) -> list[float]:
        """The readings, in their order."""
        return list(self._values[: self._count])

    @property
    def times(self) -> list[float]:
        """When each was taken, in seconds."""
        return list(self._times[: self._count])

    def __len__(self) -> int:
        return self._count


ALLOCATING: Final = threading.Lock()
"""Another thread of the lab's own holds it while it has something allocated, which a reading would count."""


def traced_bytes() -> int:
    """Bytes that Python objects hold now, once nobody has `ALLOCATING`; 0 outside `traced()`. Raises `TracingEnded`.

    The interpreter's free lists are emptied first: they keep up to 2,000 dead tuples of each small size and the like,
    and fill so slowly that they look like a leak. No object is collected by that, in a cycle or not. So is its cache of
    attributes: it holds up to 4,096 names, also those that code in C made for one look-up.
    """
    with ALLOCATING:
        sys._clear_type_cache()
        # Frozen objects are left alone by a collection, so all that this one does is to empty the free lists.
        gc.freeze()
        gc.collect()
        gc.unfreeze()
        if _proofs and tracemalloc.get_object_traceback(_proofs[-1]) is None:
            raise TracingEnded(
                "the target called tracemalloc.stop() or clear_traces(), and its memory is measured by tracemalloc: "
                "leave out these calls while a check runs"
            )
        return tracemalloc.get_traced_memory()[0]


def top_growth(
    before: tracemalloc.Snapshot, after: tracemalloc.Snapshot, count: int = 3, leave_out: Sequence[str] = ()
) -> list[str]:
    """The lines that hold more than before, most first, as "package/module.py:12: +640 bytes in 10 blocks".

    `leave_out`: parts of paths; files that contain one are left out.
    """
    found = []
    for difference in after.compare_to(before, "lineno"):
        frame = difference.traceback[0]
        path = Path(frame.filename).as_posix()
        if difference.size_diff > 0 and not any(part in path for part in ("tracemalloc", *leave_out)):
            place = "/".join(Path(frame.filename).parts[-3:])
            found.append(
                f"{place}:{frame.lineno}: {difference.size_diff:+,} bytes in {difference.count_diff:+,} blocks"
            )
    return found[:count]


def top_types(before: Mapping[str, int], after: Mapping[str, int], count: int = 3) -> list[str]:
    """The types with more objects than before, most first, as "+5 builtins.tuple, 910 in all".

    Of objects that the cyclic collector knows of, which a text or a number is not.
    """
    more = {name: has - before.get(name, 0) for name, has in after.items()}
    grown = sorted(((by, name) for name, by in more.items() if by > 0), key=lambda pair: (-pair[0], pair[1]))
    return [f"{by:+,} {name}, {after[name]:,} in all" for by, name in grown[:count]]


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
            return f"flat within ±{max(abs(self.low), abs(self.high)):.4g} a cycle (95%)"
        how = "grows" if self.low > 0 else "shrinks"
        margin = max(self.high - self.per_step, self.per_step - self.low)
        return f"{how} by {abs(self.per_step):.4g} ± {margin:.4g} a cycle (95%)"


def slope_of(values: Sequence[float], seed: int, resamples: int = 400) -> Slope:
    """The Theil-Sen slope of a series, with a 95% confidence interval.

    The median of the slopes of all pairs (Theil 1950, Sen 1968) ignores up to 29% of outliers, which a garbage
    collection or an allocator's step is. The interval is the wider of two: Sen's own, which holds for few readings, and
    one that resamples the residuals in blocks (Künsch 1989), for successive readings of memory are not independent.
    Raises `ValueError` for fewer than four values.
    """
    count = len(values)
    if count < 4:
        raise ValueError(f"{count} values give no slope worth an interval; measure at least 4")
    # Kept for this call only: a cache would be memory that grows while memory is being measured.
    pairs = _pairs(count)
    theil_sen = _theil_sen(pairs)
    per_step = theil_sen(values)
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
        slopes.append(theil_sen([middle + per_step * step + drawn[step] for step in range(count)]))
    slopes.sort()
    low, high = _sen_interval(values, pairs)
    return Slope(per_step, min(low, slopes[int(0.025 * resamples)]), max(high, slopes[int(0.975 * resamples) - 1]))


def _sen_interval(values: Sequence[float], pairs: Pairs) -> tuple[float, float]:
    """Sen's own 95% interval, from the distribution of Kendall's statistic."""
    count = len(values)
    slopes = sorted((values[b] - values[a]) / (b - a) for a, b in pairs)
    spread = 1.96 * math.sqrt(count * (count - 1) * (2 * count + 5) / 18) / math.comb(count, 2)
    skipped = int(len(slopes) * max(0.0, 1 - spread) / 2)
    return slopes[skipped], slopes[-1 - skipped]


def _pairs(count: int) -> Pairs:
    # All pairs are quadratic; of a long series a fixed sample of them, of every distance, serves as well. Pairs of one
    # distance would not: a single step in the middle of the series lies between every two that are half of it apart.
    if count <= 28:
        return list(combinations(range(count), 2))
    rng = random.Random(count)
    return [(min(pair), max(pair)) for pair in (rng.sample(range(count), 2) for _ in range(_MOST_PAIRS))]


def _theil_sen(pairs: Pairs) -> Callable[[Sequence[float]], float]:
    """The estimator over these pairs. Hundreds of resamples go through it, so nothing in it is done in Python."""
    first, second = itemgetter(*(a for a, _ in pairs)), itemgetter(*(b for _, b in pairs))
    distances = [b - a for a, b in pairs]
    return lambda values: statistics.median(map(truediv, map(sub, second(values), first(values)), distances))
