"""Lives short histories of fresh targets on a deterministic loop, whose clock is the lab's own, and judges them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from lab_utils.checks.isolation.logged import recorded_logs
from lab_utils.interleavings import Missing, NotExplorable, Stage, run_schedule
from lab_utils.target import Bounds, Capability, Command, Handle, NotSupported, Target
from lab_utils.trial import Trial
from lab_utils.values.verdict import Finding, Verdict

__all__ = ["BEGINS_S", "Histories", "do", "judge_histories", "live_all"]

Histories = tuple[tuple[str, frozenset[Capability], Callable[[Stage, Target], Coroutine[Any, Any, None]]], ...]
"""Of each: the attempt, in words; the capabilities that it needs; and its history."""

BEGINS_S = 1.0
"""Seconds of the loop's own clock within which a run begins: before it a target may wait, such as for a network."""
_MOST_STEPS = 80_000
"""Steps of the loop after which a history counts as one that never ends. A registry that looks for idle sessions every
two milliseconds takes a thousand of them a second."""


async def judge_histories(trial: Trial, histories: Histories, what: str, *, idle_s: float | None = None) -> int:
    """Live the histories in a thread of its own, and judge them; return how many could be lived. Those that could not
    are named as left out. `idle_s`: after so many seconds an idle session is due, where the target has IDLE_END."""

    def live() -> tuple[list[Finding], list[str], int]:
        return live_all(trial.make_target, trial.took, histories, idle_s=idle_s)

    # A target's log of the errors planted here reaches no handler: other checks judge it.
    with recorded_logs():
        try:
            findings, notes, done = await asyncio.get_running_loop().run_in_executor(None, live)
        except Missing as missing:
            trial.judge(Verdict.unknown(f"no history was lived: {missing}"))
            return 0
    for note in notes:
        trial.leave_out(note)
    if done or findings:
        trial.judge(Verdict.of(findings, done, what))
    return done


def live_all(
    make: Callable[[], Target],
    took: Callable[[float], None],
    histories: Histories,
    *,
    idle_s: float | None = None,
) -> tuple[list[Finding], list[str], int]:
    """Return the findings, what was left out, and how many histories were lived."""
    capabilities = make().capabilities
    findings: list[Finding] = []
    notes: list[str] = []
    done = 0
    for words, needs, part in histories:
        if lacks := sorted(one for one in needs if one not in capabilities):
            notes.append(f"{words} (the target lacks: {', '.join(lacks)})")
            continue

        async def work(stage: Stage, part: Any = part, words: str = words) -> None:
            target = make()
            if idle_s is not None and Capability.IDLE_END in capabilities:
                target.limit(Bounds(idle_s=idle_s))
            try:
                await part(stage, target)
            except NotSupported:
                raise
            except Exception as error:
                stage.require_explorable(error)
                stage.find("failed-operation", f"{words}: {type(error).__name__}: {error}")
            await target.stop()

        began = time.perf_counter()
        try:
            problems = run_schedule(work, most_steps=_MOST_STEPS).problems
        except (NotExplorable, NotSupported) as impossible:
            notes.append(f"{words}: {impossible}")
            continue
        # A history counts as one operation: within it all clocks are simulated.
        took(time.perf_counter() - began)
        done += 1
        # One cause, one finding of each name; a call that fails in all histories fails for one reason.
        known = {finding.anomaly for finding in findings} & {"failed-operation"}
        first = {problem.anomaly: problem for problem in reversed(problems) if problem.anomaly not in known}
        findings += (Finding(one.anomaly, one.sentence, (words,)) for one in first.values())
    return findings, notes, done


def do(target: Target, handle: Handle, action: str, /, **arguments: Any) -> Awaitable[Any]:
    """Run the agent once."""
    return target.run(handle, Command(action, arguments))
