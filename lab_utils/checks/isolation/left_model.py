"""A part of interrupted_calls_leave_nothing_to_others: a model over HTTP that is left in the middle of its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from lab_utils.checks.isolation.scene import users_of
from lab_utils.judges.prompts import Sent, own_prompts
from lab_utils.standin import Fault, Misbehaviour
from lab_utils.target import Capability, Command, Handle, Recipe, Target
from lab_utils.trial import Stuck, Trial
from lab_utils.trial.faults import is_checks_own
from lab_utils.values.canaries import Writers
from lab_utils.values.workload import canary

__all__ = ["judge_left_model"]

_FAULTS = {
    "": "answers at once",
    "slow": "answers in two halves",
    "stalled": "sends half an answer",
    "silent": "does not answer",
}
"""How the server treats who will leave, and that in words."""
_ROUNDS = 2
_MOST_TURNS = 30


class _Plan:
    """Chooses the model server's answer to one user (`lab_utils.standin.Plan`)."""

    def __init__(self, user: str) -> None:
        self.user, self.fault = user, ""

    def __call__(self, asked: Any) -> Any:
        return Misbehaviour(Fault(self.fault), pause_s=0.05) if asked.user == self.user and self.fault else None


async def judge_left_model(trial: Trial) -> None:
    """Cancel one user's question over HTTP at a moment drawn from the seed, and ask for other users: each answer must
    be the same as before, and no request may hold anything that the server gave to another user."""
    what = "a model that is left in the middle of its answer"
    if Capability.MODEL not in trial.make_target().capabilities:
        return
    left, there, new = users_of(trial.seed)
    plan = _Plan(left)
    try:
        target = await trial.target([Recipe("helper")], llm="http", llm_plan=plan)
    except ImportError as error:
        trial.leave_out(f"{what}, which needs a missing package: {error}")
        return
    if not trial.asks_over_http(target):
        trial.leave_out(f"{what}: the target asks none over HTTP")
        return
    try:
        handles = {user: await target.create(user, "helper") for user in (left, there, new)}
        before = {user: await _ask(trial, target, handles[user]) for user in (there, new)}
    except Stuck:
        raise
    except Exception as error:
        if is_checks_own(error):
            raise
        sentence = f"a user who asks a model over HTTP meets {type(error).__name__}: {error}"
        trial.find("failed-operation", sentence, repr(error))
        return
    asked = 0
    for fault, words in _FAULTS.items():
        for _ in range(_ROUNDS):
            plan.fault = fault
            place = await _leave(trial, target, handles[left])
            plan.fault = ""
            happened = f"{left!r} left a model that {words}, {place}"
            try:
                for user in (there, new, there):
                    answer = await _ask(trial, target, handles[user])
                    if not _judge(trial, user, before[user], answer, happened, (left, there, new)):
                        return
                    asked += 1
            except Stuck as stuck:
                trial.find_failure(stuck, "capacity-lost")
                return
    sent = (Sent(one.number, one.user, one.whole) for one in target.prompts())
    trial.judge(own_prompts(sent, (left, there, new)))
    trial.measure("questions after a model was left", asked, "questions")


async def _leave(trial: Trial, target: Target, handle: Handle) -> str:
    """Ask, and cancel it once the server has the question, some turns of the loop later."""
    known = len(target.prompts())
    task = asyncio.ensure_future(_question(target, handle))
    await trial.waiting.until(lambda: task.done() or len(target.prompts()) > known)
    turns = trial.rng.randrange(_MOST_TURNS)
    await trial.waiting.settle(turns)
    task.cancel()
    await trial.waiting.ends(asyncio.wait({task}), "a question that was cancelled")
    if not task.cancelled() and task.exception() is None:
        return "when it had been answered"
    return f"{turns} turns of the loop after the question had arrived"


async def _ask(trial: Trial, target: Target, handle: Handle) -> str:
    return str(await trial.waiting.ends(_question(target, handle), f"a question of {handle.user!r}"))


def _question(target: Target, handle: Handle) -> Awaitable[Any]:
    text = f"Please word a note:\n- note: {canary(handle.user, 'question', 0)}"
    return target.run(handle, Command("ask", {"text": text}))


def _judge(trial: Trial, user: str, before: str, answer: str, happened: str, users: tuple[str, ...]) -> bool:
    """Return whether the answer is as before; a finding where it is not."""
    others = [writer for writer, _ in Writers(users).of(answer) if writer != user]
    witness = (f"before: {before}", f"after:  {answer}")
    if others:
        sentence = f"{user!r} received the model's answer to {others[0]!r}, after {happened}"
        trial.find("cross-user-data", sentence, *witness)
    else:
        sentence = f"{user!r} received another answer of the model, after {happened}"
        trial.require(answer == before, "interference", sentence, *witness)
    return answer == before
