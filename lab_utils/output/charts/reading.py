"""Shared readers of frames for figures: one check's rows, the verdicts of the checks, and the unit of a duration."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from lab_utils.values.quantities import counted

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["busiest", "judged", "scaled"]


def busiest(frame: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The rows of one check, the one with the most of them, and a remark where others were left out."""
    counts = frame["check"].value_counts()
    if len(counts) <= 1:
        return frame, ""
    check = str(counts.index[0])
    return frame[frame["check"] == check], f"{check}; {counted(len(counts) - 1, 'other check')} not shown"


def judged(samples: pd.DataFrame, checks: Iterable[str]) -> tuple[str, str]:
    """How those of the checks ended that did not pass, as the frame of samples has it: an addition to a figure's claim,
    and a remark with the reasons. Both are empty where all passed.

    A figure shows some samples, and a verdict rests on more: the claim must not contradict it.
    """
    verdicts = samples.attrs.get("verdicts", {})
    known = {check: verdicts.get(check, "PASS") for check in dict.fromkeys(checks)}
    others = {check: verdict for check, verdict in known.items() if not verdict.startswith("PASS")}
    words = ", ".join(sorted({verdict.partition(":")[0] for verdict in others.values()}))
    return f"; verdict {words}" if words else "", "; ".join(f"{check}: {words}" for check, words in others.items())


def scaled(seconds: float) -> tuple[float, str]:
    """The factor and the unit in which a duration reads well."""
    for limit, factor, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms")):
        if seconds < limit:
            return factor, unit
    return 1.0, "s"
