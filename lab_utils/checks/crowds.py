"""Distinguishes a target that limits how many of its users run at once from one whose users wait for each other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

from lab_utils.trial import Trial
from lab_utils.trial.faults import Gate

__all__ = ["limits_itself"]

T = TypeVar("T")


async def limits_itself(
    trial: Trial, gate: Gate, at_once: int, everybody: Iterable[T], run: Callable[[T], Coroutine[Any, Any, object]]
) -> bool:
    """Return whether any `at_once` of everybody can be inside the gate together, where all of them could not.

    Everybody is tried, in groups drawn from the seed. A limit on their number lets each group in, with any members; a
    lock that some of them share does not, if two who share it are in one group. One at a time is a lock, not a limit.
    The limit that was found is left out of the claim. A run that fails is a finding by itself; nothing is concluded
    from it.
    """
    if at_once < 2:
        return False
    drawn = list(everybody)
    trial.rng.shuffle(drawn)
    for start in range(0, len(drawn), at_once):
        group = drawn[start : start + at_once]
        gate.shut()
        running = asyncio.ensure_future(trial.waiting.together(map(run, group)))
        inside = await trial.waiting.until(lambda group=group: gate.inside >= len(group))  # type: ignore[misc]
        gate.open()
        failed = [answer for answer in await running if isinstance(answer, BaseException)]
        if failed:
            sentence = f"{len(failed)} of {len(group)} runs that were begun at once failed, with {failed[0]!r}"
            trial.find("failed-operation", sentence, *trial.history[-2:], repr(failed[0]))
            return True
        if not inside:
            return False
    trial.leave_out(f"that more than {at_once} runs are under way at once: the target runs no more, for any users")
    return True
