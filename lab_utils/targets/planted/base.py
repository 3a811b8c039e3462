"""A planted registry: a target wrong in exactly one way, and the anomaly that must be found on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lab_utils.target import Target

__all__ = ["Planted"]


@dataclass(frozen=True, slots=True)
class Planted:
    """One defect. `make` builds the target; a check has caught it when it finds one of `anomalies` by that name.

    `twin` is the target without the defect, on which the same check passes.
    """

    name: str
    defect: str
    anomalies: frozenset[str]
    make: Callable[[], Target]
    twin: str
