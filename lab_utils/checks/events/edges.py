"""A fault of websocket_connection_lifecycle_management: clients at the edge of the events kept for them, of their
token's time, and of their session."""

from __future__ import annotations

from collections.abc import Sequence

from lab_utils.checks.events.talking import Talk, all_arrived, each, heard, patiently, require_of, thought
from lab_utils.judges.delivery import exactly_its_own
from lab_utils.sockets.transport import SocketSubscription, SocketTransport
from lab_utils.target import Capability, Handle, Target
from lab_utils.trial import Trial

__all__ = ["at_the_edges"]

_EXPIRED, _SESSION_ENDED = 4403, 4410
"""The close codes of registry.events.wire, as a client sees them."""
_FORGOTTEN = 4
"""Thoughts that are acknowledged by everybody before anybody goes away."""
_MISSED = 20
"""Thoughts while the phone is away."""
_GOOD_FOR, _PASSES, _GOOD_FOR_LONG = 60.0, 90.0, 3_600.0
"""Seconds: far enough from each other that it does not matter how long anything takes here."""
_GUEST = "guest-without-session"
_LAST_WORDS, _LAST_CHARACTERS = 61, 16_250
"""Thoughts until the moment in which the session ends, and their size: in all just less than the events kept for a
client, and more than a server sends within the few turns of the end."""


async def at_the_edges(trial: Trial, users: Sequence[str]) -> None:
    """Each user's phone comes back with the number before the first event that is kept; a tablet's token expires; and
    the agent speaks until the session ends. Nobody misses an event without notice, or stays connected for too long."""
    target = await trial.target()
    sockets = trial.sockets(target)
    assert sockets is not None
    there: list[_Visitor] = []

    async def arrive(_: int, talk: Talk) -> None:
        # Nobody listens to its first run: the first client comes in the middle of the stream.
        handle = await talk.client.create("helper")
        await talk.run(handle, "think", thoughts=[thought(talk.user, 0)])
        phone = await sockets.connect(talk.user, token=target.token(talk.user, max_age=_GOOD_FOR_LONG))
        talk.join("phone", phone)
        # Acknowledges each event: events it no longer needs are not kept for its sake.
        tablet = await sockets.connect(talk.user, ack_every=1)
        talk.join("tablet", tablet)
        visitor = _Visitor(trial, target, sockets, talk, handle, phone)
        # Large ones, and nobody needs them any more: they do not count towards the events that are kept for a client.
        await visitor.hears(*range(10, 10 + _FORGOTTEN), filling="x" * _LAST_CHARACTERS)
        await tablet.flush()
        await visitor.comes_back()
        there.append(visitor)

    talks = [Talk(trial, target, user) for user in users]
    await each(trial, talks, arrive)
    if Capability.EXPIRY in target.capabilities:
        await each(trial, [one.talk for one in there], lambda place, _: there[place].borrows())
        # The last to come before tokens expire leaves at once.
        guest = await sockets.connect(_GUEST)
        await guest.drop()
        await patiently(trial, lambda: target.connections(_GUEST) == 0)
        target.pass_time(_PASSES)
        await patiently(trial, lambda: all(one.is_past_borrowing for one in there))
        await each(trial, [one.talk for one in there], lambda place, _: there[place].has_borrowed())
    else:
        trial.leave_out("that a connection ends with its token, for the target does not say that it does")
    if Capability.END in target.capabilities:
        await each(trial, [one.talk for one in there], lambda place, _: there[place].leaves())
    trial.judge(exactly_its_own(await all_arrived(trial, [one.talk for one in there])))
    trial.measure("users at the edges", len(there), "users")
    await trial.stop(target)


class _Visitor:
    """One user with a phone that goes away and a tablet that stays."""

    def __init__(
        self,
        trial: Trial,
        target: Target,
        sockets: SocketTransport,
        talk: Talk,
        handle: Handle,
        phone: SocketSubscription,
    ) -> None:
        self.talk = talk
        self._trial = trial
        self._target = target
        self._sockets = sockets
        self._handle = handle
        self._phone = phone
        self._borrowed: dict[str, SocketSubscription] = {}

    async def hears(self, *numbers: int, filling: str = "") -> None:
        """Let the agent think, and wait until every device that is there has heard it."""
        await self._thinks(*(f"{thought(self.talk.user, number)}{filling}" for number in numbers))
        devices = [listener for listener in self.talk.listeners if listener.is_open]
        await heard(self._trial, *devices)

    async def comes_back(self) -> None:
        """Go away when nobody needs the past events, so that it comes back with the number before the first that is
        kept."""
        phone = self._phone
        await phone.acknowledge()
        await phone.flush()
        had = phone.client.seq
        await phone.drop()
        await patiently(self._trial, lambda: self._target.connections(self.talk.user) <= 1)
        await self.hears(*range(100, 100 + _MISSED))
        await self._asks_for_one_more(phone.stream, had)
        resyncs = phone.resyncs
        await phone.resume()
        sentence = (
            f"the phone was away for {len(self.talk.said) - had} events, came back with number {had}, and was warned "
            "that it may have missed something"
        )
        self._require(phone.resyncs == resyncs, "needless-resync", sentence)
        await self.hears(1)

    async def _asks_for_one_more(self, stream: str | None, had: int) -> None:
        """The last event that everybody has acknowledged may be kept or not; a client that asks for it receives it, or
        a warning."""
        early = await self._sockets.attempt(self.talk.user, stream=stream, seq=had - 1)
        due = list(range(had, len(self.talk.said) + 1))
        await patiently(self._trial, lambda: early.is_over or early.resyncs > 0 or len(early.received()) >= len(due))
        given = [event.seq for event in early.received()]
        sentence = (
            f"a client came back with number {had - 1} and received {given[:1]} next, not {due[:1]}, and no warning "
            "that it may have missed something"
        )
        self._require(early.resyncs > 0 or given == due, "missed-untold", sentence)
        await early.close()

    async def borrows(self) -> None:
        """Connect two more devices with a token that is soon to expire; one of them goes away and comes back."""
        token = self._target.token(self.talk.user, max_age=_GOOD_FOR)
        for device in ("tablet", "watch"):
            self._borrowed[device] = await self._sockets.connect(self.talk.user, token=token)
        listeners = [self.talk.join(f"borrowed {device}", one) for device, one in self._borrowed.items()]
        await self.hears(2)
        await self._borrowed["watch"].drop()
        await self._borrowed["watch"].resume()
        for listener in listeners:
            listener.left_behind()

    @property
    def is_past_borrowing(self) -> bool:
        """Whether these devices are disconnected, or never came."""
        return all(borrowed.is_over for borrowed in self._borrowed.values())

    async def has_borrowed(self) -> None:
        """See that they are disconnected and not let in again; the others notice nothing."""
        if not self._borrowed:
            return  # They never came, which has been found.
        late = f"{_PASSES - _GOOD_FOR:g} s after its token had expired"
        for device, borrowed in self._borrowed.items():
            what = f"a borrowed {device}" + (" that had come back" if device == "watch" else "")
            self._require(borrowed.is_over, "expired-token-used", f"{what} was still connected {late}")
            if borrowed.is_over:
                self._ended(what, borrowed, _EXPIRED)
                greeted = borrowed.client.tally.greetings
                await borrowed.resume()
                is_refused = borrowed.client.tally.greetings == greeted
                self._require(is_refused, "expired-token-used", f"{what} came again, and was let in, {late}")
        await self.hears(3)
        sentence = "the phone, whose token is good, was disconnected when a borrowed tablet's had expired"
        self._require(self._phone.is_open, "connection-lost", sentence)

    async def leaves(self) -> None:
        """End the session in the moment in which the agent has said its last words."""
        user = self.talk.user
        await self._thinks(*(f"{thought(user, 200 + n)}{'x' * _LAST_CHARACTERS}" for n in range(_LAST_WORDS)))
        was_open = self._phone.is_open
        await self.talk.client.end()
        # Half of the patience that all of this has: to be told apart from a call that never ends.
        await patiently(self._trial, lambda: not any(listener.is_open for listener in self.talk.listeners), 0.5)
        left = [listener.name for listener in self.talk.listeners if listener.is_open]
        self._require(not left, "connection-left", f"{', '.join(left)} stayed connected after the session had ended")
        if was_open and self._phone.is_over:
            self._ended("the phone", self._phone, _SESSION_ENDED)

    async def _thinks(self, *thoughts: str) -> None:
        await self.talk.run(self._handle, "think", thoughts=list(thoughts))

    def _ended(self, what: str, device: SocketSubscription, code: int) -> None:
        sentence = f"{what} was disconnected with {device.close_code}, where {code} was due"
        self._require(device.close_code == code, "wrong-close-code", sentence)

    def _require(self, holds: bool, anomaly: str, sentence: str) -> None:
        require_of(self._trial, holds, anomaly, f"of {self.talk.user!r}, {sentence}", self.talk.user)
