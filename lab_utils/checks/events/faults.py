"""Faults of websocket_connection_lifecycle_management: connections that break, servers and processes that end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from lab_utils.checks.events.talking import Listener, Talk, all_arrived, each, heard, patiently, require_of, thought
from lab_utils.judges.delivery import exactly_its_own
from lab_utils.sockets.transport import SocketSubscription, SocketTransport
from lab_utils.target import Handle, Recipe, Target
from lab_utils.trial import Trial
from lab_utils.trial.faults import Gate

__all__ = ["breaks_and_restarts"]

_MISSED = 20
"""Thoughts while a device is away: more than a client lets pass before it acknowledges, so that one device's
acknowledgements are ahead of the other's events."""


@dataclass(slots=True)
class _Traveller:
    """One user with a phone that goes away and a tablet that stays."""

    talk: Talk
    handle: Handle
    phone: Listener
    tablet: Listener

    @property
    def devices(self) -> tuple[SocketSubscription, ...]:
        return tuple(map(_socket, (self.phone, self.tablet)))


async def breaks_and_restarts(trial: Trial, users: Sequence[str]) -> None:
    """In the middle of everybody's runs: break connections, then end the server, then the process. A client that comes
    back must receive exactly the events that it missed, or a warning."""
    gates: dict[str, Gate] = {}

    async def on_run(user: str) -> None:
        if user in gates:
            await gates[user](user)

    recipes = [Recipe("helper", on_run=on_run)]
    target = await trial.target(recipes)
    sockets = trial.sockets(target)
    assert sockets is not None
    travellers = await _settled_in(trial, target, sockets, users)
    await _connections_break(trial, target, travellers, gates)
    await _server_restarts(trial, sockets, travellers, gates)
    fresh = await trial.target(recipes)
    await _process_restarts(trial, target, fresh, travellers)
    await trial.stop(target)
    await trial.stop(fresh)


async def _settled_in(
    trial: Trial, target: Target, sockets: SocketTransport, users: Sequence[str]
) -> dict[str, _Traveller]:
    travellers: dict[str, _Traveller] = {}
    talks = [Talk(trial, target, user) for user in users]

    async def settle_in(_: int, talk: Talk) -> None:
        phone = talk.join("phone", await sockets.connect(talk.user))
        # Acknowledges each event: the phone may still need events that it no longer needs.
        tablet = talk.join("tablet", await sockets.connect(talk.user, ack_every=1))
        traveller = _Traveller(talk, await talk.client.create("helper"), phone, tablet)
        await talk.run(traveller.handle, "think", thoughts=[thought(talk.user, 0)])
        travellers[talk.user] = traveller

    await each(trial, talks, settle_in)
    return travellers


async def _connections_break(
    trial: Trial, target: Target, travellers: dict[str, _Traveller], gates: dict[str, Gate]
) -> None:
    async def travel(_: int, talk: Talk) -> None:
        one = travellers[talk.user]
        phone = _socket(one.phone)
        running = await _in_the_middle(trial, one, gates, 100)
        await phone.drop()
        await patiently(trial, lambda: target.connections(talk.user) <= 1)
        found = target.connections(talk.user)
        anomaly = "connection-left" if found > 1 else "connection-lost"
        sentence = f"the target holds {found} connections of {talk.user!r}, one of whose two has broken"
        require_of(trial, found == 1, anomaly, sentence, talk.user)
        gates.pop(talk.user).open()
        await running
        thoughts = [thought(talk.user, 200 + number) for number in range(_MISSED)]
        await talk.run(one.handle, "think", thoughts=thoughts)
        await heard(trial, one.tablet)
        await phone.resume()

    await each(trial, _talks(travellers), travel)
    # Exactly: so few events, so soon after, are too little for a warning of a loss.
    trial.judge(exactly_its_own(await all_arrived(trial, _talks(travellers))))
    trial.measure("clients whose connection broke in a run", len(travellers), "clients")


async def _server_restarts(
    trial: Trial, sockets: SocketTransport, travellers: dict[str, _Traveller], gates: dict[str, Gate]
) -> None:
    running: dict[str, asyncio.Future[None]] = {}

    async def begin(_: int, talk: Talk) -> None:
        running[talk.user] = await _in_the_middle(trial, travellers[talk.user], gates, 300)

    async def go_on(_: int, talk: Talk) -> None:
        one = travellers[talk.user]
        gates.pop(talk.user).open()
        await running.pop(talk.user)
        await talk.run(one.handle, "think", thoughts=[thought(talk.user, 400)])
        for device in one.devices:
            await device.resume()
        await talk.run(one.handle, "think", thoughts=[thought(talk.user, 401)])

    await each(trial, _talks(travellers), begin)
    await sockets.restart()
    devices = [device for one in travellers.values() for device in one.devices]
    await patiently(trial, lambda: all(device.is_over for device in devices))
    await each(trial, _talks(travellers), go_on)
    trial.judge(exactly_its_own(await all_arrived(trial, _talks(travellers))))
    trial.measure("clients that came back after a restart of the server", len(devices), "clients")


async def _process_restarts(trial: Trial, old: Target, new: Target, travellers: dict[str, _Traveller]) -> None:
    """A new process knows nothing of the old one: a client that comes back must receive a warning, whether the process
    has emitted as many events as the client has had or none yet."""
    await trial.replace(old, new)
    sockets = trial.sockets(new)
    assert sockets is not None
    second = [Talk(trial, new, user) for user in travellers]

    async def return_(position: int, talk: Talk) -> None:
        one = travellers[talk.user]
        # Acknowledges nothing, so that the new stream is kept from its first event.
        talk.join("tablet, after the restart", await sockets.connect(talk.user, ack_every=1_000_000))
        handle = await talk.client.create("helper")
        if position % 2:
            had = len(one.talk.said)
            thoughts = [thought(talk.user, 10_000 + number) for number in range(had)]
            await talk.run(handle, "think", thoughts=thoughts)
            await heard(trial, talk.listeners[0])
        phone = _socket(one.phone)
        had, resyncs = len(phone.received()), phone.resyncs
        await phone.resume(new.token(talk.user))
        told = phone.resyncs > resyncs
        sentence = (
            f"the phone of {talk.user!r} came back to a new process with number {had} of a stream of the old one, and "
            "was not warned that it may have missed something"
        )
        require_of(trial, told, "undetected-restart", sentence, talk.user)
        if told:
            talk.join("phone, after the restart", phone, had=had)
        await talk.run(handle, "think", thoughts=[thought(talk.user, 20_000)])

    await each(trial, second, return_)
    trial.judge(exactly_its_own(await all_arrived(trial, second)))
    trial.measure("clients warned of a new process", len(second), "clients")


async def _in_the_middle(trial: Trial, one: _Traveller, gates: dict[str, Gate], number: int) -> asyncio.Future[None]:
    """Start a run and return once it is under way and held, and its first event has come."""
    gate = gates[one.talk.user] = Gate()
    thoughts = [thought(one.talk.user, number + place) for place in range(3)]
    had = len(one.talk.said)
    running = asyncio.ensure_future(one.talk.run(one.handle, "think", thoughts=thoughts))
    await trial.waiting.reached(gate.reached, running)
    await patiently(trial, lambda: all(len(device.received()) > had for device in one.devices))
    return running


def _talks(travellers: dict[str, _Traveller]) -> list[Talk]:
    return [one.talk for one in travellers.values()]


def _socket(listener: Listener) -> SocketSubscription:
    assert isinstance(listener.subscription, SocketSubscription)
    return listener.subscription
