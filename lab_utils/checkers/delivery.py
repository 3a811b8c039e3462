"""Judges whether each client was sent exactly its own user's events: all of them, once, in order, unaltered."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

from lab_utils.canaries import writers_named
from lab_utils.checkers.speech import Said
from lab_utils.verdict import Finding, Verdict
from lab_utils.workload import texts_in

__all__ = ["Arrived", "Received", "crossings", "decoded", "exactly_its_own", "writers_in"]


class Arrived(Protocol):
    """An event as a client received it; `body` is the payload's JSON text."""

    @property
    def user(self) -> str: ...
    @property
    def seq(self) -> int: ...
    @property
    def type(self) -> str: ...
    @property
    def agent(self) -> str: ...
    @property
    def run(self) -> str: ...
    @property
    def body(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Received:
    """What one client received and what it had to receive: `said`, in the order of each agent's runs.

    `first_seq`: the number of the first event that the client could have received; None if that is not known.
    `cut_off`: the target disconnected this client; it must then have received a beginning without a gap, no more.
    """

    client: str
    user: str
    events: Sequence[Arrived]
    said: Sequence[Said]
    first_seq: int | None = 1
    cut_off: bool = False


def exactly_its_own(received: Iterable[Received]) -> Verdict:
    """Judge that every client received what its user's agents emitted and nothing else.

    | anomaly           | what a client met                                                      |
    |-------------------|------------------------------------------------------------------------|
    | foreign-event     | an event of another user, or with another user's canary                |
    | duplicate-event   | an event again                                                         |
    | reordered-events  | events of one agent, or numbers, in another order                      |
    | repeated-seq      | two different events with one number                                   |
    | gap-in-seq        | numbers that no event has, though none is lost                         |
    | lost-event        | an event is missing                                                    |
    | altered-payload   | another payload than was emitted                                       |
    | unexpected-event  | an event that nobody emitted for this client                           |

    One finding a client and anomaly: the first. Agents of one user run at once, so that only the order within each
    agent is known.
    """
    findings: list[Finding] = []
    count = 0
    for one in received:
        first: dict[str, Finding] = {}
        for finding in _judge(one):
            first.setdefault(finding.anomaly, finding)
        findings += first.values()
        count += len(one.events)
    return Verdict.of(findings, count, "events received, each by its own user's client, once, in order and unaltered")


def crossings(received: Iterable[Received], owners: Mapping[str, str]) -> Counter[tuple[str, str]]:
    """Count events by (user who caused it, user whose client received it). `owners`: agent type -> its one user."""
    counts: Counter[tuple[str, str]] = Counter()
    for one in received:
        for event in one.events:
            # The canary knows best; what the event itself says of its user may be wrong.
            writer = next(iter(writers_in(event.body)), None)
            counts[writer or owners.get(event.agent, event.user), one.user] += 1
    return counts


def _judge(one: Received) -> Iterator[Finding]:
    own: list[Arrived] = []
    foreign: list[tuple[Arrived, str]] = []
    for event in one.events:
        others = writers_in(event.body) - {one.user}
        if others or event.user != one.user:
            foreign.append((event, min(others, default=event.user)))
        else:
            own.append(event)
    if foreign:
        event, owner = foreign[0]
        yield _found(one, "foreign-event", f"received {len(foreign)} event(s) of {owner!r}", _shown(event))
    once: dict[tuple[int, str, str, str, str], Arrived] = {}
    for event in own:
        key = (event.seq, event.agent, event.run, event.type, event.body)
        # By equality, not identity: in one process the very same object may come twice.
        if key in once:
            yield _found(one, "duplicate-event", f"received number {event.seq} twice", _shown(event), _shown(event))
        once.setdefault(key, event)
    lanes = list(_lanes(one, list(once.values())))
    yield from lanes
    # With foreign events between them the numbers are not one user's any more.
    if not foreign:
        yield from _numbers(one, list(once.values()), complete=not lanes)


def _numbers(one: Received, own: Sequence[Arrived], *, complete: bool) -> Iterator[Finding]:
    seen: dict[int, Arrived] = {}
    for event in own:
        other = seen.setdefault(event.seq, event)
        if other is not event:
            sentence = f"received two different events with number {event.seq}"
            yield _found(one, "repeated-seq", sentence, _shown(other), _shown(event))
    for before, after in pairwise(own):
        if after.seq < before.seq:
            sentence = f"received number {after.seq} after number {before.seq}"
            yield _found(one, "reordered-events", sentence, _shown(before), _shown(after))
    numbers = sorted(seen)
    if one.first_seq is not None:
        numbers.insert(0, one.first_seq - 1)
    for low, high in pairwise(numbers):
        if high - low != 1 and complete:
            sentence = f"received number {high} next after {low}, with no event lost"
            yield _found(one, "gap-in-seq", sentence, _shown(seen[high]))


def _lanes(one: Received, own: Sequence[Arrived]) -> Iterator[Finding]:
    expected: dict[str, list[Said]] = defaultdict(list)
    for said in one.said:
        expected[said.agent].append(said)
    got: dict[str, list[Said]] = defaultdict(list)
    for event in own:
        got[event.agent].append(Said.of(event.agent, event.type, decoded(event.body)))
    for agent in dict.fromkeys([*expected, *got]):
        yield from _lane(one, expected[agent], got[agent])


def _lane(one: Received, expected: list[Said], got: list[Said]) -> Iterator[Finding]:
    if one.cut_off:
        # What it received last ends what it had to receive; before that nothing may be missing.
        ends = [place for place, said in enumerate(expected) if got and said == got[-1] and place + 1 >= len(got)]
        expected = expected[: ends[0] + 1 if ends else len(got)]
    if got == expected:
        return
    missing, extra = list((Counter(expected) - Counter(got)).elements()), Counter(got) - Counter(expected)
    known = set(expected)
    for said in missing:
        altered = next((other for other in extra if other not in known and other.type == said.type), None)
        if altered is not None:
            extra = extra - Counter([altered])
            yield _found(one, "altered-payload", f"received another {said.type} than was emitted",
                         f"emitted  {said}", f"received {altered}")  # fmt: skip
        else:
            near = expected.index(said)
            yield _found(one, "lost-event", f"never received event {near + 1} of {len(expected)} of {said.agent!r}, "
                         f"{said.type}", *(f"before it: {other}" for other in expected[max(0, near - 1) : near]),
                         f"missing:   {said}")  # fmt: skip
    for said in extra:
        if said in known:
            times = f"{got.count(said)} times, emitted {expected.count(said)}"
            yield _found(one, "duplicate-event", f"received an event {times}", str(said))
        else:
            yield _found(one, "unexpected-event", "received an event that no run emitted while it listened", str(said))
    # Of what was both emitted and received, the order.
    both = Counter(expected) & Counter(got)
    ordered, came = _only(expected, both), _only(got, both)
    for before, after in zip(ordered, came, strict=True):
        if before != after:
            yield _found(one, "reordered-events", f"received events of {before.agent!r} in another order than emitted",
                         f"emitted first:  {before}", f"received first: {after}")  # fmt: skip
            return


def _only(events: Iterable[Said], counts: Counter[Said]) -> list[Said]:
    left = counts.copy()
    kept = []
    for said in events:
        if left[said] > 0:
            left[said] -= 1
            kept.append(said)
    return kept


def _found(one: Received, anomaly: str, sentence: str, *witness: str) -> Finding:
    return Finding(anomaly, f"{one.client} of {one.user!r} {sentence}", witness)


def _shown(event: Arrived) -> str:
    body = event.body if len(event.body) <= 160 else f"{event.body[:130]}... ({len(event.body)} characters)"
    return f"#{event.seq} of {event.user!r}, {event.agent}: {event.type} {body}"


def decoded(body: str) -> Any:
    """A payload's JSON text as data; a text that says so where it is no JSON."""
    try:
        return json.loads(body)
    except ValueError:
        return f"no JSON: {body!r}"


def writers_in(body: str) -> frozenset[str]:
    """The users whose canaries are in a payload's JSON text."""
    if "canary<" not in body:
        return frozenset()
    try:
        decoded = json.loads(body)
    except ValueError:
        return frozenset()  # Altered; the escapes in it are no names.
    return frozenset(writer for text in texts_in(decoded) for writer in writers_named(text))
