"""Runs a workload under every schedule of a bound and under seeded ones, and shrinks the first that fails."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lab_utils.interleavings.simulation import (
    Outcome,
    Schedule,
    by_priority,
    run_once,
    run_schedule,
    uniformly,
)
from lab_utils.interleavings.stage import Problem, Workload
from lab_utils.interleavings.threads import OwnTime

__all__ = ["Explored", "Failing", "explore", "in_words", "suspensions_of"]

_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_COLLECT_EVERY = 400
_MOST_SHRINKS = 400
_SHRINKING_S = 20.0
"""Seconds of its own (`OwnTime`) after which a slow workload's schedule is shrunk no further."""


@dataclass(frozen=True, slots=True)
class Failing:
    """The shortest schedule that still fails: its findings, and its interleaving, one line a step."""

    problem: Problem
    schedule: Schedule
    interleaving: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explored:
    """The result of an exploration. `bounded`: schedules run of those with up to `deviations` deviations; `exhausted`:
    all were.

    A schedule that fails ends the exploration, so that `exhausted` is then False.
    """

    deviations: int
    bounded: int
    exhausted: bool
    random: int
    priority: int
    failing: Failing | None

    @property
    def schedules(self) -> int:
        """How many schedules were run in all, without those that shrank the failing one."""
        return self.bounded + self.random + self.priority

    def __str__(self) -> str:
        return in_words(self.deviations, self.bounded, self.exhausted)


def in_words(deviations: int, schedules: int, exhausted: bool) -> str:
    """State a bound: "every schedule with up to two deviations: 118 schedules"."""
    if deviations == 0:
        return f"{schedules:,} schedules in asyncio's own order"
    number = _WORDS[deviations] if deviations < len(_WORDS) else str(deviations)
    bound = f"up to {number} deviation{'' if deviations == 1 else 's'}"
    if exhausted:
        return f"every schedule with {bound}: {schedules:,} schedules"
    return f"{schedules:,} of the schedules with {bound}, not all of them"


def explore(
    workload: Workload,
    *,
    deviations: int,
    random: int = 0,
    priority: int = 0,
    seed: int = 0,
    most: int = 100_000,
    is_over: Callable[[], bool] = lambda: False,
) -> Explored:
    """Run every schedule with up to so many deviations, fewest first, then seeded random and priority-based ones.

    A deviation lets another ready task run in place of the one that asyncio would have run. At most `most` schedules of
    the bound are run; once `is_over()` none is begun but the first. Stops at the first that fails
    and shrinks it: fewest deviations, then the earliest, while the same anomaly is found. Call it where no loop runs;
    raises as `run_schedule` does.
    """
    with _no_collection() as collect:
        bounded, exhausted, found, decisions = _within(workload, deviations, most, is_over, collect)
        ran = {"random": 0, "priority": 0}
        makers: list[tuple[str, int, Callable[[int], Outcome]]] = [
            ("random", random, lambda run: run_once(workload, uniformly(seed, run))),
            ("priority", priority, lambda run: run_once(workload, by_priority(seed, run, decisions))),
        ]
        for kind, count, make in makers:
            for run in range(count):
                if found is not None or is_over():
                    break
                ran[kind] += 1
                outcome = make(run)
                if outcome.problems:
                    found = _least(workload, outcome, deviations)
        failing = None
        if found is not None:
            final = run_schedule(workload, found.schedule, trace=True)
            problem = next((one for one in final.problems if one.anomaly == found.problems[0].anomaly), None)
            if problem is None:
                sentence = "the workload is not deterministic: the schedule that failed did not fail again"
                problem = Problem(found.problems[0].anomaly, f"{found.problems[0].sentence} ({sentence})")
            failing = Failing(problem, found.schedule, final.interleaving)
        return Explored(deviations, bounded, exhausted, ran["random"], ran["priority"], failing)


def suspensions_of(workload: Workload) -> int:
    """How often the watched caller suspends in asyncio's own order, when it is not cancelled."""
    return run_schedule(workload).suspensions


def _within(
    workload: Workload, deviations: int, most: int, is_over: Callable[[], bool], collect: Callable[[int], None]
) -> tuple[int, bool, Outcome | None, int]:
    """Run the schedules of the bound, fewest deviations first; each is run once."""
    level: list[Schedule] = [()]
    count = longest = 0
    followed = True
    for depth in range(deviations + 1):
        following: list[Schedule] = []
        for schedule in level:
            if count >= most or (count and is_over()):
                return count, False, None, longest
            outcome = run_schedule(workload, schedule)
            count += 1
            collect(count)
            longest = max(longest, len(outcome.decisions))
            followed = followed and outcome.followed
            if outcome.problems:
                return count, False, outcome, longest
            if depth < deviations:
                following.extend(_further(schedule, outcome))
        level = following
    return count, followed, None, longest


def _further(schedule: Schedule, outcome: Outcome) -> Iterator[Schedule]:
    """Every schedule with one deviation more, later than those there are."""
    begin = schedule[-1][0] + 1 if schedule else 0
    for number in range(begin, len(outcome.decisions)):
        for taken in range(1, outcome.decisions[number][0]):
            yield (*schedule, (number, taken))


def _least(workload: Workload, failing: Outcome, bound: int) -> Outcome:
    """The least schedule that shows the same anomaly; up to `bound` deviations are known to show none."""
    best = _shrunk(workload, failing)
    if len(best.schedule) - 1 > bound:
        # Leaving deviations out one by one may end at two where another one alone would do.
        fewer = _within(workload, len(best.schedule) - 1, _MOST_SHRINKS, _shrinking_is_over(), lambda _: None)[2]
        if fewer is not None and fewer.problems[0].anomaly == failing.problems[0].anomaly:
            return fewer
    return best


def _shrunk(workload: Workload, failing: Outcome) -> Outcome:
    """The least schedule found that shows the same anomaly."""
    anomaly = failing.problems[0].anomaly
    best, tries, is_over = failing, 0, _shrinking_is_over()

    def attempt(candidate: Schedule) -> bool:
        nonlocal best, tries
        tries += 1
        if tries > _MOST_SHRINKS or is_over():
            return False
        outcome = run_schedule(workload, candidate)
        if not any(problem.anomaly == anomaly for problem in outcome.problems):
            return False
        if _size(outcome.schedule) >= _size(best.schedule):
            return False
        best = outcome
        return True

    while tries <= _MOST_SHRINKS:
        before = best.schedule
        size = max(1, len(before) // 2)
        while size:
            start = 0
            while start < len(best.schedule):
                if not attempt(best.schedule[:start] + best.schedule[start + size :]):
                    start += size
            size //= 2
        for index, (number, taken) in enumerate(best.schedule):
            if taken > 1 and index < len(best.schedule):
                attempt((*best.schedule[:index], (number, 1), *best.schedule[index + 1 :]))
        if best.schedule == before:
            break
    return best


def _shrinking_is_over() -> Callable[[], bool]:
    own = OwnTime()
    return lambda: own.seconds() > _SHRINKING_S


def _size(schedule: Schedule) -> tuple[int, int, Schedule]:
    return len(schedule), sum(taken for _, taken in schedule), schedule


@contextmanager
def _no_collection() -> Iterator[Callable[[int], None]]:
    """Keep the garbage collector out of the runs, where finalizers at any moment would change them; run it between."""

    def collect(count: int) -> None:
        if count % _COLLECT_EVERY == 0:
            gc.collect()

    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield collect
    finally:
        if was_enabled:
            gc.enable()
