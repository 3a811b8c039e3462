"""Judges what is left when everything should have been given back, and whether a long run grows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from lab_utils.verdict import Finding, Verdict

__all__ = ["Fit", "Survivor", "Trend", "all_freed", "counts_are_back", "no_steady_growth"]

_NAMES = {
    "tasks": "leaked-task",
    "timers": "leaked-timer",
    "threads": "leaked-thread",
    "descriptors": "leaked-descriptor",
    "connections": "leaked-connection",
}

_CYCLES_OF_DOUBT = 6
"""A floor is known to a few cycles' growth only: what fills and is emptied is read some cycles after it was emptied."""
_LEAST_BYTES = 4.0
"""The least growth a cycle that can be a leak: to keep one thing more in each takes a pointer's 8 bytes."""


@dataclass(frozen=True, slots=True)
class Survivor:
    """An object that should be gone: what it is, whether the cyclic collector frees it, and what holds it."""

    label: str
    in_cycle: bool
    holders: str


def counts_are_back(
    before: Mapping[str, int], after: Mapping[str, int], made: int, explained: Mapping[str, Sequence[str]] | None = None
) -> Verdict:
    """Judge that of nothing there is more than before. `made`: how many objects the work had made in between.

    Kinds are `tasks`, `timers`, `threads`, `descriptors`, `connections`, and names of types. Fewer than before is no
    finding: what goes by itself was never leaked. `explained`: readable lines to show for a kind.
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

    One that only the cyclic collector frees is told apart: it is freed late, at a time that nobody chose.
    """
    findings = []
    for in_cycle, anomaly, how in (
        (False, "retained-object", "still alive"),
        (True, "reference-cycle", "freed by the cyclic collector only, for they are in a cycle"),
    ):
        left = [survivor for survivor in survivors if survivor.in_cycle is in_cycle]
        if left:
            sentence = f"{len(left)} of {watched} objects of users who left are {how}"
            witness = tuple(f"{survivor.label}: {survivor.holders}" for survivor in left[:5])
            findings.append(Finding(anomaly, sentence, witness))
    return Verdict.of(findings, watched, "objects watched, all freed by reference counting with the collector off")


@dataclass(frozen=True, slots=True)
class Fit:
    """One series of a quantity: how many cycles, its growth a cycle with a 95% confidence interval, and its lowest
    reading."""

    cycles: int
    slope: float
    low: float
    high: float
    floor: float

    def __str__(self) -> str:
        interval = f"95%: {self.low:.4g} to {self.high:.4g}"
        return f"{self.cycles} cycles, {self.slope:.4g} a cycle ({interval}), never below {self.floor:,.0f}"


@dataclass(frozen=True, slots=True)
class Trend:
    """The growth of one quantity, from series measured one after another."""

    what: str
    unit: str
    fits: tuple[Fit, ...]

    @property
    def steady_growth(self) -> float:
        """The growth a cycle that all series agree on; 0 if they do not.

        They agree if the interval of each lies above zero, and each one's lowest reading above that of the one before
        by more than a few cycles' growth. For a 95% interval is wrong once in twenty times; a single step (a table that
        doubles) falls into one series; and what fills and is emptied in turn comes back to its floor.
        """
        growth = max(0.0, min((fit.low for fit in self.fits), default=0.0))
        steepest = max((fit.high for fit in self.fits), default=0.0)
        for before, after in pairwise(self.fits):
            growth = min(growth, (after.floor - before.floor) / before.cycles)
            if after.floor - before.floor <= min(_CYCLES_OF_DOUBT, before.cycles / 4) * steepest:
                return 0.0
        return growth if self.unit != "bytes" or growth >= _LEAST_BYTES else 0.0

    def __str__(self) -> str:
        if self.steady_growth > 0:
            return f"{self.what} grows by {self.steady_growth:.4g} {self.unit} a cycle or more"
        if not self.fits:
            return f"{self.what} was not measured"
        last = self.fits[-1]
        if last.low > 0:
            return f"{self.what} comes back to its floor of {last.floor:,.0f} {self.unit}"
        return f"{self.what} is flat within {max(abs(last.low), abs(last.high)):.4g} {self.unit} a cycle (95%)"


def no_steady_growth(trends: Sequence[Trend], sites: Sequence[str] = ()) -> Verdict:
    """Judge that nothing grows, as `Trend.steady_growth` has it. `sites`: lines of code that hold more than before."""
    findings = [
        Finding(
            "memory-growth" if trend.unit == "bytes" else "object-growth",
            f"{trend}, in each of {len(trend.fits)} series",
            (*(f"series {number}: {fit}" for number, fit in enumerate(trend.fits, 1)), *sites),
        )
        for trend in trends
        if trend.steady_growth > 0
    ]
    cycles = max((sum(fit.cycles for fit in trend.fits) for trend in trends), default=0)
    return Verdict.of(findings, cycles, f"cycles measured: {'; '.join(map(str, trends))}")
