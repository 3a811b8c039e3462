"""Says a value in the words that people read."""

from __future__ import annotations

import html
import math
import re

from lab_utils.values.result import Budget

__all__ = ["breakable", "budget_of", "number", "quantity"]


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
    """A value with its unit, as people read it: `227.4 kB` for 227,421 bytes, `100%` for a share of 1."""
    if unit == "share" and math.isfinite(value):
        return f"{number(value * 100)}%"
    of, slash, per = unit.partition("/")
    if of == "bytes" and math.isfinite(value):
        for size, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
            if abs(value) >= size:
                return f"{value / size:.4g} {name}{slash}{per}"
    return f"{number(value)}%" if unit == "%" else f"{number(value)} {unit}".strip()


def budget_of(budget: Budget | None, unit: str) -> str:
    """A budget in the same words as its measurement: `< 50 MB`."""
    return f"{budget.comparison} {quantity(budget.limit, unit)}" if budget else ""


def breakable(name: str) -> str:
    """A name of a check or of a registry, as HTML that breaks a line between its words and nowhere else."""
    return re.sub(r"_|(?<=[a-z])(?=[A-Z])", r"\g<0><wbr>", html.escape(name))
