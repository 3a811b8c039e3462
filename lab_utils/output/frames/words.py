"""Says a value in the words that people read."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

from lab_utils.values.quantities import quantity
from lab_utils.values.result import Budget, Measurement

__all__ = ["breakable", "budget_of", "by_value"]


def budget_of(budget: Budget | None, unit: str) -> str:
    """A budget in the same words as its measurement: `< 50 MB`."""
    return f"{budget.comparison} {quantity(budget.limit, unit)}" if budget else ""


def breakable(name: str) -> str:
    """A name of a check or of a registry, as HTML that breaks a line between its words and nowhere else."""
    return re.sub(r"_|(?<=[a-z])(?=[A-Z])", r"\g<0><wbr>", html.escape(name))


def by_value(measurements: Iterable[Measurement]) -> dict[tuple[str, str], list[Measurement]]:
    """Each metric with its value in words -> its measurements, of which there is one for each budget."""
    found: dict[tuple[str, str], list[Measurement]] = {}
    for one in measurements:
        found.setdefault((one.metric, quantity(one.value, one.unit)), []).append(one)
    return found
