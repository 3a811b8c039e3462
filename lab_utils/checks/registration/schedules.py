"""The part of the registration checks that explores schedules: small cores, and callers cancelled at every await."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lab_utils.checks.registration.callers import workload_of
from lab_utils.checks.registration.cores import Core, points_of
from lab_utils.interleavings import (
    Explored,
    Missing,
    NotExplorable,
    Token,
    explore,
    in_words,
    run_schedule,
    suspensions_of,
)
from lab_utils.interleavings.threads import OwnTime
from lab_utils.target import Capability, NotSupported, Target
from lab_utils.trial import OutOfTime, Trial
from lab_utils.values.quantities import counted
from lab_utils.values.verdict import REPLAY, Finding, Outcome, Verdict

__all__ = ["explore_schedules"]

_ENOUGH = 3
"""Failing cores after which the exploration ends: more of them rarely add anything."""
_MOST = 4_000
"""Schedules of one core at most; beyond it the report says that not all were run."""
_SEEDED = {0: 0, 1: 2, 2: 4}
"""Random schedules of each core, and as many priority-based ones, by the deviations that are exhausted."""
_SEEDED_BEYOND = 32
_OWN_S = 30.0
"""Seconds (`OwnTime`) for all cores of a slow target, up to two deviations; ten times as many for each more. One
core may take a quarter of what is left, and once nothing is left, each that is begun one schedule."""


@dataclass
class _Tally:
    """The exploration so far."""

    bounded: int = 0
    seeded: int = 0
    cores: int = 0
    points: int = 0
    cancelled: int = 0
    exhausted: bool = True
    cancelled_exhausted: bool = True
    findings: list[Finding] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def is_enough(self) -> bool:
        return len(self.findings) >= _ENOUGH


async def explore_schedules(trial: Trial, cores: Sequence[Core], cancelled: Sequence[Core]) -> None:
    """Explore the cores within the bound of the parameter `deviations`, and cancel the watched callers of `cancelled`.

    Adds the findings, each with its least interleaving and a token, the measurements, and a note that states the bound.
    Where the exploring package is not installed the verdict is UNKNOWN, for the schedules are the main evidence; calls
    that cannot be explored on this target are left out of the claim.
    A trial that has found something already is not explored, for its plain runs say enough: each core is run once, in
    asyncio's own order, for a finding that can be replayed.
    """
    deviations = int(trial.parameters["deviations"])
    if any(verdict.outcome is Outcome.FAIL for verdict in trial.verdicts):
        trial.note("Schedules were not explored, each core was run once: the plain runs have findings already.")
        deviations, cancelled = 0, ()
    exploration = _Schedules(trial.make_target, trial.target_name, trial.seed, deviations)

    def progress(part: float) -> None:
        if trial.is_out_of_time:
            # Its thread would keep the process from ending.
            raise OutOfTime("the exploration is given up")
        trial.progress("exploring schedules", 0.7 + 0.3 * part)
        trial.give_way()

    # On a loop of its own, so in a thread of its own; nothing of the trial runs meanwhile.
    tally, missing = await asyncio.get_running_loop().run_in_executor(None, exploration.of, cores, cancelled, progress)
    if missing:
        trial.judge(Verdict.unknown(f"schedules were not explored: {missing}"))
    for text in dict.fromkeys(tally.left_out):
        trial.leave_out(text)
    if not tally.cores and not tally.cancelled:
        return
    trial.judge(Verdict.of(tally.findings, tally.bounded + tally.seeded + tally.cancelled, "schedules of small cores"))
    trial.measure("schedules explored", tally.bounded + tally.seeded, "schedules")
    trial.measure("suspension points cancelled", tally.points, "points")
    trial.note(exploration.described(tally))


class _Schedules:
    """Explores the schedules of small cores, within a time of its own."""

    def __init__(self, make_target: Callable[[], Target], target: str, seed: int, deviations: int) -> None:
        self.make_target, self.target, self.seed, self.deviations = make_target, target, seed, deviations
        self.own_s = _OWN_S * 10.0 ** max(0, deviations - 2)
        self._own = OwnTime()

    def of(
        self, cores: Sequence[Core], cancelled: Sequence[Core], progress: Callable[[float], None]
    ) -> tuple[_Tally, str]:
        """Explore; return the result, and the name of a missing package, or ""."""
        tally = _Tally()
        whole = len(cores) + len(cancelled)
        self._own = OwnTime()
        try:
            if why_not := self._why_not():
                tally.left_out.append(f"schedules, for {why_not}")
                return tally, ""
            each = [(core, self._core) for core in cores] + [(core, self._cancelled) for core in cancelled]
            for number, (core, explore_it) in enumerate(each):
                progress(number / whole)
                if tally.is_enough:
                    break
                if self._left_s < -self.own_s:
                    tally.left_out.append(f"the schedules of {whole - number} of {whole} small cores, for want of time")
                    break
                self._try(tally, core, explore_it)
        except Missing as missing:
            return tally, str(missing)
        return tally, ""

    def _why_not(self) -> str:
        """Why nothing of this target can be explored, or "": one caller alone must get its agent."""
        alone = Core("get_or_create", "nothing", 0)
        if Capability.GET_OR_CREATE not in self.make_target().capabilities:
            alone = Core("create", "nothing", 0)
        try:
            outcome = run_schedule(workload_of(alone, self.make_target, self.seed))
        except NotExplorable as impossible:
            return f"the target needs more than a loop: {impossible}"
        stuck = [problem.sentence for problem in outcome.problems if problem.anomaly == "never-ends"]
        return f"one caller alone never ends on a loop that has no sockets and no threads: {stuck[0]}" if stuck else ""

    @property
    def _left_s(self) -> float:
        """Seconds that are left of `own_s`; below zero once they are used up."""
        return self.own_s - self._own.seconds()

    def _explored(self, tally: _Tally, core: Core, deviations: int, seeded: int = 0) -> Explored:
        until = self._own.seconds() + self._left_s / 4
        explored = explore(
            workload_of(core, self.make_target, self.seed),
            deviations=deviations,
            random=seeded,
            priority=seeded,
            seed=self.seed,
            most=_MOST,
            is_over=lambda: self._own.seconds() > until,
        )
        if explored.failing is None and self._own.seconds() > until:
            tally.left_out.append("some schedules of small cores, for want of time")
        self._note(tally, core, explored)
        return explored

    def _try(self, tally: _Tally, core: Core, explore_it: Callable[[_Tally, Core], None]) -> None:
        try:
            explore_it(tally, core)
        except NotSupported as lacking:
            tally.left_out.append(f"the schedules of {core}: {lacking}")
        except NotExplorable as impossible:
            tally.left_out.append(f"the schedules of {core}, which needs more than a loop: {impossible}")

    def _core(self, tally: _Tally, core: Core) -> None:
        explored = self._explored(tally, core, self.deviations, _SEEDED.get(self.deviations, _SEEDED_BEYOND))
        tally.cores += 1
        tally.bounded += explored.bounded
        tally.seeded += explored.random + explored.priority
        tally.exhausted &= explored.exhausted

    def _cancelled(self, tally: _Tally, core: Core) -> None:
        points = suspensions_of(workload_of(core, self.make_target, self.seed))
        tally.points += points
        for trial in points_of(core, points):
            explored = self._explored(tally, trial, _beside(self.deviations))
            tally.cancelled += explored.schedules
            tally.cancelled_exhausted &= explored.exhausted
            if explored.failing is not None or self._left_s < -self.own_s:
                return

    def _note(self, tally: _Tally, core: Core, explored: Explored) -> None:
        failing = explored.failing
        if failing is None:
            return
        token = Token(str(core), self.target, failing.problem.anomaly, self.seed, failing.schedule)
        number = len(failing.schedule)
        order = f"with {counted(number, 'deviation')} from" if number else "in"
        sentence = f"{failing.problem.sentence} ({core}, {order} asyncio's own order)"
        witness = (*failing.interleaving, f"{REPLAY}{token}")
        tally.findings.append(Finding(failing.problem.anomaly, sentence, witness))

    def described(self, tally: _Tally) -> str:
        """The bound, in words."""
        texts = []
        if tally.cores:
            bound = in_words(self.deviations, tally.bounded, tally.exhausted)
            texts.append(f"Two callers, {tally.cores} small cores: {bound}; and {tally.seeded:,} seeded ones")
        if tally.points:
            within = in_words(_beside(self.deviations), tally.cancelled, tally.cancelled_exhausted)
            texts.append(
                f"Cancelled at each of {tally.points} suspension points, at once, one and three steps later, and as it "
                f"goes on: {within}"
            )
        return ". ".join([*texts, "Not explored: calls that need sockets or threads."])


def _beside(deviations: int) -> int:
    """Deviations beside a cancellation, which has most of their effect: none, or one of three."""
    return max(0, deviations - 2)
