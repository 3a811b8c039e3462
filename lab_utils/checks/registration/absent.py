"""A part of agent_retrieval_by_user_and_thread_isolation: a request for something that is not there leaves nothing
behind."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Mapping, Sequence
from inspect import isawaitable
from itertools import islice
from types import FunctionType, ModuleType
from typing import Any

from lab_utils.probes.leftovers import growing
from lab_utils.probes.paths import described
from lab_utils.target import Capability, EndReport, Refused, Target
from lab_utils.trial import Trial
from lab_utils.trial.allowance import Allowance
from lab_utils.values.verdict import Finding, Verdict

__all__ = ["judge_absent"]

_KNOWN = "somebody-who-is-there"
_OFTEN = 1_000
"""How many absent ids each way is asked for, and how many more while it is seen whether these are kept."""
_LEAST = 50
_LONGEST_S = 0.5
"""Seconds after which a slow target is asked for no more than the least, unless it seems to keep them."""
_ALL_S = 30.0
"""Seconds after which a slow target is not asked in further ways."""
_KEPT_FOR_S = 20.0
"""Seconds in which a slow target that seems to keep ids is asked for more, until a bounded store has dropped them."""
_MOST_KEPT = 0.5
"""The part of the ids that may still be held when as many more were asked for: a bounded store drops the old ones."""
_LEAST_LEFT = 0.5
"""Blocks of memory left for each id, beyond which something is: an entry takes one at least."""
_MORE = 200
"""Requests that show which container grows, where one does."""
_DEPTH = 6
_MOST_WALKED = 20_000
_NOT_PLAIN = {"note": object()}
_ENOUGH = 200
"""Ids below which blocks of memory are not judged: a bounded cache may still fill."""


async def judge_absent(trial: Trial, target: Target) -> None:
    """Ask, in every way that makes nothing, for something that was never there: a user, or a thread or a type of a
    present user. Require the answer "nothing", the counts as before, and that the ids are not held afterwards.

    References are counted: an entry for an id, a tuple with it or a message holds the very text that was handed in. An
    entry under a copy of it is seen where each of a thousand leaves memory. One id that is kept is no finding: the last
    user may be, and a bounded cache of lookups in vain. A cache of more than 1,500 cannot be distinguished from one
    without a bound.
    """
    try:
        await target.create(_KNOWN, "helper")
    except Exception as error:
        trial.find("failed-operation", f"a create fails with {type(error).__name__}: {error}", repr(error))
        return
    before = _counts(target)
    asked = 0
    # One cause, one finding: the container that grows -> a sentence and its evidence for each kind of request.
    left: dict[str, list[tuple[str, str, str]]] = {}
    of_all = Allowance(_ALL_S)
    for what, ask in _ways(target).items():
        if of_all.is_over():
            trial.leave_out(f"whether {what} leaves anything, for want of time")
            continue
        asked += await _judge_way(trial, target, what, ask, left, of_all)
        trial.judge_early(_created(left))
    if left:
        trial.judge(_created(left))
    after = _counts(target)
    sentence = f"asking for something that is not there changed the counts from {before} to {after}"
    trial.require(before == after, "lookup-created", sentence)
    trial.measure("requests for something that is not there", asked, "requests")


def _created(left: Mapping[str, Sequence[tuple[str, str, str]]]) -> Verdict:
    """One finding for each container in which requests have left something."""
    findings = []
    for found in left.values():
        sentence = found[0][0] + (f"; so do {len(found) - 1} other kinds of request" if len(found) > 1 else "")
        witness = (*(requests for _, requests, _ in found), found[-1][-1])
        findings.append(Finding("lookup-created", sentence, witness))
    return Verdict.of(findings, 1, "")


async def _judge_way(
    trial: Trial,
    target: Target,
    what: str,
    ask: Callable[[str], Any],
    found: dict[str, list[tuple[str, str, str]]],
    of_all: Allowance,
) -> int:
    """Judge one way of asking by whether the first ids are still held when as many more were asked for. Add remains to
    `found`; return how many ids there were. The requests count in `of_all`, too."""
    number = trial.rng.randrange(10**9)
    # Made here and now: nobody else has these objects. They are made before any memory is counted.
    ids = [f"nobody-{number}-{place}" for place in range(2 * _OFTEN)]
    held = [sys.getrefcount(one) for one in ids]
    asked = often = blocks = 0
    allowance = Allowance(_LONGEST_S)
    for absent in ids:
        is_over = allowance.is_over()
        of_all.is_over()
        if not often and (asked == _OFTEN or (asked >= _LEAST and is_over)):
            often = asked
            await trial.waiting.settle(2)
            gc.collect()
            blocks = sys.getallocatedblocks()
            allowance = Allowance(_KEPT_FOR_S)
        elif often and asked >= 2 * often and (is_over or len(_kept(ids, held, often)) <= _MOST_KEPT * often):
            break
        answer = await _answered(ask, absent)
        if answer not in (None, False, 0, EndReport(False, 0)):
            trial.find("phantom-agent", f"{what} {absent!r}, which never existed, returned {answer!r}")
            return asked + 1
        del answer
        asked += 1
    await trial.waiting.settle(2)
    gc.collect()
    left = sys.getallocatedblocks() - blocks
    kept = _kept(ids, held, often)
    more = asked - often
    if len(kept) > _MOST_KEPT * often:
        sentence = f"{what}: {len(kept):,} of {often:,} unknown ids are still held after {more:,} others were asked for"
        remains = f"an entry for {len(kept):,} of the first {often:,} ids"
    elif often < _ENOUGH:
        trial.leave_out(f"the memory that {what} leaves, for want of time: {often:,} requests show too little")
        return asked
    elif left >= _LEAST_LEFT * more:
        sentence = f"{what}: {more:,} requests with unknown ids left {left:,} blocks of memory"
        remains = f"{left:,} blocks of memory"
    else:
        trial.expectations += 1
        return asked
    container, growth = await _growth(target, ask, often)
    requests = f"{asked:,} requests of the kind {what!r} left {remains}"
    found.setdefault(container or what, []).append((sentence, requests, growth))
    return asked


def _kept(ids: Sequence[str], held: Sequence[int], often: int) -> list[str]:
    """The first ids to which more refers than before."""
    now = [sys.getrefcount(one) for one in islice(ids, often)]
    return [ids[place] for place in range(often) if now[place] > held[place]]


async def _answered(ask: Callable[[str], Any], absent: str) -> Any:
    try:
        answer = ask(absent)
        return await answer if isawaitable(answer) else answer
    except Refused:
        return None


def _ways(target: Target) -> Mapping[str, Callable[[str], Any]]:
    able = target.capabilities
    ways: dict[str, Callable[[str], Any]] = {}
    if Capability.LOOKUP in able:
        ways["get of the user"] = lambda user: target.get(user, "helper")
        ways["get in a thread of the user"] = lambda user: target.get(user, "helper", "main")
        # White space at an end: it is refused as no id of a user.
        ways["get of what is no user id"] = lambda user: target.get(f"{user} ", "helper")
        if Capability.THREADS in able:
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
    if Capability.STRICT in able:
        ways["a refused create_strict of the user"] = lambda user: target.create_strict(user, "helper", _NOT_PLAIN)
        ways["a refused create_strict of the type"] = lambda agent_type: target.create_strict(_KNOWN, agent_type, {})
    return ways


def _counts(target: Target) -> tuple[object, ...]:
    able = target.capabilities
    return (
        target.population() if Capability.POPULATION in able else None,
        target.connections() if Capability.EVENTS in able else None,
    )


async def _growth(target: Target, ask: Callable[[str], Any], often: int) -> tuple[str, str]:
    """The way to the container that grows as some more requests are made, and a line on it; "" where none is known."""
    with growing() as grown:
        for number in range(_MORE):
            await _answered(ask, f"nobody-at-all-{number}")
    lines = grown.lines({"the target": target}, _MORE // 2, 1) or _large(target, often)
    if not lines:
        return "", "nothing within the target that is a container of so many; its holder may be C code, or a module"
    line = lines[0].partition("; allocated ")[0]
    return line.rpartition(": the target")[2].partition(" -> ")[0], line


def _large(target: Target, least: int) -> list[str]:
    """The first container of so many within the target: the collector does not list one of nothing but plain values."""
    paths: list[list[Any]] = [[target]]
    seen = {id(target)}
    for path in paths:
        if isinstance(path[-1], (dict, list, set)) and len(path[-1]) >= least:
            return [f"a {type(path[-1]).__name__} of {len(path[-1]):,}: {described('the target', path)}"]
        for one in gc.get_referents(path[-1]) if len(path) < _DEPTH else ():
            is_code = isinstance(one, (type, ModuleType, FunctionType, str))
            if id(one) not in seen and not is_code and len(paths) < _MOST_WALKED:
                seen.add(id(one))
                paths.append([*path, one])
    return []
