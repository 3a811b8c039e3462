"""Judges the envelope of a payload: the stream, thread, run and agent that an event names as its origin."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lab_utils.judges.arrivals import Arrived, Received, found_in
from lab_utils.judges.speech import Ran, Said
from lab_utils.values.verdict import Finding

__all__ = ["Pair", "unnamed", "wrongly_named"]

_IDS = (("wrong-run", "run", "run"), ("wrong-thread", "thread", "thread"), ("wrong-agent", "agent_id", "agent"))
_NAMES = {"stream": "stream", "thread": "thread", "run": "run", "agent_id": "agent"}
_PROMISED = ("run", "agent_id")
"""A caller that received such an id was promised it in the events too; it knows its own thread anyway."""


@dataclass(frozen=True, slots=True)
class Pair:
    """An event as it was emitted, and as a client received it, with the number of the tool call that came with it."""

    client: Received
    said: Said
    event: Arrived
    call: int | None


def unnamed(received: Iterable[Received]) -> tuple[str, ...]:
    """The fields among stream, thread, run and agent that no event names, and that cannot be judged; none if nothing
    came."""
    every = list(received)
    came = any(one.events for one in every)
    return tuple(words for name, words in _NAMES.items() if came and not _is_judged(every, name))


def wrongly_named(received: Sequence[Received], pairs: Sequence[Pair]) -> Iterator[tuple[Received, Finding]]:
    """Find the events that name a wrong origin, and the clients that received them.

    An id that the caller received must be that one. Where it received none, the id must be the same in all events of
    one run (one agent), and in none of another's. An id that a caller asked for is in no run that did not ask for it. A
    stream must be the one that the client was greeted with. Without a greeting, it must be the same in all events, and
    in no other user's.
    """
    for anomaly, name, words in _IDS:
        if _is_judged(received, name):
            yield from _of_another(pairs, anomaly, name, words)
    yield from _calls(pairs)
    yield from _streams(received)


def _is_judged(received: Iterable[Received], name: str) -> bool:
    # A client over a socket uses the protocol, which has all of them.
    return any(
        any(getattr(event, name) or event.greeted for event in one.events)
        or (name in _PROMISED and any(said.ran is not None and getattr(said.ran, name) for said in one.said))
        for one in received
    )


def _of_another(pairs: Iterable[Pair], anomaly: str, name: str, words: str) -> Iterator[tuple[Received, Finding]]:
    first: dict[Any, str] = {}
    owners: dict[str, tuple[Any, str]] = {}
    for pair in pairs:
        ran, user = pair.said.ran, pair.client.user
        if ran is None:
            continue
        found, owner = getattr(pair.event, name), _owner(ran, user, name)
        due = getattr(ran, name) or first.setdefault(owner, found)
        if found != due:
            sentence = f"received an event of {words} {due!r} that names {words} {found!r}"
            yield _found(anomaly, pair.client, sentence, pair.event, pair.said)
        if name == "thread":
            continue  # Many users have one of the same name.
        other, whose = owners.setdefault(found, (owner, user))
        if other != owner:
            sentence = f"received events that name {words} {found!r}, which is that of another {words}, of {whose!r}"
            yield _found(anomaly, pair.client, sentence, pair.event, pair.said)


def _owner(ran: Ran, user: str, name: str) -> Any:
    # Callers may ask for one id in several runs, as for the agents that work on one request.
    return (ran.run or ran) if name == "run" else (user, ran.agent)


def _calls(pairs: Sequence[Pair]) -> Iterator[tuple[Received, Finding]]:
    if all(pair.call is None for pair in pairs):
        return  # A target that does not number them.
    for pair in pairs:
        if pair.call != pair.said.call:
            sentence = f"received tool call {pair.said.call} of its agent as number {pair.call}"
            yield _found("altered-payload", pair.client, sentence, pair.event, pair.said)


def _streams(received: Iterable[Received]) -> Iterator[tuple[Received, Finding]]:
    owners: dict[str, str] = {}
    for one in received:
        if not _is_judged([one], "stream"):
            continue
        own = [event for event in one.events if event.user == one.user]
        for event in own:
            due = event.greeted or own[0].stream
            if event.stream != due:
                told = "its connection was greeted with" if event.greeted else "the events before it name"
                sentence = f"received an event of stream {event.stream!r}, where {told} {due!r}"
                yield _found("wrong-stream", one, sentence, event)
            if owners.setdefault(event.stream, one.user) != one.user:
                sentence = f"received events of stream {event.stream!r}, as {owners[event.stream]!r} did"
                yield _found("wrong-stream", one, sentence, event)


def _found(
    anomaly: str, one: Received, sentence: str, event: Arrived, said: Said | None = None
) -> tuple[Received, Finding]:
    emitted = () if said is None else (f"emitted  {said}",)
    witness = (*emitted, f"received {found_in(event)}")
    return one, Finding(anomaly, f"{one.client} of {one.user!r} {sentence}", witness)
