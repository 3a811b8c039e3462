"""A part of interrupted_calls_leave_nothing_to_others: a drawn sample on the real loop, for calls that need sockets."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from lab_utils.checks.isolation.cuts import HOOKS, Cut, mixed
from lab_utils.checks.isolation.scene import Scene
from lab_utils.interleavings.observing import STEPS
from lab_utils.judges.interruption import Record
from lab_utils.trial import Stuck, Trial, loops
from lab_utils.trial.allowance import Allowance
from lab_utils.values.result import REST_OF_THE_CHECK
from lab_utils.values.verdict import Finding, Verdict

__all__ = ["Judging", "judge_sampled"]

_SECONDS = 8.0
"""After which no further interruption is drawn, once there were a few."""
_FEW = 4
_ENOUGH_S = 5.0
"""Seconds after which a call here counts as one that is not answered."""
_REST_S, _REST_TURNS = 0.01, 20


class Judging(Protocol):
    """Judges a history and reports its findings."""

    found: int

    def judge(self, cut: Cut, scene: Scene, problems: Iterable[Any], before: Record) -> list[Finding]: ...

    def tell(self, cut: Cut, place: str, findings: Sequence[Finding], *, can_replay: bool = True) -> None: ...


class _RealLoop:
    """The running loop, looked at once in each of its turns."""

    def __init__(self) -> None:
        self._looking: asyncio.Task[None] | None = None

    def each_step(self, look: Callable[[asyncio.Task[Any] | None], None] | None) -> None:
        if self._looking is not None:
            self._looking.cancel()
        self._looking = None if look is None else asyncio.ensure_future(self._look(look))

    async def _look(self, look: Callable[[asyncio.Task[Any] | None], None]) -> None:
        while True:
            await asyncio.sleep(0)
            look(None)

    def require_explorable(self, error: BaseException) -> None:
        """Everything can be done here."""

    async def rest(self) -> None:
        # Data that crosses a socket needs time as well as turns. On a busy machine all of the time may be over in one.
        for _ in range(_REST_TURNS):
            await asyncio.sleep(_REST_S / _REST_TURNS)


async def judge_sampled(trial: Trial, judging: Judging, calls: Sequence[str]) -> None:
    """Interrupt these calls at drawn places on the real loop, and ask others as everywhere."""
    histories, observations = 0, 0
    allowance = Allowance(_SECONDS)
    known = judging.found
    first: list[Cut] = []
    drawn: list[Cut] = []
    before: dict[Cut, Record] = {}
    for call in calls:
        scene = await _lived(trial, Cut(call))
        before[Cut(call)] = scene.record
        if findings := judging.judge(Cut(call), scene, (), scene.record):
            judging.tell(Cut(call), scene.record.broken[0], findings, can_replay=False)
            if scene.record.failed:
                # One cause, one finding: so does every other call.
                trial.leave_out(f"{REST_OF_THE_CHECK}, which fails without an interruption")
                return
            continue
        places = range(1, len(scene.points) + 1)
        left = (
            [Cut(call, "timed-out", at) for at in places],
            [Cut(call, "cancelled", at, beside="after") for at in places],
        )
        # In one way for each call, so that few histories without an interruption are needed.
        chosen = trial.rng.randrange(len(left))
        first += left[chosen]
        drawn += left[1 - chosen]
        drawn += [Cut(call, "twice", at, again) for at in places for again in (1, 2)]
        drawn += [Cut(call, way, turn) for way in ("raised", "exited") for turn in (0, 1) if call in HOOKS]
    trial.rng.shuffle(first)
    trial.rng.shuffle(drawn)
    # Each place once before any other way: what only a socket shows has one place of them all.
    for cut in (*first, *mixed(drawn)):
        if (allowance.is_over() and histories >= _FEW) or judging.found > known + 1:
            break
        if cut.uncut not in before:
            before[cut.uncut] = (await _lived(trial, cut.uncut)).record
        scene = await _lived(trial, cut)
        findings = judging.judge(cut, scene, (), before[cut.uncut])
        if findings:
            again = (await _lived(trial, cut.uncut)).record
            noise = {one.anomaly for one in judging.judge(cut.uncut, _with(scene, again), (), before[cut.uncut])}
            findings = [one for one in findings if one.anomaly not in noise]
        judging.tell(cut, scene.record.place, findings, can_replay=False)
        histories += 1
        observations += sum(map(len, scene.record.observed.values()))
    trial.leave_out("most interruptions of calls that need a real loop: only a sample was drawn")
    if histories and judging.found == known:
        trial.judge(Verdict.passed(f"{observations} observations of others on the real loop, each as if uninterrupted"))
    trial.measure("interruptions drawn on the real loop", histories, "interruptions")


def _with(scene: Scene, record: Record) -> Scene:
    scene.record = record
    return scene


async def _lived(trial: Trial, cut: Cut) -> Scene:
    scene = Scene(cut, trial.make_target(), trial.seed, _RealLoop(), by_place=True)
    # Nothing is late here: how long a socket takes is not the target's.
    scene.enough_s, scene.late_s = _ENOUGH_S, math.inf
    history = asyncio.ensure_future(scene.whole())
    while not history.done():
        # A slow target answers again and again.
        answers = STEPS.answers
        if await loops.done_in(trial.waiting.stuck_after, {history}) and STEPS.answers == answers:
            sentence, where = f"a history of {cut.call!r} did not end: nothing was answered", loops.where(history)
            history.cancel()
            await loops.done_in(trial.waiting.stuck_after / 4, {history})
            raise Stuck(f"{sentence} for {trial.waiting.stuck_after:g} s", where)
    history.result()
    return scene
