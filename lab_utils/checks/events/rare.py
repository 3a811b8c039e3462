"""A part of bridge_communication_validation_per_user: events that are rare, of one user on a loop whose clock is the
lab's own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Final

from lab_utils.checks.histories import BEGINS_S, Histories, do, judge_histories
from lab_utils.checks.memory.sockets import Connection, Device, NotGreeted
from lab_utils.interleavings import Stage
from lab_utils.target import Capability, NotSupported, Recipe, Refused, Subscription, Target
from lab_utils.trial import Trial
from lab_utils.values.quantities import counted

__all__ = ["HISTORIES", "judge_rare_events"]

_USER = "ann"
_CLOSE_S = 1.0
_DEVICES = 12
"""Clients of one user at once."""
_THOUGHTS: Final = ("", "again", "again", " ", "0", "null", "")
_MESSAGES: Final = ("short", "", "long: " + "many words " * 100)
"""Texts of errors, each of which is sent whole."""
_ORDERS: Final = (
    ("create", "attach", "attach", "connect"),
    ("attach", "create", "attach", "connect"),
    ("connect", "create", "attach", "connect"),
    ("create", "connect", "attach", "attach"),
    ("create", "create", "connect", "attach", "connect"),
)
_LOOKS = 100
"""How often it is looked whether a socket has been let in."""
_MANY_CLIENTS, _TIMES = 24, 40
"""Clients of one user, of whom some are refused where a user may have fewer; and how often one comes and goes."""
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


async def _odd_words(stage: Stage, target: Target) -> None:
    """Thoughts that are empty or equal the one before are sent as all others are, and so is the text of an error,
    however short or long."""
    await target.start([Recipe("helper")], {}, _CLOSE_S)
    client = target.subscribe(_USER)
    handle = await target.create(_USER, "helper")
    await do(target, handle, "think", thoughts=list(_THOUGHTS))
    for message in _MESSAGES:
        try:
            await do(target, handle, "fail", message=message)
        except Exception as raised:
            stage.require_explorable(raised)
    await asyncio.sleep(BEGINS_S)
    events = [(one.type, json.loads(one.body)) for one in client.received()]
    thoughts = [body.get("thought") for kind, body in events if kind == "agent_thinking"]
    if thoughts != list(_THOUGHTS):
        is_less = len(thoughts) < len(_THOUGHTS)
        sentence = f"an agent of {_USER!r} thought {list(_THOUGHTS)}, and its client received {thoughts}"
        stage.find("lost-event" if is_less else "altered-payload", sentence)
    messages = [body.get("message") for kind, body in events if kind == "agent_error"]
    wrong = [(sent, came) for sent, came in zip(_MESSAGES, messages, strict=False) if sent != came]
    if wrong:
        sent, came = wrong[0]
        words = f"has the message {came!s:.40} of {len(str(came))} characters"
        sentence = f"the event of a run of {_USER!r} that failed with {sent[:40]!r}, {len(sent)} characters, {words}"
        stage.find("altered-payload", sentence)


async def _last_of_all(stage: Stage, target: Target) -> None:
    """The end of a session closes its user's clients, in whatever order they came, the manager and the agent."""
    await target.start([Recipe("helper")], {}, _CLOSE_S)
    for steps in _ORDERS:
        clients: list[Subscription] = []
        for step in steps:
            if step == "create":
                await target.create(_USER, "helper")
            elif step == "attach":
                await target.attach(_USER)
            else:
                clients.append(target.subscribe(_USER))
        await target.end(_USER)
        await stage.rest()
        there = sum(client.is_open for client in clients)
        if there or target.connections(_USER):
            sentence = (
                f"after {', '.join(steps)} and the end of {_USER!r} {there} of {len(clients)} clients are connected"
            )
            stage.find("connection-left", f"{sentence}, and {target.connections(_USER)} are counted")
            return


async def _places_of_clients(stage: Stage, target: Target) -> None:
    """However often clients have come and gone, and more were refused, as many are let in as before."""
    await target.start([Recipe("helper")], {}, _CLOSE_S)

    async def close(clients: Sequence[Subscription]) -> None:
        for client in clients:
            await client.close()

    async def end(_: Sequence[Subscription]) -> None:
        await target.create(_USER, "helper")
        await target.end(_USER)

    leavings = {"had closed": close} | (
        {"their sessions had closed": end} if Capability.END in target.capabilities else {}
    )
    for words, leave in leavings.items():
        first = 0
        for count in (_MANY_CLIENTS, *(1,) * _TIMES, _MANY_CLIENTS):
            clients: list[Subscription] = []
            for _ in range(count):
                try:
                    clients.append(target.subscribe(_USER))
                except Refused:
                    continue
            # One that is beyond the limit may be refused, or take the place of an earlier one.
            there = sum(client.is_open for client in clients)
            first = first or there
            if there < min(count, first):
                sentence = (
                    f"of {count} new clients of {_USER!r} {there} were let in, and of as many as there was room for"
                )
                stage.find("connection-left", f"{sentence}, {first}, once others {words}")
                break
            await leave(clients)
            await stage.rest()


async def _early_clients(stage: Stage, target: Target) -> None:
    """Of two clients of a user without a session one leaves: the other stays, is counted, and receives what comes."""
    await target.start([Recipe("helper")], {}, _CLOSE_S)
    leaving, staying = target.subscribe(_USER), target.subscribe(_USER)
    await leaving.close()
    await stage.rest()
    what = f"of two clients of {_USER!r}, who has no session yet, one has left, and the other"
    counted = target.connections(_USER) if staying.is_open else 1
    await do(target, await target.create(_USER, "helper"), "recall")
    await stage.rest()
    # One cause, one finding: a client that was taken away is not counted either.
    if not any(event.type == "agent_completed" for event in staying.received()):
        stage.find("lost-event", f"{what} receives nothing of the session that begins then")
    elif counted != 1:
        stage.find("wrong-count", f"{what} is open: {counted} are counted")


async def _places_of_sockets(stage: Stage, target: Target) -> None:
    """The same, of clients that have a socket, on the target's own app without a server."""
    await target.start([Recipe("helper")], {}, _CLOSE_S)
    try:
        app, token = target.asgi_app(), target.token(_USER)
    except ImportError as missing:
        raise NotSupported(f"sockets need a missing package: {missing}") from missing

    async def until(holds: Callable[[], bool]) -> bool:
        for _ in range(_LOOKS):
            if holds():
                return True
            await asyncio.sleep(BEGINS_S / _LOOKS)
        return holds()

    first = 0
    for _ in range(2):
        async with AsyncExitStack() as there:
            let_in = 0
            for _ in range(_MANY_CLIENTS):
                with suppress(NotGreeted):
                    await there.enter_async_context(Connection(app, Device(token), until))
                    let_in += 1
        first = first or let_in
        if let_in < first:
            sentence = f"of {_MANY_CLIENTS} sockets of {_USER!r} {first} were let in, and {let_in} once all had closed"
            stage.find("connection-left", sentence)


HISTORIES: Histories = (
    ("a run that left the line is reported whole or not at all", frozenset({Capability.EVENTS}), _left_line),
    ("an event that cannot be sent takes no number", frozenset({Capability.EVENTS}), _unencodable),
    ("a client that reads late misses nothing", frozenset({Capability.END, Capability.EVENTS}), _read_late),
    ("many clients of one user receive the same", frozenset({Capability.EVENTS}), _many_clients),
    ("a client that comes in the middle of a run receives the rest", frozenset({Capability.EVENTS}), _comes_meanwhile),
    ("odd words are sent as they are", frozenset({Capability.EVENTS}), _odd_words),
    ("an end closes all clients", frozenset({Capability.END, Capability.EVENTS}), _last_of_all),
    ("a client that has gone leaves its place", frozenset({Capability.EVENTS}), _places_of_clients),
    ("a client that leaves early takes no other with it", frozenset({Capability.EVENTS}), _early_clients),
    ("a socket that has gone leaves its place", frozenset({Capability.SOCKETS}), _places_of_sockets),
)
