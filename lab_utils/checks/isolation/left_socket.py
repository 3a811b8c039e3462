"""A part of interrupted_calls_leave_nothing_to_others: a client over a socket that goes away in the middle of a run."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

from lab_utils.checks.isolation.scene import users_of
from lab_utils.judges.interference import Observed, not_interfered
from lab_utils.sockets.choice import socket_modules
from lab_utils.sockets.transport import SocketSubscription, SocketTransport
from lab_utils.target import Capability, Command, Handle, Recipe, Target
from lab_utils.trial import Stuck, Trial
from lab_utils.trial.faults import is_checks_own
from lab_utils.values.verdict import Finding, Outcome
from lab_utils.values.workload import canary

__all__ = ["judge_left_socket"]

_WAYS = {
    "dropped": "whose connection was lost",
    "closed": "whose client closed its connection",
    "cancelled": "whose run was cancelled",
}
_ROUNDS = 2
_THOUGHTS = 6
_MOST_TURNS = 40


async def judge_left_socket(trial: Trial) -> None:
    """Let one user's client go away during a run, at a moment drawn from the seed. Another client, connected already or
    connecting next, must then receive the same as before."""
    if not trial.make_target().capabilities.issuperset({Capability.SOCKETS, Capability.EVENTS}):
        return
    if not socket_modules():
        trial.leave_out("clients over sockets, which need a missing package")
        return
    target = await trial.target([Recipe("helper", on_run=lambda _: asyncio.sleep(0.001))])
    transport = SocketTransport(target, max(trial.waiting.stuck_after, 10.0))
    try:
        await _Leaving(trial, target, transport).rounds()
    finally:
        await transport.aclose()


class _Leaving:
    def __init__(self, trial: Trial, target: Target, transport: SocketTransport) -> None:
        self._trial, self._target, self._transport = trial, target, transport
        self._user, self._there, self._new = users_of(trial.seed)
        self._handles: dict[str, Handle] = {}
        self._known: defaultdict[SocketSubscription, int] = defaultdict(int)

    async def rounds(self) -> None:
        """Everybody thinks once beside nobody who leaves, and then after each who does."""
        try:
            for user in (self._user, self._there, self._new):
                self._handles[user] = await self._target.create(user, "helper")
            connected = await self._transport.connect(self._there)
            before = {self._there: await self._heard(connected), self._new: await self._heard_by_new()}
        except Stuck:
            raise
        except Exception as error:
            if is_checks_own(error):
                raise
            sentence = f"a user who listens over a socket meets {type(error).__name__}: {error}"
            return self._trial.find("failed-operation", sentence, repr(error))
        compared = 0
        for way, words in _WAYS.items():
            for _ in range(_ROUNDS):
                turns = await self._leave(way)
                after = {self._there: await self._heard(connected), self._new: await self._heard_by_new()}
                verdict = not_interfered(before, after)
                if verdict.outcome is Outcome.FAIL:
                    words += f", {turns} turns of the loop after it began"
                    return self._blame(verdict.findings[0], after, words)
                compared += sum(map(len, after.values()))
        return self._trial.measure("events after a client had left", compared, "events")

    def _blame(self, found: Finding, after: dict[str, list[Observed]], words: str) -> None:
        for user, events in after.items():
            foreign = [one for one in events if f"of {user!r}" not in one.what]
            if foreign:
                sentence = f"{user!r} was sent an event of another user, after {self._user!r}, {words}"
                return self._trial.find("foreign-event", sentence, *foreign[:2])
        sentence = f"{found.sentence}, after {self._user!r}, {words}"
        return self._trial.find("interference", sentence, *found.witness)

    async def _leave(self, way: str) -> int:
        client = await self._transport.connect(self._user)
        run = asyncio.ensure_future(self._think(self._user))
        turns = self._trial.rng.randrange(_MOST_TURNS)
        await self._trial.waiting.settle(turns)
        if way == "cancelled":
            run.cancel()
        elif way == "closed":
            await client.close()
        else:
            await client.drop()
        await self._trial.waiting.ends(asyncio.wait({run}), "a run whose client has left")
        await client.close()
        # Until the server knows as well.
        await self._trial.waiting.until(lambda: self._target.connections(self._user) == 0)
        return turns

    async def _heard_by_new(self) -> list[Observed]:
        client = await self._transport.connect(self._new)
        heard = await self._heard(client)
        await client.close()
        await self._trial.waiting.until(lambda: self._target.connections(self._new) == 0)
        return heard

    async def _heard(self, client: SocketSubscription) -> list[Observed]:
        """The client's new messages until its user's agent has thought once more."""
        await self._trial.waiting.ends(self._think(client.user), f"a run of {client.user!r}")
        await self._transport.flush()
        sent = client.received()
        new, self._known[client] = sent[self._known[client] :], len(sent)
        return [Observed("event", f"{one.type} of {one.user!r}: {one.body}", (one.run,)) for one in new]

    async def _think(self, user: str) -> Any:
        thoughts = [canary(user, "thought", number) for number in range(_THOUGHTS)]
        return await self._target.run(self._handles[user], Command("think", {"thoughts": thoughts}))
