"""A part of bridge_communication_validation_per_user: events that are rare, of one user on a loop whose clock is the
lab's own."""

from __future__ import annotations

import asyncio

from lab_utils.checks.histories import BEGINS_S, Histories, do, judge_histories
from lab_utils.interleavings import Stage
from lab_utils.target import Capability, Recipe, Target
from lab_utils.trial import Trial

__all__ = ["HISTORIES", "judge_rare_events"]

_USER = "ann"
_CLOSE_S = 1.0
_FEW, _MOST_UNREAD = 5, 1_200
"""Events that a client leaves unread: few, and more than a buffer of a round size holds."""


async def judge_rare_events(trial: Trial) -> None:
    await judge_histories(trial, HISTORIES, "histories of rare events, each as it should be")


async def _left_line(stage: Stage, target: Target) -> None:
    """A run whose caller is cancelled as it waits for its turn is reported as begun and as ended, or not at all."""
    held = asyncio.Event()

    async def on_run(_: str) -> None:
        await held.wait()

    await target.start([Recipe("helper", None, on_run)], {}, _CLOSE_S)
    client = target.subscribe(_USER)
    handle = await target.create(_USER, "helper")
    runs = [asyncio.ensure_future(do(target, handle, "recall")) for _ in range(2)]
    await asyncio.sleep(BEGINS_S)
    runs[1].cancel()
    await asyncio.sleep(BEGINS_S)
    held.set()
    await asyncio.gather(*runs, return_exceptions=True)
    await asyncio.sleep(BEGINS_S)
    types = [one.type for one in client.received()]
    begun, ended = types.count("agent_started"), types.count("agent_completed") + types.count("agent_error")
    if begun > ended:
        sentence = f"of two runs of one agent of {_USER!r} the second was cancelled as it waited for its turn: {begun}"
        stage.find("no-end-event", f"{sentence} runs were reported as begun, and {ended} as ended")


async def _unencodable(stage: Stage, target: Target) -> None:
    """An event that cannot be sent, for its text is none that a socket carries, takes no number."""
    await target.start([Recipe("helper")], {}, _CLOSE_S)
    client = target.subscribe(_USER)
    handle = await target.create(_USER, "helper")
    try:
        await do(target, handle, "think", thoughts=["before", "half of a letter: \ud83d"])
    except Exception as raised:
        stage.require_explorable(raised)
    await do(target, handle, "recall")
    await asyncio.sleep(BEGINS_S)
    numbers = [one.seq for one in client.received()]
    if numbers != list(range(1, len(numbers) + 1)):
        sentence = f"one event of {_USER!r} could not be sent, and the numbers of the others are {numbers}"
        stage.find("gap-in-seq", sentence)


async def _read_late(stage: Stage, target: Target) -> None:
    """A client that reads only after the end has every event that was sent before it, or was cut off before."""
    await target.start([Recipe("helper")], {}, _CLOSE_S)
    for count in (_FEW, _MOST_UNREAD):
        client = target.subscribe(_USER)
        handle = await target.create(_USER, "helper")
        thoughts = [str(number) for number in range(count)]
        await do(target, handle, "think", thoughts=thoughts)
        await asyncio.sleep(BEGINS_S)
        was_open = client.is_open
        await target.end(_USER)
        await stage.rest()
        read = {one.body for one in client.received() if one.type == "agent_thinking"}
        lost = [one for one in thoughts if f'{{"thought": "{one}"}}' not in read]
        if was_open and lost:
            sentence = f"a client of {_USER!r} that read nothing before the end was connected all the time, and never"
            stage.find("lost-event", f"{sentence} received {len(lost)} of {count} events, {lost[0]!r} first")


HISTORIES: Histories = (
    ("a run that left the line is reported whole or not at all", frozenset({Capability.EVENTS}), _left_line),
    ("an event that cannot be sent takes no number", frozenset({Capability.EVENTS}), _unencodable),
    ("a client that reads late misses nothing", frozenset({Capability.END, Capability.EVENTS}), _read_late),
)
