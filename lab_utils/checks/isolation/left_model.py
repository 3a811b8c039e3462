"""A part of interrupted_calls_leave_nothing_to_others: a model over HTTP that is left in the middle of its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import count
from typing import Any

from lab_utils.checks.isolation.scene import users_of
from lab_utils.checks.registration.teardown import RUNS
from lab_utils.judges.prompts import Sent, own_prompts
from lab_utils.standin import Fault, Misbehaviour
from lab_utils.target import Capability, Command, Handle, Recipe, Refusal, Target
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
_MOST_TURNS = (30, 15, 5, 2, 1)
"""Turns of the loop within which a question is left; one that was answered before is asked again, and left sooner."""
_OFTEN = 24
"""How many questions one user leaves in a row: more than any plausible number of places of one user at a model."""
_SAME = "Which words tell that a line is slow?"
"""A question without anybody's data."""
_Leave = Callable[[Target, Handle, "asyncio.Future[Any]"], Awaitable[None]]


class _Plan:
    """Chooses the model server's answer to one user (`lab_utils.standin.Plan`)."""

    def __init__(self, user: str) -> None:
        self.user, self.fault = user, ""

    def __call__(self, asked: Any) -> Any:
        return Misbehaviour(Fault(self.fault), pause_s=0.05) if asked.user == self.user and self.fault else None


async def judge_left_model(trial: Trial) -> None:
    """Let one user leave a question over HTTP at a moment drawn from the seed, by a cancellation and by the end of the
    session. Ask for other users: each answer must be the same as before, and no request may hold anything that the
    server gave to another user. Ask for the one, too: each answer must be that of the new question."""
    what = "a model that is left in the middle of its answer"
    if Capability.MODEL not in trial.make_target().capabilities:
        return
    left, there, new = users_of(trial.seed)
    plan = _Plan(left)
    try:
        target = await trial.target([Recipe("helper"), Recipe("second")], llm="http", llm_plan=plan)
    except ImportError as error:
        trial.leave_out(f"{what}, which needs a missing package: {error}")
        return
    if not trial.asks_over_http(target):
        trial.leave_out(f"{what}: the target asks none over HTTP")
        return
    try:
        handles = {user: await target.create(user, "helper") for user in (left, there, new)}
        before = {user: await _ask(trial, target, handles[user]) for user in (left, there, new)}
    except Stuck:
        raise
    except Exception as error:
        if is_checks_own(error):
            raise
        sentence = f"a user who asks a model over HTTP meets {type(error).__name__}: {error}"
        trial.find("failed-operation", sentence, repr(error))
        return
    asked, numbers = 0, count(1)
    for fault, words in _FAULTS.items():
        for leave in (_cancel, _end) if Capability.END in target.capabilities else (_cancel, _cancel):
            if leave is _end:
                # The question that is left is the first of its session, as the next will be: counts may be the same.
                handles[left] = await _begun_anew(trial, target, left)
            plan.fault = fault
            number = next(numbers)
            for most_turns in _MOST_TURNS if leave is _cancel else _MOST_TURNS[:1]:
                place, answered = await _leave(trial, target, handles[left], number, leave, most_turns)
                happened = f"{left!r} left a model that {words}, {place}"
                if not answered:
                    break
                if not _judge_own(trial, left, before[left], answered, f"{left!r} had left one", number):
                    return
                number = next(numbers)
            # The first who asks again may receive what was left: a stranger where one was cancelled, else their next
            # session.
            order = (there, new, there, left) if leave is _cancel else (left, there, new, there)
            for user in order:
                # The late answer may come before this one.
                plan.fault = "slow" if fault == "slow" and user == left else ""
                try:
                    if user != left:
                        answer = await _ask(trial, target, handles[user])
                        is_well = _judge(trial, user, before[user], answer, happened, (left, there, new))
                    else:
                        if leave is _end:
                            happened += ", as the session ended"
                            handles[left] = await _begun_anew(trial, target, left)
                        answer = await _ask(trial, target, handles[left], number := next(numbers))
                        is_new = leave is _end
                        is_well = _judge_own(trial, left, before[left], answer, happened, number, is_new=is_new)
                except Exception as error:
                    _find_unanswered(trial, user, left, happened, error)
                    return
                if not is_well:
                    return
                asked += 1
    if not await _equal_questions(trial, target, plan, handles[left], handles[there]):
        return
    if not await _left_often(trial, target, plan, [handles[user] for user in (left, there, new)], numbers):
        return
    sent = (Sent(one.number, one.user, one.whole) for one in target.prompts())
    trial.judge(own_prompts(sent, (left, there, new)))
    trial.measure("questions after a model was left", asked, "questions")


async def _equal_questions(trial: Trial, target: Target, plan: _Plan, left: Handle, there: Handle) -> bool:
    """Let two users ask the same at once, and one of them leave; return whether the other is answered."""
    ask = Command("ask", {"text": _SAME})
    before = str(await trial.waiting.ends(target.run(there, ask), f"a question of {there.user!r}"))
    plan.fault, known = "slow", len(target.prompts())
    leaving = asyncio.ensure_future(target.run(left, ask))
    await trial.waiting.until(lambda: leaving.done() or len(target.prompts()) > known)
    staying = asyncio.ensure_future(target.run(there, ask))
    await trial.waiting.settle()
    leaving.cancel()
    await trial.waiting.ends(asyncio.wait({leaving, staying}), f"a question of {there.user!r}")
    plan.fault = ""
    if staying.cancelled() or staying.exception() is not None:
        met = "a cancellation" if staying.cancelled() else repr(staying.exception())
        sentence = f"{there.user!r} asked the model the same as {left.user!r}, who left, and met {met}"
        trial.find("cancelled-others", sentence, met)
        return False
    answer, sentence = (
        str(staying.result()),
        f"{there.user!r} asked the same as one who left, and was answered otherwise",
    )
    return trial.require(answer == before, "interference", sentence, f"before: {before}", f"after:  {answer}")


async def _left_often(
    trial: Trial, target: Target, plan: _Plan, handles: Sequence[Handle], numbers: Iterator[int]
) -> bool:
    """Let the first of the users leave question after question to a model that is silent, each as the next has been
    asked. Return whether everybody is answered afterwards."""
    left, happened = handles[0].user, f"{handles[0].user!r} left {_OFTEN} questions that the model did not answer"
    two = handles[0], await trial.waiting.ends(target.create(left, "second"), f"a create of {left!r}")
    plan.fault = "silent"
    before: asyncio.Future[Any] | None = None
    for place in range(_OFTEN):
        known = len(target.prompts())
        asked = asyncio.ensure_future(_question(target, two[place % 2], next(numbers)))
        # It is under way beside the one before, or waits for it.
        await trial.waiting.settle(_MOST_TURNS[0])
        await _give_up(trial, before)
        if not await trial.waiting.until(lambda: asked.done() or len(target.prompts()) > known):  # noqa: B023
            await _give_up(trial, asked)
            sentence = f"a question of {left!r} does not reach the model, after the user has left {place} others"
            trial.find("next-call-fails", sentence, f"the model has had {known} questions")
            return False
        before = asked
    await _give_up(trial, before)
    plan.fault = ""
    for handle in (*handles[1:], handles[0]):
        try:
            await _ask(trial, target, handle, next(numbers))
        except Exception as error:
            # The user may be refused for a while.
            if handle is not handles[0] or getattr(error, "kind", None) is not Refusal.CAPACITY:
                _find_unanswered(trial, handle.user, left, happened, error)
                return False
    return True


async def _give_up(trial: Trial, question: asyncio.Future[Any] | None) -> None:
    if question is not None:
        question.cancel()
        await trial.waiting.ends(asyncio.wait({question}), "a question that was left")
        if not question.cancelled():
            # Nobody awaits it: without this, asyncio logs its error.
            question.exception()


def _find_unanswered(trial: Trial, user: str, left: str, happened: str, error: Exception) -> None:
    """A finding: a question was not answered after what happened to one who `left`."""
    if isinstance(error, Stuck):
        trial.find_failure(error, "next-call-fails" if user == left else "capacity-lost")
        return
    if is_checks_own(error):
        raise error
    anomaly = "next-call-fails" if user == left else "bystander-harmed"
    met = f"{type(error).__name__}: {error}"
    trial.find(anomaly, f"{user!r} asks the model, and meets {met}, after {happened}", repr(error))


async def _begun_anew(trial: Trial, target: Target, user: str) -> Handle:
    """End the user's session, if there is one, and begin another."""
    await trial.waiting.ends(target.end(user), f"the end of {user!r}")
    return await trial.waiting.ends(target.create(user, "helper"), f"a create of {user!r}")


async def _leave(
    trial: Trial, target: Target, handle: Handle, number: int, leave: _Leave, most_turns: int
) -> tuple[str, str]:
    """Ask, and leave once the server has the question, some turns of the loop later. Return when that was, and the
    answer, "" if there was none yet."""
    known = len(target.prompts())
    task = asyncio.ensure_future(_question(target, handle, number))
    await trial.waiting.until(lambda: task.done() or len(target.prompts()) > known)
    turns = trial.rng.randrange(most_turns)
    await trial.waiting.settle(turns)
    await trial.waiting.ends(leave(target, handle, task), f"the end of {handle.user!r}")
    await trial.waiting.ends(asyncio.wait({task}), "a question that was left")
    if not task.cancelled() and task.exception() is None:
        return "when it had been answered", str(task.result())
    return f"{turns} turns of the loop after the question had arrived", ""


async def _cancel(target: Target, handle: Handle, task: asyncio.Future[Any]) -> None:
    task.cancel()


async def _end(target: Target, handle: Handle, task: asyncio.Future[Any]) -> None:
    await target.end(handle.user)
    if target.capabilities.isdisjoint(RUNS):
        # Such a target may leave its runs to the app.
        task.cancel()


async def _ask(trial: Trial, target: Target, handle: Handle, number: int = 0) -> str:
    return str(await trial.waiting.ends(_question(target, handle, number), f"a question of {handle.user!r}"))


def _question(target: Target, handle: Handle, number: int) -> Awaitable[Any]:
    text = f"Please word a note:\n- note: {canary(handle.user, 'question', number)}"
    return target.run(handle, Command("ask", {"text": text}))


def _judge_own(
    trial: Trial, user: str, before: str, answer: str, happened: str, number: int, *, is_new: bool = False
) -> bool:
    """Return whether the answer is that of the new question; a finding where it is not."""
    question, witness = canary(user, "question", number), (f"before: {before}", f"after:  {answer}")
    if any(canary(user, "question", earlier) in answer for earlier in range(number)):
        anomaly = "old-life-read" if is_new else "wrong-answer"
        trial.find(anomaly, f"{user!r} received the answer to the question that was left, after {happened}", *witness)
        return False
    is_well = answer == before.replace(canary(user, "question", 0), question)
    return trial.require(is_well, "wrong-answer", f"{user!r} received a wrong answer, after {happened}", *witness)


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
