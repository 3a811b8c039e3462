"""Compares two runs: findings that are new, fixed or still there, and measurements that got worse beyond noise."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from lab_utils.values.digest import CheckDigest, Digest, FoundDigest, MeasuredDigest
from lab_utils.values.verdict import Outcome

__all__ = ["Change", "Comparison", "FindingChange", "MeasuredChange", "VerdictChange", "by_metric", "compare"]

_LEAST_EFFECT: Final = 0.05
"""A change by less than this share is not a regression, however exactly it was measured."""
_OF_BUDGET: Final = 0.01
"""Nor is one by less than this share of the budget."""
_ENOUGH_RUNS: Final = 3
_MOST_RUNS: Final = 20
_SPREAD: Final[Mapping[str, float]] = {"s": 0.7, "ms": 0.7, "bytes": 0.05, "bytecodes": 0.05}
"""Unit -> the standard deviation of the logarithm of a value from run to run, where no earlier runs show it. Times: a
machine may be twice as fast a minute later, and beside other work several times slower. Traced bytes, bytecodes: twenty
runs on two machines. Others are counts."""
_SPREAD_SHOWN: Final = 0.35
"""The same for memory of the process, which is shown and does not decide."""
_INTERVAL: Final = 1.96
_SLOPE: Final = "slope, of "
_LEAST_SLOPE: Final[Mapping[str, float]] = {"bytes/cycle": 4.0, "objects/cycle": 0.1}


class Change(StrEnum):
    """The change of a finding or a measurement."""

    NEW = "new"
    FIXED = "fixed"
    STILL = "still there"
    UNSEEN = "not looked for"
    """The check that had found it did not come to a verdict, or was not run."""
    WORSE = "worse"
    BETTER = "better"
    SAME = "same"


@dataclass(frozen=True, slots=True)
class FindingChange:
    """The findings of one fingerprint in both runs."""

    change: Change
    check: str
    found: FoundDigest
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class VerdictChange:
    """A check whose verdict has changed; "" where it was not run."""

    check: str
    before: str
    after: str

    @property
    def is_worse(self) -> bool:
        """A check that came to a verdict before and does not now. A FAIL is judged by its findings."""
        return self.before in (Outcome.PASS, Outcome.FAIL) and self.after == Outcome.UNKNOWN


@dataclass(frozen=True, slots=True)
class MeasuredChange:
    """One measurement in both runs. `ratio` is after / before, `low` and `high` its 95% interval; NaN where there is no
    ratio. `why`: where the interval comes from."""

    change: Change
    check: str
    metric: str
    unit: str
    before: float
    after: float
    ratio: float
    low: float
    high: float
    why: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """The changes from one run to another. `why_not`: the reason why measurements were not compared, or ""."""

    before: Digest
    after: Digest
    findings: tuple[FindingChange, ...]
    verdicts: tuple[VerdictChange, ...]
    measured: tuple[MeasuredChange, ...]
    why_not: str

    def of(self, change: Change) -> tuple[FindingChange, ...]:
        """The findings that changed so."""
        return tuple(one for one in self.findings if one.change is change)

    @property
    def regressions(self) -> tuple[MeasuredChange, ...]:
        """The measurements that got worse beyond noise."""
        return tuple(one for one in self.measured if one.change is Change.WORSE)

    @property
    def is_worse(self) -> bool:
        """Whether something is new, got worse, or no longer comes to a verdict."""
        return bool(self.of(Change.NEW) or self.regressions or any(one.is_worse for one in self.verdicts))


def compare(before: Digest, after: Digest, earlier: Iterable[Digest] = ()) -> Comparison:
    """Compare two runs. `earlier` runs, of those that are like `before`, show how much a measurement varies by itself.

    A measurement got worse if the whole 95% interval of its ratio lies beyond 5% on the side that its budget forbids,
    and the difference is more than 1% of the budget. Without a budget only time, memory and work can get worse.
    """
    had = {one.check: one for one in before.checks}
    has = {one.check: one for one in after.checks}
    names = list(dict.fromkeys([*has, *had]))
    findings = [change for name in names for change in _findings(name, had.get(name), has.get(name))]
    verdicts = [
        VerdictChange(name, old, new)
        for name in names
        if (old := _outcome(had.get(name))) != (new := _outcome(has.get(name)))
    ]
    why_not = "" if before.is_like(after) else "target, profile, parameters or Python differ"
    measured: list[MeasuredChange] = []
    if not why_not:
        runs = [one for one in earlier if one.is_like(before) and one.run_id != after.run_id][-_MOST_RUNS:]
        runs = runs if any(one.run_id == before.run_id for one in runs) else [*runs, before]
        known = _known_values(runs)
        for name in names:
            if name in had and name in has:
                measured += _measured(name, had[name], has[name], known)
    return Comparison(before, after, tuple(findings), tuple(verdicts), tuple(measured), why_not)


def _outcome(one: CheckDigest | None) -> str:
    return "" if one is None else one.outcome.value


def _findings(check: str, before: CheckDigest | None, after: CheckDigest | None) -> Iterable[FindingChange]:
    had = {one.fingerprint: one for one in before.found} if before else {}
    has = {one.fingerprint: one for one in after.found} if after else {}
    is_judged = after is not None and after.outcome in (Outcome.PASS, Outcome.FAIL)
    for fingerprint in dict.fromkeys([*has, *had]):
        old, new = had.get(fingerprint), has.get(fingerprint)
        if new is not None:
            change = Change.STILL if old else Change.NEW
        else:
            change = Change.FIXED if is_judged else Change.UNSEEN
        found = new or old
        assert found is not None
        yield FindingChange(change, check, found, old.count if old else 0, new.count if new else 0)


_Values = Mapping[tuple[str, str], Sequence[float]]


def _known_values(runs: Sequence[Digest]) -> _Values:
    values: dict[tuple[str, str], list[float]] = {}
    for run in runs:
        for check in run.checks:
            for metric, one in by_metric(check).items():
                if one.value is not None:
                    values.setdefault((check.check, metric), []).append(one.value)
    return values


def by_metric(check: CheckDigest) -> dict[str, MeasuredDigest]:
    """Each metric once, with the budget that decides, the lab's own before the one that was asked for."""
    found: dict[str, MeasuredDigest] = {}
    for one in sorted(check.measured, key=lambda one: (not one.decides, one.source != "lab")):
        found.setdefault(one.metric, one)
    return found


def _measured(check: str, before: CheckDigest, after: CheckDigest, known: _Values) -> Iterable[MeasuredChange]:
    had, has = by_metric(before), by_metric(after)
    for metric, new in has.items():
        old = had.get(metric)
        if old is None or old.value is None or new.value is None or ", at " in metric:
            continue
        if metric.startswith(_SLOPE) and (slope := _slope(check, metric, had, has)) is not None:
            yield slope
        elif not metric.startswith(_SLOPE):
            yield _change(check, metric, old.value, new.value, new, known.get((check, metric), (old.value,)))


def _slope(
    check: str, metric: str, had: Mapping[str, MeasuredDigest], has: Mapping[str, MeasuredDigest]
) -> MeasuredChange | None:
    """A slope has an interval of its own: it got worse if the two do not meet, by more than the difference that
    matters."""
    ends = [metric.replace("slope, of ", f"slope, at {end}, of ") for end in ("least", "most")]
    if any(end not in had or end not in has for end in ends):
        return None
    (had_low, had_high), (low, high) = ([side[end].value for end in ends] for side in (had, has))
    if had_low is None or had_high is None or low is None or high is None:
        return None
    unit, change = has[metric].unit, Change.SAME
    if "anonymous" not in metric:
        if low > had_high + _LEAST_SLOPE.get(unit, 0.0):
            change = Change.WORSE
        elif high < had_low - _LEAST_SLOPE.get(unit, 0.0):
            change = Change.BETTER
    before, after = had[metric].value or 0.0, has[metric].value or 0.0
    ratios = (after / before, low / before, high / before) if before > 0 else (math.nan, math.nan, math.nan)
    return MeasuredChange(change, check, metric, unit, before, after, *ratios, "the slopes' own intervals")


def _change(
    check: str, metric: str, before: float, after: float, about: MeasuredDigest, known: Sequence[float]
) -> MeasuredChange:
    usual = before if len(known) < _ENOUGH_RUNS else statistics.median(known)
    spread, why = _spread(about, known)
    ratio = low = high = math.nan
    if usual > 0 and after > 0:
        ratio = after / usual
        factor = math.exp(_INTERVAL * spread * math.sqrt(1 + 1 / max(1, len(known))))
        low, high = ratio / factor, ratio * factor
    change = Change.SAME
    direction = _direction(about)
    is_noticed = abs(after - usual) > _OF_BUDGET * abs(about.limit)
    if direction and is_noticed and after != usual:
        up = low > 1 + _LEAST_EFFECT if not math.isnan(ratio) else after > usual
        down = high < 1 - _LEAST_EFFECT if not math.isnan(ratio) else after < usual
        # For a count, every difference counts.
        if spread == 0:
            up, down = after > usual, after < usual
        if up or down:
            change = Change.WORSE if up == (direction > 0) else Change.BETTER
    return MeasuredChange(change, check, metric, about.unit, usual, after, ratio, low, high, why)


def _direction(about: MeasuredDigest) -> int:
    """1 if more is worse, -1 if less is worse, 0 if neither is known."""
    if about.comparison in ("<", "<=") or (about.comparison == "==" and about.limit == 0):
        return 1
    if about.comparison:
        return -1
    return 1 if about.unit in _SPREAD else 0


def _spread(about: MeasuredDigest, known: Sequence[float]) -> tuple[float, str]:
    usual = _SPREAD.get(about.unit, 0.0)
    if about.unit == "bytes" and not about.decides:
        usual = _SPREAD_SHOWN
    if usual and len(known) >= _ENOUGH_RUNS and all(value > 0 for value in known):
        # Few runs may agree by chance: never less than half of the usual variation.
        seen = statistics.stdev(math.log(value) for value in known)
        return max(seen, usual / 2), f"{len(known)} earlier runs"
    return usual, "the usual variation of such a value" if usual else "counted exactly"
