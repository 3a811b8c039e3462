"""Formats values in words that people read."""

from __future__ import annotations

import math
import re
from typing import Final

__all__ = ["agreed", "counted", "moment", "number", "quantity"]

_PLURAL: Final = re.compile(r"^([a-z]+?)(ies|(?<=ss|sh|ch)es|(?<=[a-z]{2})(?<!s)s)\b")


def number(value: float) -> str:
    """A measured value as people read it: whole numbers in full, others to four digits; NaN as 'none'."""
    if math.isnan(value):
        return "none"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 10_000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def quantity(value: float, unit: str) -> str:
    """A value with its unit, as people read it: `227.4 kB` for 227,421 bytes, `1.366 s` for 1,366 ms, `100%` for a
    share of 1."""
    if unit == "share" and math.isfinite(value):
        return f"{number(value * 100)}%"
    of, slash, per = unit.partition("/")
    if of == "bytes" and math.isfinite(value):
        for size, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
            if abs(value) >= size:
                return f"{value / size:.4g} {name}{slash}{per}"
    if of == "ms" and math.isfinite(value) and abs(value) >= 1_000:
        return f"{value / 1_000:.4g} s{slash}{per}"
    return f"{number(value)}%" if unit == "%" else f"{number(value)} {agreed(value, unit)}".strip()


def agreed(value: float, things: str) -> str:
    """The words for things in the plural, or of one thing in the singular: `objects a cycle`, `object a cycle`."""
    return _PLURAL.sub(lambda found: found[1] + ("y" if found[2] == "ies" else ""), things) if value == 1 else things


def counted(count: int, word: str) -> str:
    """A number of things: `1 finding`, `2,300 findings`."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def moment(stamp: str) -> str:
    """A recorded point of time as people read it: `2026-01-02 03:04:05 UTC`."""
    return stamp.replace("T", " ").replace("+00:00", " UTC")
