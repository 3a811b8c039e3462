"""ExactSum: what `math.fsum` gives, of any number of values, in bounded memory."""

from __future__ import annotations

import math

__all__ = ["ExactSum"]


class ExactSum:
    """An SQL aggregate: correctly rounded, whatever the order of the rows. NULL values do not count.

    Guarantees: `finalize()` is `math.fsum` of all the values, exactly. At most `most` floats are held, 128 kB for the
    default: then those that are there become the few (at most 40 for any doubles, mostly two) that add up to the same
    without an error. Values are finite, and so are their sums; `OverflowError` where one is not.
    """

    __slots__ = ("_most", "_values")

    def __init__(self, most: int = 4_096) -> None:
        if most < 100:
            raise ValueError(f"most={most} floats could not hold every sum exactly; allow 100")
        self._values: list[float] = []
        self._most = most

    def step(self, value: float | None) -> None:
        if value is not None:
            values = self._values
            values.append(value)
            if len(values) >= self._most:
                self._values = _parts(values)

    def finalize(self) -> float:
        return math.fsum(self._values)

    def __len__(self) -> int:
        """How many floats are held."""
        return len(self._values)


def _parts(values: list[float]) -> list[float]:
    """The fewest floats with the same exact sum: each is the rounded sum of what the ones before it leave over."""
    parts = []
    while part := math.fsum(values):
        parts.append(part)
        # Twice as fast as adding one by one in Python: both the sum and its rest are taken at C speed.
        values.append(-part)
    return parts
