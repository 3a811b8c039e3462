"""A part of enterprise_customer_data_protection: a model over HTTP fails for one customer, and others ask it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lab_utils.checks.isolation.scene import users_of
from lab_utils.judges.prompts import Sent, own_prompts
from lab_utils.standin import Asked, Fault, Misbehaviour
from lab_utils.target import Command, Handle, Recipe, Target
from lab_utils.trial import OutOfTime, Stuck, Trial
from lab_utils.trial.faults import is_checks_own
from lab_utils.values.canaries import Writers
from lab_utils.values.verdict import Finding, Verdict
from lab_utils.values.workload import canary

__all__ = ["judge_failing_model"]

_FAULTS: Mapping[Fault, str] = {
    Fault.RATE_LIMITED: "answered 429",
    Fault.SERVER_ERROR: "answered 500",
    Fault.CUT_OFF: "hung up",
    Fault.UNFINISHED: "stopped half-way",
    Fault.MALFORMED: "sent no JSON",
    Fault.SILENT: "was silent",
}
_WHAT: Mapping[tuple[bool, bool], tuple[str, str]] = {
    (True, True): ("canary-in-error", "met another's error"),
    (True, False): ("cross-user-data", "received another's data"),
    (False, True): ("bystander-harmed", "met an error"),
    (False, False): ("interference", "was answered otherwise"),
}
"""Whether an observation holds data of another user, whether it is an error -> the anomaly, and what happened."""
_TIMES = 2
_ENOUGH_S = 5.0
"""Seconds after which calls that should fail are not waited for."""


class _Answer(NamedTuple):
    fault: Fault
    text: str
    is_error: bool


class _Plan:
    """Chooses the model server's answer to one user (`lab_utils.standin.Plan`)."""

    def __init__(self, user: str) -> None:
        self.user = user
        self.fault: Fault | None = None

    def __call__(self, asked: Asked) -> Misbehaviour | None:
        return Misbehaviour(self.fault, "0.001") if asked.user == self.user and self.fault else None


class _History:
    """One history, in which the model fails for the first user or for nobody. `observed`: the answers to the others."""

    def __init__(self, trial: Trial, target: Target, users: Sequence[str], plan: _Plan) -> None:
        self._trial, self._target, self._plan = trial, target, plan
        self._failing, *self._others = users
        self._handles: dict[str, Handle] = {}
        self.observed: dict[str, list[_Answer]] = {user: [] for user in self._others}

    async def live(self, *, fails: bool) -> None:
        """For each fault let one ask in vain, and then the others, while a silent model is still waited for: each asks
        a question with their own data, and one that all ask."""
        waiting = self._trial.waiting
        for fault in _FAULTS:
            self._plan.fault = fault if fails else None
            known = len(self._target.prompts())
            task = asyncio.ensure_future(self._in_vain(fault, _TIMES if fails else 1))
            if self._plan.fault is Fault.SILENT:
                await waiting.until(lambda: task.done() or len(self._target.prompts()) > known)  # noqa: B023
            else:
                if fault is Fault.SERVER_ERROR:
                    # What is asked again meanwhile is asked in its own user's name, too.
                    await waiting.until(lambda: task.done() or len(self._target.prompts()) > known)  # noqa: B023
                    await waiting.together(self._ask(user, _texts(user, fault)[0]) for user in self._others)
                await asyncio.wait({task}, timeout=_ENOUGH_S)
                self._plan.fault = None
            try:
                for answer in await waiting.together(self._observe(user, fault) for user in self._others):
                    if isinstance(answer, BaseException):
                        raise answer
            except OutOfTime:
                raise
            except Stuck as stuck:
                sentence = f"others wait for theirs: the model of {self._failing!r} {_FAULTS[fault]}"
                raise Stuck(sentence, *stuck.places) from None
            finally:
                task.cancel()
                await waiting.ends(asyncio.wait({task}), "questions that the model did not answer")

    async def _in_vain(self, fault: Fault, times: int) -> None:
        for text in _texts(self._failing, fault) * times:
            await self._ask(self._failing, text)

    async def _observe(self, user: str, fault: Fault) -> None:
        for text in _texts(user, fault):
            self.observed[user].append(_Answer(fault, *await self._ask(user, text)))

    async def _ask(self, user: str, text: str) -> tuple[str, bool]:
        try:
            if user not in self._handles:
                self._handles[user] = await self._target.create(user, "helper")
            return str(await self._target.run(self._handles[user], Command("ask", {"text": text}))), False
        except Exception as error:
            if is_checks_own(error):
                raise
            return f"{type(error).__name__}: {error}", True


def _texts(user: str, fault: Fault) -> list[str]:
    return [f"Please word a note:\n- note: {canary(user, fault, 0)}", f"Which words tell that a line {_FAULTS[fault]}?"]


async def judge_failing_model(trial: Trial) -> None:
    """Let the model over HTTP fail for one user in each way, and require of all others the answers that they receive
    where it fails for nobody."""
    what = "customers beside one whose model over HTTP fails"
    users = users_of(trial.seed)
    alone: Mapping[str, Sequence[_Answer]] = {}
    for fails in (False, True):
        plan = _Plan(users[0])
        try:
            target = await trial.target([Recipe("helper")], llm="http", llm_plan=plan)
        except ImportError as error:
            trial.leave_out(f"{what}, which needs a missing package: {error}")
            return
        if not trial.asks_over_http(target):
            trial.leave_out(f"{what}: the target asks none over HTTP")
            return
        history = _History(trial, target, users, plan)
        try:
            await history.live(fails=fails)
        except OutOfTime as late:
            trial.find_failure(late)
        except Stuck as stuck:
            trial.find("waits-for-other" if fails else "never-ends", str(stuck), *stuck.places)
        prompts = target.prompts()
        trial.judge(own_prompts((Sent(one.number, one.user, one.whole) for one in prompts), users))
        if not fails:
            alone = history.observed
            errors = [one.text for answers in alone.values() for one in answers if one.is_error]
            if not trial.require(not errors, "failed-operation", "questions to a model over HTTP failed", *errors[:3]):
                return
        elif not any(one.fault for one in prompts):
            trial.leave_out(f"{what}: it did not fail where the plan says so")
        else:
            trial.judge(_same(alone, history.observed, users))


def _same(
    alone: Mapping[str, Sequence[_Answer]], beside: Mapping[str, Sequence[_Answer]], users: Sequence[str]
) -> Verdict:
    findings = []
    for user, quiet in alone.items():
        for before, after in zip(quiet, beside[user], strict=False):
            if before != after:
                is_foreign = any(writer != user for writer, _ in Writers(users).of(after.text))
                anomaly, what = _WHAT[is_foreign, after.is_error]
                sentence = f"{user!r} {what}: the model of {users[0]!r} {_FAULTS[after.fault]}"
                findings.append(Finding(anomaly, sentence, (f"alone:  {before.text}", f"beside: {after.text}")))
                break
    return Verdict.of(findings, sum(map(len, alone.values())), "answers of a model that fails for another customer")
