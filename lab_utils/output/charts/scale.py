"""Maps values to places on an axis: linear, logarithmic, or linear up to a threshold and logarithmic beyond."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["Scale", "brief"]

_STEPS: Final = (1.0, 2.0, 2.5, 5.0, 10.0)
_THRESHOLD: Final = 10.0


@dataclass(frozen=True, slots=True)
class Scale:
    """An axis from `low` to `high`. `symlog` is linear up to 10 and logarithmic beyond; `log` begins above zero."""

    low: float
    high: float
    kind: Literal["linear", "log", "symlog"] = "linear"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"an axis from {self.low!r} to {self.high!r} has no length")
        if self.kind == "log" and self.low <= 0:
            raise ValueError(f"a logarithmic axis begins above zero, not at {self.low!r}")

    @classmethod
    def of(cls, values: Iterable[float], kind: Literal["linear", "log", "symlog"] = "linear") -> Scale:
        """An axis on which all these values have room; values that are not finite are left out."""
        known = [value for value in values if math.isfinite(value)] or [0.0]
        low, high = min(known), max(known)
        if kind == "log":
            low = min((value for value in known if value > 0), default=1.0)
            return cls(low, max(high, low * 10), kind)
        return cls(low, high if high > low else low + 1.0, kind)

    def at(self, value: float) -> float:
        """The place of a value: 0 at the low end, 1 at the high one. Values beyond an end stand at it."""
        if value != value:
            return 0.0
        value = min(max(value, self.low), self.high)
        low, high = self._bent(self.low), self._bent(self.high)
        return (self._bent(value) - low) / (high - low)

    def ticks(self, most: int, *, whole: bool = False) -> list[float]:
        """Round values inside the axis, at most so many; `whole`: none between two integers."""
        if self.kind == "linear":
            return _linear(self.low, self.high, most, whole)
        begin = 0 if self.kind == "symlog" else math.ceil(math.log10(self.low) - 1e-9)
        decades = [10.0**power for power in range(begin, math.floor(math.log10(self.high) + 1e-9) + 1)]
        if self.kind == "symlog":
            return [0.0, *_thinned([value for value in decades if value >= _THRESHOLD], most - 1)]
        if len(decades) * 3 <= most:
            fine = [step * 10.0**power for power in range(begin - 1, begin + len(decades)) for step in (1, 2, 5)]
            decades = [value for value in fine if self.low <= value <= self.high]
        return _thinned(decades, most) or _linear(self.low, self.high, most, whole)

    def _bent(self, value: float) -> float:
        if self.kind == "linear":
            return value
        if self.kind == "log":
            return math.log10(value)
        size = abs(value) / _THRESHOLD
        return math.copysign(size if size <= 1 else 1 + math.log10(size), value)


def brief(value: float) -> str:
    """A tick's value in few letters: `2.5`, `1,000`, `20k`, `3M`."""
    for limit, size, letter in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(value) >= limit:
            return f"{value / size:.4g}{letter}"
    if value == round(value):
        return f"{value:,.0f}"
    return f"{value:.4g}"


def _linear(low: float, high: float, most: int, whole: bool) -> list[float]:
    rough = (high - low) / max(most, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in _STEPS if power * factor >= rough * 0.999)
    if whole:
        step = float(max(1, math.ceil(step)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 12) + 0.0 for number in range(first, last + 1)]


def _thinned(values: list[float], most: int) -> list[float]:
    return values[:: max(1, -(-len(values) // max(most, 1)))]
