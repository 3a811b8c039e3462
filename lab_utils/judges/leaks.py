"""Judges the objects that remain when everything should have been given back, and whether a long run grows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from lab_utils.values.quantities import quantity
from lab_utils.values.verdict import Finding, Verdict

__all__ = [
    "Fit",
    "Survivor",
    "Trend",
    "all_freed",
    "counts_are_back",
    "is_decided",
    "no_steady_growth",
    "repeated_growth",
]

_NAMES = {
    "tasks": "leaked-task",
    "timers": "leaked-timer",
    "handles": "leaked-handle",
    "threads": "leaked-thread",
    "descriptors": "leaked-descriptor",
    "sockets": "leaked-socket",
    "connections": "leaked-connection",
}

_CYCLES_OF_DOUBT = 6
"""A floor is known to a few cycles' growth only: a buffer that fills and empties is read some cycles after it was
emptied."""
_TIGHT = {"bytes": 4.0, "objects": 0.1}
"""The least growth a cycle that counts as a leak. Keeping one thing more in each cycle takes a pointer's 8 bytes, so
half of that is one thing in every second cycle; for exact counts, one in every tenth."""


_LAST = 3
"""Series that are judged: growth in the ones before these may have been the filling of caches."""
_SETTLES = 0.5
"""The part of its growth that a quantity may keep from the first of these series to the last, and still settles."""


@dataclass(frozen=True, slots=True)
class Survivor:
    """An object that should be gone: its description, whether the cyclic collector frees it, and its holders, "" if
    nobody looked for them."""

    label: str
    in_cycle: bool
    holders: str


def counts_are_back(
    before: Mapping[str, int], after: Mapping[str, int], made: int, explained: Mapping[str, Sequence[str]] | None = None
) -> Verdict:
    """Judge that no kind of object is more numerous than before. `made`: how many objects the work had made in between.

    Kinds are `tasks`, `timers`, `handles`, `threads`, `descriptors`, `sockets`, `connections`, and names of types.
    Fewer than before is not a finding: an object that goes by itself was never leaked. `explained`: readable lines to
    show for a kind.
    """
    findings = []
    for kind in sorted({*before, *after}):
        had, has = before.get(kind, 0), after.get(kind, 0)
        if has > had:
            sentence = f"{kind}: {has} are left where {had} were before, {has - had} too many"
            witness = (f"before: {had}", f"after: {has}", *(explained or {}).get(kind, ()))
            findings.append(Finding(_NAMES.get(kind, "retained-object"), sentence, witness))
    return Verdict.of(findings, made, "objects, tasks and handles made, and every count back at its baseline")


def all_freed(watched: int, survivors: Sequence[Survivor]) -> Verdict:
    """Judge that every watched object is gone, by reference counting alone.

    One that only the cyclic collector frees is reported separately: it is freed late, at an uncontrolled time.
    """
    findings = []
    for in_cycle, anomaly, how in (
        (False, "retained-object", "still alive"),
        (True, "reference-cycle", "freed by the cyclic collector only, for they are in a cycle"),
    ):
        left = [survivor for survivor in survivors if survivor.in_cycle is in_cycle]
        if left:
            sentence = f"{len(left)} of {watched} objects of users who left are {how}"
            witness = tuple(f"{survivor.label}: {survivor.holders}" for survivor in left[:5] if survivor.holders)
            findings.append(Finding(anomaly, sentence, witness))
    return Verdict.of(findings, watched, "objects watched, all freed by reference counting with the collector off")


def is_decided(unit: str, low: float, high: float) -> bool:
    """True if an interval of the growth a cycle is tight enough: more cycles would add nothing that matters.

    It excludes the smallest leak that matters (4 bytes, 0.1 objects a cycle), or it lies above zero, and in bytes not
    below that leak.
    """
    return high < _TIGHT[unit] or (low >= _TIGHT[unit] if unit == "bytes" else low > 0)


def repeated_growth(readings: Sequence[float]) -> float:
    """The growth from the first reading to the last, with the largest step counted as if it were the second largest.

    A leak comes again, so its largest step has another beside it. A step that came once is no growth: the interpreter
    replaces a table of its own by a larger one, or a module is imported at its first use.
    """
    steps = sorted(after - before for before, after in pairwise(readings))
    return math.fsum(steps) if len(steps) < 2 else math.fsum([*steps[:-1], steps[-2]])


@dataclass(frozen=True, slots=True)
class Fit:
    """One series of a quantity: over how many cycles, its growth a cycle with a 95% confidence interval, and its lowest
    reading."""

    cycles: int
    slope: float
    low: float
    high: float
    floor: float

    @property
    def margin(self) -> float:
        """How far from the slope the interval reaches."""
        return max(self.high - self.slope, self.slope - self.low)

    def __str__(self) -> str:
        interval = f"95%: {self.low:.4g} to {self.high:.4g}"
        return f"{self.cycles} cycles, {self.slope:.4g} a cycle ({interval}), never below {self.floor:,.0f}"


@dataclass(frozen=True, slots=True)
class Trend:
    """The growth of one quantity, in "bytes" or "objects", from series measured one after another.

    One that does not decide is judged for its words alone: memory of the process is kept by the allocator, and taken
    by whatever else the process does.
    """

    what: str
    unit: str
    fits: tuple[Fit, ...]
    decides: bool = True

    @property
    def steady_growth(self) -> float:
        """The growth a cycle that all series agree on; 0 if they do not.

        They agree if the interval of each lies above zero, and each one's lowest reading above that of the one before
        by more than a few cycles' growth. The reasons: a 95% interval is wrong once in twenty times; a single step (a
        table that doubles) falls into one series; and a buffer that fills and empties in turn comes back to its floor.
        """
        if self.settles:
            return 0.0
        growth = max(0.0, min((fit.low for fit in self.fits[-_LAST:]), default=0.0))
        for before, after in pairwise(self.fits[-_LAST:]):
            growth = min(growth, (after.floor - before.floor) / before.cycles)
            if after.floor - before.floor <= self._doubt(before):
                return 0.0
        return growth if self.unit != "bytes" or growth >= _TIGHT["bytes"] else 0.0

    @property
    def settles(self) -> bool:
        """True if it grows less and less, as a cache that fills: a leak does not decay."""
        last = self.fits[-_LAST:]
        return len(last) == _LAST and last[-1].slope <= _SETTLES * last[0].low and last[0].low > 0

    @property
    def is_settling(self) -> bool:
        """True if it settles and has not come to rest yet."""
        return self.settles and not self._is_flat

    @property
    def is_open(self) -> bool:
        """True if the series show no growth and cannot exclude it either: their intervals are too wide."""
        return bool(self.fits) and not (self.steady_growth > 0 or self._is_flat or self._came_back or self.settles)

    @property
    def _is_flat(self) -> bool:
        return self.fits[-1].high < _TIGHT[self.unit]

    @property
    def _came_back(self) -> bool:
        """A quantity that fills and empties: a later series goes down as far as one before it."""
        rises = all(fit.low > 0 for fit in self.fits[-_LAST:])
        for before, after in pairwise(self.fits[-_LAST:]):
            allowed = _TIGHT[self.unit] * before.cycles
            if after.floor - before.floor <= (max(allowed, self._doubt(before)) if rises else allowed):
                return True
        return False

    def _doubt(self, before: Fit) -> float:
        # The least of the intervals: a step that falls into one series widens its own alone.
        return min(_CYCLES_OF_DOUBT, before.cycles / 4) * min(fit.high for fit in self.fits[-_LAST:])

    def __str__(self) -> str:
        if not self.fits:
            return f"{self.what} was not measured"
        # The first series is the longest. It alone may have grown by chance; the last one shows the outcome.
        first, last = self.fits[-_LAST:][0], self.fits[-1]
        if self.steady_growth > 0:
            alone = "" if self.decides else ", which alone decides nothing"
            return f"{self.what} grows by {_within(first.slope, first.margin, self.unit)} a cycle (95%){alone}"
        if last.high < 0:
            return f"{self.what} shrinks by {_within(-last.slope, last.margin, self.unit)} a cycle (95%)"
        if self.is_settling:
            return f"{self.what} settles: from {first.slope:.4g} {self.unit} a cycle to {last.slope:.4g}"
        if self._came_back and not self._is_flat:
            return f"{self.what} comes back to its floor of {quantity(last.floor, self.unit)}"
        within = f"flat within ±{quantity(max(abs(last.low), abs(last.high)), self.unit)} a cycle (95%)"
        if self.decides and self.is_open:
            cycles = sum(fit.cycles for fit in self.fits)
            tight = f"{quantity(_TIGHT[self.unit], self.unit)} would exclude a leak"
            return f"{self.what} is no more than {within} after {cycles} cycles; {tight}"
        return f"{self.what} is {within}"


def no_steady_growth(trends: Sequence[Trend], explained: Sequence[str] = ()) -> Verdict:
    """Judge that nothing grows, as `Trend.steady_growth` has it; UNKNOWN if that cannot be excluded either.

    Trends that do not decide are only reported. `explained`: the types with more objects than before, and the lines of
    code that hold more memory.
    """
    deciding = [trend for trend in trends if trend.decides]
    others = [str(trend) for trend in trends if not trend.decides]
    findings = [
        Finding(
            "memory-growth" if trend.unit == "bytes" else "object-growth",
            f"{trend}, in each of {min(_LAST, len(trend.fits))} series",
            (*(f"series {number}: {fit}" for number, fit in enumerate(trend.fits, 1)), *others, *explained),
        )
        for trend in deciding
        if trend.steady_growth > 0
    ]
    cycles = max((sum(fit.cycles for fit in trend.fits) for trend in deciding), default=0)
    said = f"cycles measured: {'; '.join(map(str, trends))}"
    if not findings and any(trend.is_open for trend in deciding):
        return Verdict.unknown(f"{cycles} {said}")
    return Verdict.of(findings, cycles, said)


def _within(value: float, margin: float, unit: str) -> str:
    """`100 ± 7 bytes`, or where the two have different prefixes `1.2 kB ± 7 bytes`."""
    amount, doubt = quantity(value, unit), quantity(margin, unit)
    digits, _, name = amount.rpartition(" ")
    return f"{digits if doubt.endswith(f' {name}') else amount} ± {doubt}"
