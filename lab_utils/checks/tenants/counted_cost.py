"""The cost of ending one session beside few others and beside many, counted in bytecodes instead of timed."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from lab_utils.checks.memory.leak_hunt import Caller
from lab_utils.target import Capability, Command, Recipe, Target
from lab_utils.trial import Trial
from lab_utils.values.verdict import Verdict

__all__ = ["bytecodes", "judge_cost_of_ending"]

_FEW, _MANY = 10, 1_000
_ENDINGS = 3
_AT_ONCE = 20
"""So many of the others come at once: a thousand one after another take too long where a create takes a while."""


class _Counted:
    def __init__(self) -> None:
        self.bytecodes = 0

    def _step(self, frame: FrameType, event: str, _: Any) -> Any:
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        self.bytecodes += event == "opcode"
        return self._step


@contextmanager
def _counting() -> Iterator[_Counted]:
    counted, before = _Counted(), sys.gettrace()
    sys.settrace(counted._step)
    try:
        yield counted
    finally:
        sys.settrace(before)


async def bytecodes(work: Awaitable[Any]) -> int:
    """The bytecodes that this thread runs, in functions entered from now on, until `work` has ended: those of the loop
    and of any other ready callbacks included. The work of one call in C is one bytecode, however long it takes.

    0 if the work ended the trace that counts."""
    with _counting() as counted:
        await work
        was_traced = sys.gettrace() == counted._step
    return counted.bytecodes if was_traced else 0


async def judge_cost_of_ending(trial: Trial) -> None:
    """End sessions beside few others and beside many, and count; require that they cost the same, but for less than
    one bytecode for each of the others. Needs END and EVENTS."""
    target = await trial.target([Recipe("helper")])
    # Not counted: modules are imported at the first, and Python 3.12 and 3.13 begin to count where they have counted.
    for number in range(2):
        await _ending(target, f"leaves-first-{number}")
    costs = {}
    for others in (_FEW, _MANY):
        for first in range(_FEW if others == _MANY else 0, others, _AT_ONCE):
            await _come(trial, target, range(first, min(first + _AT_ONCE, others)))
        # The least of several: a collection, or a table that shrinks, may fall into one of them.
        costs[others] = min([await _ending(target, f"leaving-{n}") for n in range(_ENDINGS)])
    few, many = costs.values()
    if not few or not many:
        reason = "no bytecodes were counted: this interpreter counts none, or the target calls sys.settrace"
        trial.judge(Verdict.unknown(reason))
    sentence = f"ending one session takes {few:,} bytecodes beside {_FEW} others, and {many:,} beside {_MANY:,}"
    trial.require(many - few < _MANY - _FEW, "cost-grows", sentence)
    trial.measure(f"bytecodes of an end beside {_FEW} others", few, "bytecodes")
    trial.measure(f"bytecodes of an end beside {_MANY} others", many, "bytecodes")
    await trial.stop(target)


async def _come(trial: Trial, target: Target, numbers: Iterable[int]) -> None:
    # Nobody records a thousand calls; their ends must be reported all the same, for a slow target has not stopped.
    creates = (Caller(trial, target, "others", f"other-{number}").create("helper") for number in numbers)
    for answer in await trial.waiting.together(creates):
        if isinstance(answer, BaseException):
            raise answer


async def _ending(target: Target, user: str) -> int:
    client = target.subscribe(user) if Capability.EVENTS in target.capabilities else None
    handle = await target.create(user, "helper")
    await target.run(handle, Command("write", {"key": "note", "value": user}))
    del handle
    cost = await bytecodes(target.end(user))
    if client is not None:
        await client.close()
    return cost
