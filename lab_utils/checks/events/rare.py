"""A part of bridge_communication_validation_per_user: events that are rare, of one user on a loop whose clock is the
lab's own."""

from __future__ import annotations

import asyncio

from lab_utils.checks.histories import BEGINS_S, Histories, do, judge_histories
from lab_utils.interleavings import Stage
from lab_utils.target import Capability, Recipe, Refused, Subscription, Target
from lab_utils.trial import Trial
from lab_utils.values.quantities import counted

__all__ = ["HISTORIES", "judge_rare_events"]

_USER = "ann"
_CLOSE_S = 1.0
_DEVICES = 12
"""Clients of one user at once."""
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


async def _many_clients(stage: Stage, target: Target) -> None:
    """All of a user's clients receive the same, however many they are; one that is refused or cut off receives
    nothing."""
    await target.start([Recipe("helper")], {}, _CLOSE_S)
    handle, clients = await target.create(_USER, "helper"), list[Subscription]()
    while len(clients) < _DEVICES:
        try:
            clients.append(target.subscribe(_USER))
        except Refused:
            break
    await do(target, handle, "think", thoughts=["to all"])
    await asyncio.sleep(BEGINS_S)
    thoughts = [sum(one.type == "agent_thinking" for one in client.received()) for client in clients if client.is_open]
    if missed := thoughts.count(0):
        sentence = f"{counted(len(thoughts), 'client')} of {_USER!r} were connected, and {missed} of them"
        stage.find("lost-event", f"{sentence} received nothing of a run")


async def _comes_meanwhile(stage: Stage, target: Target) -> None:
    """A client that connects in the middle of a run receives what the run sends from then on."""
    held = asyncio.Event()

    async def on_run(_: str) -> None:
        await held.wait()

    await target.start([Recipe("helper", None, on_run)], {}, _CLOSE_S)
    first = target.subscribe(_USER)
    handle = await target.create(_USER, "helper")
    run = asyncio.ensure_future(do(target, handle, "think", thoughts=["to both"]))
    await asyncio.sleep(BEGINS_S)
    second = target.subscribe(_USER)
    held.set()
    await run
    await asyncio.sleep(BEGINS_S)
    thoughts = [[one.body for one in client.received() if one.type == "agent_thinking"] for client in (first, second)]
    if second.is_open and thoughts[1] != thoughts[0]:
        sentence = f"a client of {_USER!r} that came in the middle of a run received {len(thoughts[1])} of its later"
        stage.find("lost-event", f"{sentence} events, and one that was there before received {len(thoughts[0])}")


HISTORIES: Histories = (
    ("a run that left the line is reported whole or not at all", frozenset({Capability.EVENTS}), _left_line),
    ("an event that cannot be sent takes no number", frozenset({Capability.EVENTS}), _unencodable),
    ("a client that reads late misses nothing", frozenset({Capability.END, Capability.EVENTS}), _read_late),
    ("many clients of one user receive the same", frozenset({Capability.EVENTS}), _many_clients),
    ("a client that comes in the middle of a run receives the rest", frozenset({Capability.EVENTS}), _comes_meanwhile),
)
