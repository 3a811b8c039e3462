"""A part of enterprise_customer_data_protection: the model is silent for one customer for longer than a target waits,
and answers late; others ask meanwhile, and everybody asks afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from lab_utils.checks.isolation.exploration import seconds_a_call
from lab_utils.checks.isolation.scene import users_of
from lab_utils.checks.tenants.comparing import judge_compared
from lab_utils.interleavings import Missing, NotExplorable, Stage, run_schedule, virtual_clocks
from lab_utils.judges.interference import Observed, normalised
from lab_utils.standin import Asked, Fault, Misbehaviour
from lab_utils.target import Command, Handle, NotSupported, Recipe, Target
from lab_utils.trial import Trial
from lab_utils.trial.faults import is_checks_own
from lab_utils.values.canaries import Writers
from lab_utils.values.limits import limited
from lab_utils.values.verdict import Finding
from lab_utils.values.workload import canary

__all__ = ["judge_late_model"]

_ONE: Final = "Ann-of-the-silent-model"
_THERE: Final = ("ann-of-the-silent-model", "ben")
_NEW: Final = ("cem", "dee", "eve")
"""Customers who come while the model is silent, when it has answered, and at last."""
_SILENT_S: Final = 3_600.0
"""Virtual seconds without an answer."""
_MEANWHILE_S: Final = (20.0, 1_800.0)
"""When others ask: most targets still wait, and most have given up."""
_ANSWERED_S: Final = 4_200.0
"""When the late answer has arrived."""
_TIMES: Final = 40
"""How often one asks in vain of a target that gives up: more than most pools have places."""
_BEYOND_S: Final = 60.0
"""How much longer than the target waits the model is silent then."""
_MORE_S: Final = 30_000.0
"""Virtual seconds that all of these have."""
_AFTER_S: Final = (0.0, 600.0, 4_200.0)
"""When everybody asks afterwards. The one may be refused for a while, so the last time counts."""
_LATE_S, _ENOUGH_S = 5.0, 60.0
"""Virtual seconds beyond which an answer is late, and beyond which it is not waited for."""
_OWN_S: Final = 20.0
"""Seconds of its own that this may take on a slow target."""
_CALLS: Final = 200
_STEPS: Final = 200_000
"""Steps of the loop after which a history counts as one that never ends."""


class _Seen(NamedTuple):
    """One observation, and when it was made, in words that go on from a sentence."""

    when: str
    observed: Observed
    is_late: bool
    is_error: bool


class _History:
    """One history of a fresh target. `is_silent`: the model answers the one late; `is_again`: as often as the target
    has given up once, they ask again and again, or time passes instead.

    `seen`: what everybody observed; `asked`, `given_up`, `waits_s`: the questions that met a silent model, those that
    ended with an error before it answered, and after how many seconds the first of them did; `never_ended`,
    `never_late`: a question that was answered, and did not end, and one that was answered before the model did."""

    def __init__(self, make_target: Callable[[], Target], *, is_silent: bool, is_again: bool) -> None:
        self.is_again = is_again
        self.seen: dict[str, list[_Seen]] = {}
        self.asked = self.given_up = 0
        self.waits_s = 0.0
        self.never_ended = self.never_late = False
        self._make, self._is_silent = make_target, is_silent
        self._target: Target
        self._handles: dict[str, Handle] = {}
        self._silent_until = 0.0
        self._number = 0

    async def whole(self, stage: Stage) -> None:
        """Live it. Raises `NotExplorable` for what the simulated loop cannot do."""
        self._explorable = stage.require_explorable
        try:
            await self._live()
        except NotSupported:
            raise
        except Exception as error:
            self._explorable(error)
            if is_checks_own(error):
                raise
            raise NotExplorable(f"{type(error).__name__}: {error}") from error

    async def _live(self) -> None:
        self._loop = asyncio.get_running_loop()
        began = self._loop.time()
        target = self._target = self._make()
        target.choose_model("scripted", self._plan)
        await target.start([Recipe("helper")], {}, 5.0)
        for user in (_ONE, *_THERE):
            await self._ask(user, "before")
        first = asyncio.ensure_future(self._in_vain(_SILENT_S))
        for at, new in zip(_MEANWHILE_S, _NEW, strict=False):
            await self._until(began + at)
            await self._at_once((*_THERE, new), f"while the model has been silent for {_ONE!r} for {at:g} s")
        await self._until(began + _ANSWERED_S)
        self.never_ended = not await self._ended(first)
        if self._is_silent:
            self.is_again = self.given_up > 0
            if self.is_again:
                await self._again(began + _ANSWERED_S + _MORE_S)
        began += _ANSWERED_S + _MORE_S * self.is_again
        for after in _AFTER_S:
            await self._until(began + after)
            when = f"{after:g} s after" if after else "after"
            await self._at_once((_ONE, *_THERE, *_NEW), f"{when} the model had answered {_ONE!r} late")
        # The one is judged by the last time, and by the others in between.
        self.seen[_ONE] = self.seen[_ONE][-1:]
        await target.stop()

    def _plan(self, asked: Asked) -> Misbehaviour | None:
        if not self._is_silent or asked.user != _ONE or (left := self._silent_until - self._loop.time()) <= 0:
            return None
        self.asked += 1
        return Misbehaviour(Fault.SLOW, pause_s=left)

    async def _in_vain(self, seconds: float) -> None:
        """Let the one ask a model that is silent for so long."""
        began = self._loop.time()
        self._silent_until = began + seconds
        try:
            await self._question(_ONE)
        except Exception as error:
            self._explorable(error)
            if self._loop.time() < self._silent_until:
                self.given_up += 1
                self.waits_s = self.waits_s or self._loop.time() - began
        else:
            # Of an answer to a later question it is judged whose it is.
            self.never_late |= not self.given_up and self._loop.time() < self._silent_until

    async def _again(self, until: float) -> None:
        """Let the one ask in vain, one question after another."""
        silent_s = self.waits_s + _BEYOND_S
        for _ in range(_TIMES):
            if self._loop.time() + 3 * silent_s > until:
                return
            asking = asyncio.ensure_future(self._in_vain(silent_s))
            await asyncio.wait({asking}, timeout=2 * silent_s)
            if not await self._ended(asking):
                return

    async def _ended(self, work: asyncio.Future[None]) -> bool:
        """Whether it has ended; it is cancelled if not."""
        has_ended = work.done()
        work.cancel()
        await asyncio.wait({work}, timeout=_ENOUGH_S)
        return has_ended

    async def _until(self, at: float) -> None:
        await asyncio.sleep(max(0.0, at - self._loop.time()))

    async def _at_once(self, users: Sequence[str], when: str) -> None:
        await asyncio.gather(*(self._ask(user, when) for user in users))

    async def _ask(self, user: str, when: str) -> None:
        began, is_error = self._loop.time(), False
        try:
            async with limited(_ENOUGH_S):
                told = str(await self._question(user))
        except NotSupported:
            raise
        except (Exception, asyncio.CancelledError) as error:
            self._explorable(error)
            told, is_error = f"error {type(error).__name__}: {error}", True
        is_late = self._loop.time() - began > _LATE_S
        told = f"after more than {_LATE_S:g} s: {told}" if is_late else told
        self.seen.setdefault(user, []).append(_Seen(when, Observed("ask", told), is_late, is_error))

    async def _question(self, user: str) -> Any:
        number = len(self.seen.get(user, ()))
        if user not in self._handles:
            self._handles[user] = await self._target.create(user, "helper")
        text = f"Please word a note:\n- note: {canary(user, 'question', number)}"
        return await self._target.run(self._handles[user], Command("ask", {"text": text}))


def _differences(alone: _History, beside: _History) -> list[Finding]:
    """A finding for each anomaly, of the first user who observed something else; of the one only where no other did,
    for that is less."""
    found: dict[str, Finding] = {}
    for user, quiet in sorted(alone.seen.items(), key=lambda one: one[0] == _ONE):
        if found and user == _ONE:
            break
        loud = beside.seen.get(user, [])
        pairs = zip(normalised(one.observed for one in quiet), normalised(one.observed for one in loud), strict=True)
        place = next((place for place, (one, other) in enumerate(pairs) if one != other), None)
        if place is not None:
            anomaly, sentence = _named(user, loud[place])
            witness = (f"alone:  {quiet[place].observed}", f"beside: {loud[place].observed}", _told(beside))
            found.setdefault(anomaly, Finding(anomaly, sentence, witness))
    return list(found.values())


def _named(user: str, seen: _Seen) -> tuple[str, str]:
    others = [writer for writer, _ in Writers((_ONE, *_THERE, *_NEW)).of(seen.observed.what) if writer != user]
    if others:
        return "cross-user-data", f"{user!r} received the model's answer to {others[0]!r}, {seen.when}"
    if user == _ONE:
        if seen.is_late or seen.is_error:
            return "next-call-fails", f"{user!r} still asks the model in vain, {seen.when}"
        return "wrong-answer", f"{user!r} received another answer than the one to the question, {seen.when}"
    if seen.is_late:
        is_meanwhile = seen.when.startswith("while")
        return "waits-for-other" if is_meanwhile else "capacity-lost", f"{user!r} waits for an answer, {seen.when}"
    return "interference", f"{user!r} was answered otherwise, {seen.when}"


def _told(history: _History) -> str:
    gave_up = f"the target gave {history.given_up} of these up, the first after {history.waits_s:g} s"
    return (
        f"questions of {_ONE!r} to a silent model: {history.asked}; {gave_up if history.given_up else 'none given up'}"
    )


class _Comparison:
    """Lives a history in which the model answers one customer late, and one in which it never does."""

    def __init__(self, make_target: Callable[[], Target], progress: Callable[[float], None]) -> None:
        self.findings: list[Finding] = []
        self.left_out: list[str] = []
        self.observations = self.given_up = 0
        self._make, self._progress = make_target, progress

    def whole(self) -> str:
        """Return the name of a missing package, or ""."""
        what = "customers beside one to whom the model answers late"
        try:
            if (seconds := seconds_a_call(self._make, users_of(0))) * _CALLS > _OWN_S:
                self.left_out.append(f"{what}, for want of time: a call takes {seconds:.2g} s")
                return ""
            beside = self._lived(is_silent=True)
            self._progress(0.5)
            if not beside.asked or beside.never_late:
                why = "the model in the process does not go by the lab's plan, or the target answers in its place"
                self.left_out.append(f"{what}: {why}")
                return ""
            self._compare(beside)
        except (NotExplorable, NotSupported) as impossible:
            self.left_out.append(f"{what}: {impossible}")
        except Missing as missing:
            return str(missing)
        return ""

    def _compare(self, beside: _History) -> None:
        alone = self._lived(is_again=beside.is_again)
        self.observations, self.given_up = sum(map(len, beside.seen.values())), beside.given_up
        self.findings = _differences(alone, beside)
        if beside.never_ended:
            sentence = f"a question of {_ONE!r} neither failed nor was answered, though the model had answered it"
            self.findings.append(Finding("never-ends", sentence, (_told(beside),)))
        if self.findings and _differences(alone, self._lived(is_again=beside.is_again)):
            self.findings.clear()
            self.left_out.append("customers beside a late answer of the model: answers differ from history to history")

    def _lived(self, *, is_silent: bool = False, is_again: bool = False) -> _History:
        history = _History(self._make, is_silent=is_silent, is_again=is_again)
        with virtual_clocks():
            outcome = run_schedule(history.whole, most_steps=_STEPS)
        if never := [problem.sentence for problem in outcome.problems if problem.anomaly == "never-ends"]:
            raise NotExplorable(never[0])
        return history


async def judge_late_model(trial: Trial) -> None:
    """Let the model answer one customer late, on a simulated loop, and require that the target keeps nothing of the
    questions that it gave up: everybody is answered as if the model had never been late, and with their own answer."""
    comparison = await judge_compared(trial, _Comparison, "a customer whose model answers late")
    if comparison.observations:
        trial.measure("questions to a late model that the target gave up", comparison.given_up, "questions")
