"""A part of agent_retrieval_by_user_and_thread_isolation: asking for something that is not there leaves nothing of the
asking."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Mapping
from inspect import isawaitable
from typing import Any

from lab_utils.target import Capability, EndReport, Refused, Target
from lab_utils.trial import Trial

__all__ = ["judge_absent"]

_KNOWN = "somebody-who-is-there"
_EACH = 3
_OFTEN = 1_000
_FEW = 50
"""How often each is asked in a row; few times of a target that takes its time."""
_QUICK_S = 0.002
_LEAST_LEFT = 0.5
"""Blocks of memory left for each asking, beyond which something is: an entry takes one at least."""


async def judge_absent(trial: Trial, target: Target) -> None:
    """Ask, in every way that makes nothing, for something that was never there: a user, or a thread or a type of a
    present user. Require the answer "nothing", the counts as before, and that nobody holds the id afterwards.

    The last is exact: an entry for an id, a tuple with it or a message holds the very text that was handed in, and its
    references are counted. An entry under a copy of it is seen where each of a thousand leaves memory.
    """
    try:
        await target.create(_KNOWN, "helper")
    except Exception as error:
        trial.find("failed-operation", f"a create fails with {type(error).__name__}: {error}", repr(error))
        return
    before = _counts(target)
    asked = 0
    for what, ask in _ways(target).items():
        began = time.perf_counter()
        is_clean = True
        for number in range(_EACH):
            # Made here and now: nobody else has this object.
            absent = f"nobody-{trial.rng.randrange(10**9)}-{number}"
            held = sys.getrefcount(absent)
            answer = await _answered(ask, absent)
            nothing = answer in (None, False, 0, EndReport(False, 0))
            trial.require(nothing, "phantom-agent", f"{what} {absent!r}, which never was, was answered {answer!r}")
            del answer
            await trial.waiting.settle(2)
            if sys.getrefcount(absent) > held:
                gc.collect()
            kept = sys.getrefcount(absent) > held
            sentence = f"{what} {absent!r}, which never was, left something that holds the id"
            trial.require(not kept, "lookup-created", sentence, *(_holders(absent) if kept else ()))
            asked += 1
            if kept or not nothing:
                # One cause, one finding: the next id is left in the same place.
                is_clean = False
                break
        often = _OFTEN if time.perf_counter() - began < _EACH * _QUICK_S else _FEW
        if is_clean:
            left = await _left_by(ask, often)
            sentence = f"{what}, asked for {often:,} that never were, left {left:,} blocks of memory"
            trial.require(left < _LEAST_LEFT * often, "lookup-created", sentence)
            asked += 2 * often
    after = _counts(target)
    sentence = f"asking for something that is not there changed the counts from {before} to {after}"
    trial.require(before == after, "lookup-created", sentence)
    trial.measure("requests for something that is not there", asked, "requests")


async def _answered(ask: Callable[[str], Any], absent: str) -> Any:
    try:
        answer = ask(absent)
        return await answer if isawaitable(answer) else answer
    except Refused:
        return None


async def _left_by(ask: Callable[[str], Any], often: int) -> int:
    """The blocks of memory that so many requests leave, after as many that fill bounded stores."""
    blocks = 0
    for first in (0, often):
        gc.collect()
        blocks = sys.getallocatedblocks()
        for number in range(first, first + often):
            await _answered(ask, f"nobody-of-many-{number}")
    gc.collect()
    return sys.getallocatedblocks() - blocks


def _ways(target: Target) -> Mapping[str, Callable[[str], Any]]:
    able = target.capabilities
    ways: dict[str, Callable[[str], Any]] = {}
    if Capability.LOOKUP in able:
        ways["get of the user"] = lambda user: target.get(user, "helper")
        ways["get in a thread of the user"] = lambda user: target.get(user, "helper", "main")
        ways["get of a type that is there, in the thread"] = lambda thread: target.get(_KNOWN, "helper", thread)
        ways["get of the type"] = lambda agent_type: target.get(_KNOWN, agent_type)
    if Capability.REMOVE in able:
        ways |= {"remove of the user": lambda user: target.remove(user, "helper"), "reset of the user": target.reset}
        ways["remove of the type"] = lambda agent_type: target.remove(_KNOWN, agent_type)
    if Capability.END in able:
        ways["end of the user"] = target.end
    if Capability.EVENTS in able:
        ways["connections of the user"] = target.connections
    if Capability.GET_OR_CREATE in able:
        ways["a refused get_or_create of the type"] = lambda agent_type: target.get_or_create(_KNOWN, agent_type)
    if Capability.PERMISSIONS in able:
        ways["a refused create of the user"] = lambda user: target.create(user, "helper", context_user="another")
        ways["a refused create of the type"] = lambda agent_type: target.create(_KNOWN, agent_type)
    return ways


def _counts(target: Target) -> tuple[object, ...]:
    able = target.capabilities
    return (
        target.population() if Capability.POPULATION in able else None,
        target.connections() if Capability.EVENTS in able else None,
    )


def _holders(user: str) -> list[str]:
    found = [one for one in gc.get_referrers(user) if isinstance(one, (dict, list, set, tuple))]
    return [f"held by a {type(one).__name__} of {len(one)}" for one in found] or [
        "held by something that cannot be shown"
    ]
