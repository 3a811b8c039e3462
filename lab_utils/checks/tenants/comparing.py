"""A comparison of histories on simulated loops, as a part of a check: its thread, its progress, its verdict."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, TypeVar

from lab_utils.checks.isolation.logged import recorded_logs
from lab_utils.target import Target
from lab_utils.trial import OutOfTime, Trial
from lab_utils.values.verdict import Finding, Verdict

__all__ = ["judge_compared"]


class _Compares(Protocol):
    findings: list[Finding]
    left_out: list[str]
    observations: int

    def whole(self) -> str:
        """Compare; return the name of a missing package, or ""."""
        ...


_C = TypeVar("_C", bound=_Compares)


async def judge_compared(
    trial: Trial, make: Callable[[Callable[[], Target], Callable[[float], None]], _C], beside: str
) -> _C:
    """Make a comparison for the trial's target and let it compare; judge by its findings, name what it left out, and
    return it. `beside`: whose neighbours are compared, in words."""

    def progress(part: float) -> None:
        if trial.is_out_of_time:
            # Its thread would keep the process from ending.
            raise OutOfTime("the comparison is given up")
        trial.progress(f"beside {beside}", part)
        trial.give_way()

    comparison = make(trial.make_target, progress)
    with recorded_logs():
        # On a loop of its own, so in a thread of its own; nothing of the trial runs meanwhile.
        missing = await asyncio.get_running_loop().run_in_executor(None, comparison.whole)
    if missing:
        trial.judge(Verdict.unknown(f"nobody was compared beside {beside}: {missing}"))
    for text in comparison.left_out:
        trial.leave_out(text)
    if comparison.observations:
        what = f"observations, the same beside {beside}"
        trial.judge(Verdict.of(comparison.findings, comparison.observations, what))
    return comparison
