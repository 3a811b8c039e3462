"""Ends a part of a check early on a slow target, and not on a busy machine."""

from __future__ import annotations

from lab_utils.interleavings.threads import OwnTime
from lab_utils.trial import loops

__all__ = ["Allowance"]


class Allowance:
    """Seconds for steps of one kind. Call `is_over` between two steps.

    The time in which this thread was in line for a processor does not count, and a step that only waits counts for a
    tenth of the whole at most, for the process may have been stopped meanwhile: so ten such steps are always allowed.
    """

    def __init__(self, seconds: float) -> None:
        self._all_s, self._own = seconds, OwnTime(seconds / loops.SLICES)

    def is_over(self) -> bool:
        return self._own.seconds() >= self._all_s
