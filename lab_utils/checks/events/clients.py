"""The bodies of the checks on the recipients of events and on the fate of connections."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from lab_utils.checks.crowds import limits_itself
from lab_utils.checks.events.edges import at_the_edges
from lab_utils.checks.events.faults import breaks_and_restarts
from lab_utils.checks.events.strangers import Strangers
from lab_utils.checks.events.talking import (
    Talk,
    all_arrived,
    bridges_of,
    each,
    heard,
    patiently,
    require_of,
    some_of,
    thought,
)
from lab_utils.judges.admission import let_in_by_token
from lab_utils.judges.delivery import Received, crossings, exactly_its_own
from lab_utils.sockets.transport import SocketSubscription
from lab_utils.target import Capability, Handle, Recipe, Target
from lab_utils.trial import ASKED, LAB, Trial
from lab_utils.trial.faults import Gate
from lab_utils.values.workload import canary

__all__ = ["isolation", "lifecycle"]

_LATE = 100
"""The number of a run after all others, which are ten at most."""
_IN_TURN_S = 2.0
"""Seconds after which one run of each user under way is all that there will be."""
_AN_OFFICE = 18
"""Users who have a connection at once, at least, where clients have sockets: more than an address may be allowed."""
_AT_ONCE = 0.25
"""The part of the trial's patience for which a count is waited for that changes at once."""
_AT_THE_EDGES = 2
"""Users at the edges of a connection's guarantees: none of them is one of many users."""


async def isolation(trial: Trial) -> None:
    count = int(trial.parameters["users"])
    users, others = (drawn := trial.neighbours(max(count, _AN_OFFICE)))[:count], drawn[count:]
    gate = Gate()

    inside = Counter[str]()

    async def on_run(user: str) -> None:
        inside[user] += 1
        await gate(user)
        # Users' runs are mixed at every one of them, in an order drawn from the seed.
        await trial.waiting.settle(trial.rng.randrange(4))

    # One type that everybody has, and one for each user, whose every event names its cause.
    own_type = {user: f"private-{number}" for number, user in enumerate(users)}
    target = await trial.target([Recipe(kind, on_run=on_run) for kind in ("helper", *own_type.values())])
    talks = [Talk(trial, target, user) for user in users]
    agents: dict[str, list[Handle]] = {}

    async def settle_in(_: int, talk: Talk) -> None:
        helper = await talk.client.create("helper")
        agents[talk.user] = [helper, await talk.client.create(own_type[talk.user], thread="private")]

    async def speak(_: int, talk: Talk) -> None:
        runs = int(trial.parameters["runs_per_user"])
        await asyncio.gather(*(_say(talk, handle, lane, runs) for lane, handle in enumerate(agents[talk.user])))

    # They say nothing, so nothing is due to them.
    silent = [Talk(trial, target, user) for user in (others if trial.sockets(target) is not None else ())]
    await each(trial, silent, lambda _, talk: talk.connect("phone"))
    # All of them before anybody has a session: the first session made must not take the clients that wait for others.
    await each(trial, talks, lambda _, talk: talk.connect("phone"))
    await each(trial, talks, settle_in)
    speaking = asyncio.ensure_future(each(trial, [talk for talk in talks if talk.user in agents], speak))
    since = trial.now()

    def in_turn() -> bool:
        # A user's own runs may come one after another.
        return inside == dict.fromkeys(agents, 1) and trial.now() >= since + _IN_TURN_S

    await trial.waiting.until(lambda: gate.inside >= 2 * len(agents) or speaking.done() or in_turn())
    at_once, users_at_once, is_in_turn = gate.inside, len(inside), in_turn()
    strangers = await _strangers(trial, target, talks)
    gate.open()
    await speaking
    runs = [(talk, handle, lane) for talk in talks for lane, handle in enumerate(agents.get(talk.user, ()))]
    if is_in_turn:
        trial.leave_out(
            "that two agents of one user are under way at once: the target runs one at a time for each user"
        )
        is_fair = True
    else:
        is_fair = at_once == len(runs) or await limits_itself(
            trial, gate, at_once, runs, lambda run: _say(*run, 1, _LATE)
        )
    received = await all_arrived(trial, [*talks, *silent])
    trial.judge(exactly_its_own(received))
    if strangers is not None:
        await patiently(trial, strangers.settled)
        trial.judge(let_in_by_token(strangers.attempts()))
    sentence = f"only {at_once} of {2 * len(users)} runs of different users were under way at once"
    trial.require(is_fair, "waits-for-other", sentence, *trial.history[-2:])
    _matrix(trial, received, {kind: user for user, kind in own_type.items()})
    trial.show("users running at once", users_at_once, "users", ASKED(">=", 25))


async def _strangers(trial: Trial, target: Target, talks: list[Talk]) -> Strangers | None:
    """While everybody's runs are under way, let two of the users mean to hear each other."""
    sockets = trial.sockets(target)
    if sockets is None:
        return None
    strangers = Strangers(sockets)
    for attacker, victim in ((talks[1], talks[0]), (talks[0], talks[1])):
        for listener in victim.listeners[:1]:
            assert isinstance(listener.subscription, SocketSubscription)
            await strangers.arrive(attacker.user, victim.user, listener.subscription.stream)
    return strangers


async def _say(talk: Talk, handle: Handle, lane: int, runs: int, first: int = 0) -> None:
    for number in range(first, first + runs):
        await talk.run(handle, "think", thoughts=[thought(talk.user, 10 * number + lane), f"step {number}"])
    # The path of an error is another than that of an answer.
    await talk.run(handle, "fail", message=canary(talk.user, "failure", first + lane))


def _matrix(trial: Trial, received: list[Received], owners: dict[str, str]) -> None:
    counts = crossings(received, owners)
    due = sum(len(one.said) for one in received)
    own = sum(min(counts[one.user, one.user], len(one.said)) for one in received)
    foreign = sum(count for (sender, receiver), count in counts.items() if sender != receiver)
    for (sender, receiver), count in sorted(counts.items()):
        trial.sample("delivered", count, "events", x=sender, y=receiver)
    if own + foreign:
        # Where nothing arrived, events are lost, and none of them went to somebody else.
        isolation = 100.0 * own / (own + foreign)
        trial.measure("event isolation", isolation, "%", ASKED("==", 100), LAB("==", 100), anomaly="foreign-event")
    trial.measure("own events delivered", 100.0 * own / due if due else 0.0, "%", LAB("==", 100), anomaly="lost-event")
    trial.measure("events delivered to another user", foreign, "events", LAB("==", 0), anomaly="foreign-event")


async def lifecycle(trial: Trial) -> None:
    users = trial.neighbours(int(trial.parameters["users"]))
    tasks_before = len(asyncio.all_tasks())
    target = await trial.target()
    has_sockets = trial.sockets(target) is not None
    if has_sockets:
        await at_the_edges(trial, users[:_AT_THE_EDGES])
    talks = [Talk(trial, target, user) for user in users]
    can_end = Capability.END in target.capabilities
    if not can_end:
        trial.leave_out(f"clients of sessions that end (the target lacks: {Capability.END})")
    travelling = some_of(trial, users, "clients drop and come back, and servers and processes restart,")
    comings = _Comings(trial, target, travelling, can_end=can_end)
    await each(trial, talks, comings.come)
    # Nothing more can be asked of users whose client was not let in.
    leaving, staying = ([talk for talk in some if talk.user in comings.agents] for some in (talks[::2], talks[1::2]))
    await all_arrived(trial, talks)
    for talk in leaving:
        # A second life of the same user must say nothing to the clients of the first.
        for listener in talk.listeners:
            listener.left_behind()
    # Whatever they lost before, they lost by no departure.
    comings.held = {talk.user: target.connections(talk.user) for talk in staying}
    await each(trial, leaving, comings.leave)
    await each(trial, staying, comings.stay)
    second = [Talk(trial, target, talk.user) for talk in leaving] if can_end else leaving
    await each(trial, second, comings.come_back)
    trial.judge(exactly_its_own(await all_arrived(trial, dict.fromkeys([*talks, *second]))))
    bridges = await _watched(target, list(comings.agents.values()) if can_end else [])
    comings.agents.clear()
    if can_end and Capability.REMOVE in target.capabilities:
        # A session without agents is a session still.
        comings.empty = second[: len(second) // 2]
        await each(trial, comings.empty, lambda _, talk: talk.client.remove("helper"))
    await each(trial, [*staying, *second], comings.leave)
    await patiently(trial, lambda: target.connections() == 0)
    trial.measure("connections left", target.connections(), "connections", LAB("==", 0), anomaly="connection-left")
    gc.collect()
    alive = sum(weakly() is not None for weakly in bridges)
    trial.measure("bridges left", alive, "bridges", LAB("==", 0), anomaly="bridge-left")
    await trial.stop(target)
    if has_sockets:
        await breaks_and_restarts(trial, travelling)
    await trial.waiting.settle()
    trial.measure("tasks left", len(asyncio.all_tasks()) - tasks_before, "tasks", LAB("==", 0), anomaly="task-left")


class _Comings:
    """What each user does with their clients: they come, drop them, leave, stay, and come back.

    `agents`: each user's agent. `held`: the connections of those who stay, before others leave. `empty`: those whose
    session may have ended with its last agent."""

    def __init__(self, trial: Trial, target: Target, travelling: Collection[str], *, can_end: bool) -> None:
        self._trial, self._target, self._travelling, self._can_end = trial, target, travelling, can_end
        self._reconnects = int(trial.parameters["reconnects"])
        self.agents: dict[str, Handle] = {}
        self.held: Mapping[str, int] = {}
        self.empty: Sequence[Talk] = ()

    async def _connected(self, talk: Talk, expected: int, when: str, if_fewer: str = "connection-lost") -> None:
        trial, target, user = self._trial, self._target, talk.user
        # Without a socket nothing is on its way.
        share = 1.0 if trial.sockets(target) is not None else _AT_ONCE
        await patiently(trial, lambda: target.connections(user) == expected, share)
        found = target.connections(user)
        anomaly = if_fewer if found < expected else "connection-left"
        sentence = f"the target holds {found} connections of {user!r} {when}, not {expected}"
        require_of(trial, found == expected, anomaly, sentence, user)

    async def come(self, _: int, talk: Talk) -> None:
        """Two clients, one agent; those who travel lose a client, again and again, while they talk."""
        phone, tablet = await talk.connect("phone"), await talk.connect("tablet")
        handle = self.agents[talk.user] = await talk.client.create("helper")
        if talk.user not in self._travelling:
            await talk.run(handle, "think", thoughts=[thought(talk.user, 0)])
            return
        for number in range(self._reconnects):
            await talk.run(handle, "think", thoughts=[thought(talk.user, 3 * number)])
            await heard(self._trial, phone)
            await phone.drop()
            await self._connected(talk, 1, "after one of two had dropped")
            await talk.run(handle, "think", thoughts=[thought(talk.user, 3 * number + 1)])
            phone = await talk.connect(f"phone, connection {number + 2}")
        await self._target.attach(talk.user)
        await talk.run(handle, "think", thoughts=[thought(talk.user, 3 * number + 2)])
        await heard(self._trial, tablet)
        await tablet.drop()
        await talk.run(handle, "think", thoughts=[thought(talk.user, 3 * self._reconnects)])
        await talk.connect("tablet, again")
        await self._connected(talk, 2, "after both had come back")

    async def leave(self, _: int, talk: Talk) -> None:
        """The session ends, and its clients with it; where none can end, the clients hang up."""
        if not self._can_end:
            await _hang_up(talk)
            await self._connected(talk, 0, "after all had dropped")
            return
        report = await talk.client.end()
        if talk in self.empty and not report.found:
            # The session ended with its last agent, and the clients may wait for the next one.
            await _hang_up(talk)
        await self._connected(talk, 0, "after the session had ended")
        # Events already emitted are still sent, and then the end: a client over a socket hears of it a little later.
        await patiently(self._trial, lambda: not any(listener.is_open for listener in talk.listeners))
        left = [listener.name for listener in talk.listeners if listener.is_open]
        sentence = f"{', '.join(left)} of {talk.user!r} stayed connected after the session had ended"
        require_of(self._trial, not left, "connection-left", sentence, talk.user)

    async def come_back(self, _: int, talk: Talk) -> None:
        await talk.connect("new phone")
        if self._can_end:
            self.agents[talk.user] = await talk.client.create("helper")
        await talk.run(self.agents[talk.user], "think", thoughts=[thought(talk.user, 10_000)])

    async def stay(self, _: int, talk: Talk) -> None:
        await self._connected(talk, self.held[talk.user], "while others left", "neighbour-disconnected")
        await talk.run(self.agents[talk.user], "think", thoughts=[thought(talk.user, 10_001)])


async def _hang_up(talk: Talk) -> None:
    await asyncio.gather(*(listener.drop() for listener in talk.listeners if listener.is_open))


async def _watched(target: Target, handles: list[Handle]) -> list[weakref.ref[Any]]:
    watched = []
    for bridge in await bridges_of(target, handles):
        try:
            watched.append(weakref.ref(bridge))
        except TypeError:
            continue  # A bridge that cannot be watched, or none.
    return watched
