"""A part of agent_retrieval_by_user_and_thread_isolation: asking for what is not there leaves nothing of the asking."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Mapping
from inspect import isawaitable
from typing import Any

from lab_utils.target import Capability, EndReport, Target
from lab_utils.trial import Trial

__all__ = ["judge_absent"]

_EACH = 3


async def judge_absent(trial: Trial, target: Target) -> None:
    """Ask, in every way that makes nothing, for users who were never there; require the answer "nothing", the counts
    as before, and that nobody holds the id afterwards.

    The last is exact: what keeps an entry for an id, a tuple with it or a message, holds the very text that was handed
    in, and its references are counted. An entry under a copy of it is not seen.
    """
    before = _counts(target)
    asked = 0
    for what, ask in _ways(target).items():
        for number in range(_EACH):
            # Made here and now: nobody else has this object.
            user = f"nobody-{trial.rng.randrange(10**9)}-{what}-{number}"
            held = sys.getrefcount(user)
            answer = ask(user)
            if isawaitable(answer):
                answer = await answer
            nothing = answer in (None, False, 0, EndReport(False, 0))
            trial.require(nothing, "phantom-agent", f"{what} of {user!r}, who never was, was answered {answer!r}")
            del answer
            await trial.waiting.settle(2)
            if sys.getrefcount(user) > held:
                gc.collect()
            kept = sys.getrefcount(user) > held
            sentence = f"{what} of {user!r}, who never was, left something that holds the id"
            trial.require(not kept, "lookup-created", sentence, *(_holders(user) if kept else ()))
            asked += 1
    after = _counts(target)
    sentence = f"asking for what is not there changed the counts from {before} to {after}"
    trial.require(before == after, "lookup-created", sentence)
    trial.measure("requests for what is not there", asked, "requests")


def _ways(target: Target) -> Mapping[str, Callable[[str], Any]]:
    able = target.capabilities
    ways: dict[str, Callable[[str], Any]] = {}
    if Capability.LOOKUP in able:
        ways["get"] = lambda user: target.get(user, "helper")
        ways["get in a thread"] = lambda user: target.get(user, "helper", "main")
    if Capability.REMOVE in able:
        ways |= {"remove": lambda user: target.remove(user, "helper"), "reset": target.reset}
    if Capability.END in able:
        ways["end"] = target.end
    if Capability.EVENTS in able:
        ways["connections"] = target.connections
    return ways


def _counts(target: Target) -> tuple[object, ...]:
    able = target.capabilities
    return (
        target.population() if Capability.POPULATION in able else None,
        target.connections() if Capability.EVENTS in able else None,
    )


def _holders(user: str) -> list[str]:
    found = [one for one in gc.get_referrers(user) if isinstance(one, (dict, list, set, tuple))]
    return [f"held by a {type(one).__name__} of {len(one)}" for one in found] or ["held by what cannot be shown"]
