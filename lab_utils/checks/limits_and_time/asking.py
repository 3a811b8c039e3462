"""How the checks of limits_and_time ask: an answer or an error as a value, and in words."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from lab_utils.target import Capability, Command, Handle, Refusal, Refused, Target
from lab_utils.trial import Client, Stuck, Trial, loops
from lab_utils.trial.allowance import Allowance
from lab_utils.trial.faults import Planned, is_targets_own

__all__ = [
    "attempt",
    "cause",
    "ended_beside",
    "in_vain",
    "is_refused",
    "live",
    "of",
    "refused_often",
    "require_refused",
    "said",
    "waits_for_run",
]

T = TypeVar("T")
_LONGEST_S: Final = 2.0
_MAKES_S: Final = 2.0
"""Seconds of the real loop within which a create ends that waits for nobody."""


async def waits_for_run(making: asyncio.Future[Any]) -> bool:
    """Whether a create does not end while its user's run is held, as one user's calls may be done one after another. It
    is given up then."""
    if not await loops.done_in(_MAKES_S, {making}):
        return False
    making.cancel()
    await asyncio.wait({making})
    return True


async def attempt(trial: Trial, work: Awaitable[Any], what: str, *, may_fail: bool = False) -> Any:
    """Await a call that must end; return its answer, or its error as a value, which is noted if it is the target's own,
    unless the call may fail. Raises `Stuck`."""
    since = Planned.so_far
    try:
        return await trial.waiting.ends(work, what)
    except Stuck:
        raise
    except (Exception, asyncio.CancelledError) as error:
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            # The check itself is to end; this is not an answer of the target.
            raise
        if not may_fail and is_targets_own(error, since):
            trial.has_failed(f"{what}: {type(error).__name__}: {error}")
        # Kept as a value, it must not keep the frames of the target alive.
        return error.with_traceback(None)


async def refused_often(trial: Trial, ask: Callable[[int], Awaitable[Any]], what: str) -> None:
    """Ask in a full house, `refusals` times. After two seconds, and ten refusals, no more is asked: a target may
    wait for a place before it refuses."""
    wanted, allowance = int(trial.parameters["refusals"]), Allowance(_LONGEST_S)
    for number in range(wanted):
        if allowance.is_over():
            trial.leave_out(f"{wanted - number} of {wanted} refusals in a row, as {what} takes long to be refused")
            return
        await attempt(trial, ask(number), what)


async def in_vain(trial: Trial, target: Target, user_of: Callable[[int], str], kind: str) -> None:
    """Ask for an agent in each way that is to be refused for another reason than want of room, such as another user's
    agent for adoption. That is another check's matter, and takes no place. `user_of`: who asks, by number."""
    able, nothing = target.capabilities, "nothing-of-the-kind"
    asked: dict[str, Callable[[str], Awaitable[Any]]] = {"an unknown type": lambda user: target.create(user, nothing)}
    if Capability.PERMISSIONS in able:
        asked["no permission"] = lambda user: target.create(user, "guarded")
        asked["a foreign context"] = lambda user: target.create(user, kind, context_user="another")
    if Capability.GET_OR_CREATE in able:
        asked["get_or_create of an unknown type"] = lambda user: target.get_or_create(user, nothing)
    if Capability.STRICT in able:
        asked["odd data"] = lambda user: target.create_strict(user, kind, {"odd": object()})
    if Capability.ADOPTION in able:
        asked["another user's agent"] = lambda user: target.adopt(user, target.make_apart("another", kind))
    for number, (what, call) in enumerate(asked.items()):
        await attempt(trial, call(user_of(number)), f"a create with {what}", may_fail=True)


def is_refused(answer: object, *kinds: Refusal) -> bool:
    return isinstance(answer, Refused) and answer.kind in kinds


def cause(anomaly: str, *answers: object) -> str:
    """The anomaly, or `failed-operation` where an answer is an error that is not a refusal: then the call itself fails,
    and nothing follows about limits."""
    fails = any(isinstance(one, Exception) and not isinstance(one, Refused) for one in answers)
    return "failed-operation" if fails else anomaly


def said(answer: object) -> str:
    """An answer or an error in a few words."""
    match answer:
        case Handle():
            return f"gave {answer.instance}"
        case Refused():
            return f"refused as {answer.kind}: {answer}"
        case BaseException():
            return f"raised {type(answer).__name__}: {answer}"
    return f"answered {answer!r}"


def require_refused(trial: Trial, answer: object, kind: Refusal, accepted: str, what: str) -> bool:
    """Require that `what` was refused as this kind; if it was accepted, that is the anomaly `accepted`."""
    if is_refused(answer, kind):
        trial.expectations += 1
        return True
    anomaly = "wrong-refusal" if isinstance(answer, BaseException) else accepted
    trial.find(anomaly, f"{what} should be refused as {kind}, and {said(answer)}", said(answer))
    return False


async def live(trial: Trial, target: Target, handles: Sequence[Handle]) -> list[Handle]:
    """Those of the agents that answer. The others must refuse as CLOSED. Users are asked at once, one after another
    each agent of a user."""
    found: set[int] = set()

    async def look(handle: Handle) -> None:
        run = target.run(handle, Command("read", {"key": "a key that nobody writes"}))
        answer = await attempt(trial, run, f"a run of {handle.instance}")
        if not isinstance(answer, BaseException):
            found.add(id(handle))
            sentence = f"{handle.instance} of {handle.user!r} answered {answer!r:.80} for a key that nobody writes"
            trial.require(answer is None, "wrong-answer", sentence, said(answer))
        else:
            sentence = f"{handle.instance} of {handle.user!r} is not there any more, and {said(answer)}"
            trial.require(is_refused(answer, Refusal.CLOSED), "wrong-refusal", sentence, said(answer))

    async def look_at_all(agents: Sequence[Handle]) -> None:
        for handle in agents:
            await look(handle)

    by_user: dict[str, list[Handle]] = {}
    for handle in handles:
        by_user.setdefault(handle.user, []).append(handle)
    for answer in await trial.waiting.together(map(look_at_all, by_user.values())):
        if isinstance(answer, BaseException):
            raise answer
    return [handle for handle in handles if id(handle) in found]


async def ended_beside(trial: Trial, work: Mapping[str, Awaitable[Any]], held: str) -> None:
    """Require that each of these ends while something else is held."""
    for what, one in work.items():
        task = asyncio.ensure_future(one)
        is_done = await trial.waiting.ended(task)
        error = task.exception() if is_done and not task.cancelled() else None
        # Its own wait may have been over a moment before this one.
        is_done = is_done and not isinstance(error, Stuck)
        trial.require(is_done, "waits-for-other", f"{what} waits while {held}")
        if not is_done:
            task.cancel()
        elif error is not None:
            trial.find("failed-operation", f"{what} fails while {held}: {said(error)}", said(error))


class _Caller(Client):
    """A client each of whose calls must end."""

    def __init__(self, trial: Trial, target: Target, user: str, name: str) -> None:
        super().__init__(trial, target, f"{name} of {user}", user)
        self._waiting = trial.waiting

    async def call(self, action: str, work: Awaitable[T], agent_type: str = "", thread: str = "") -> T:
        whole = super().call(action, work, agent_type, thread)
        return await self._waiting.ends(whole, f"{action} of {self.user!r}")


def of(trial: Trial, target: Target, user: str, name: str = "client") -> Client:
    """A client of this user, whose operations are recorded and must end. Each raises `Stuck` if it does not."""
    return _Caller(trial, target, user, name)
