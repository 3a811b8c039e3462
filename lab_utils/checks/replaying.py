"""Reads the name of a workload in a replay token: which of the checks' workloads can be run again."""

from __future__ import annotations

from collections.abc import Callable

from lab_utils.checks.isolation import exploration
from lab_utils.checks.isolation.cuts import Cut
from lab_utils.checks.registration import callers
from lab_utils.checks.registration.cores import Core
from lab_utils.interleavings import Workload
from lab_utils.target import Target

__all__ = ["replayable"]


def replayable(name: str) -> Callable[[Callable[[], Target], int], Workload]:
    """Return the maker of the workload of this name for a target and a seed. Raises `UsageError` for an unknown
    name."""
    if name.startswith("interruption/"):
        cut = Cut.parse(name)
        return lambda make, seed: exploration.workload_of(cut, make, seed)
    core = Core.parse(name)
    return lambda make, seed: callers.workload_of(core, make, seed)
