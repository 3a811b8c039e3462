"""Judges whether each client received exactly its own user's events: all of them, once, in order, unaltered."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from lab_utils.judges.arrivals import Arrived, Received, decoded, found_in, repeated_names
from lab_utils.judges.envelope import Pair, wrongly_named
from lab_utils.judges.speech import Said
from lab_utils.values.canaries import writers_named
from lab_utils.values.quantities import counted
from lab_utils.values.verdict import Finding, Verdict
from lab_utils.values.workload import texts_in

__all__ = ["Arrived", "Received", "crossings", "decoded", "exactly_its_own", "writers_in"]


def exactly_its_own(received: Iterable[Received]) -> Verdict:
    """Judge that every client received the events of its user's agents and nothing else.

    | anomaly           | meaning: a client met                                                  |
    |-------------------|------------------------------------------------------------------------|
    | foreign-event     | an event of another user, or with another user's canary                |
    | duplicate-event   | an event again                                                         |
    | reordered-events  | events of one agent, or numbers, in another order                      |
    | repeated-seq      | two different events with one number                                   |
    | gap-in-seq        | numbers that no event has, though none is lost                         |
    | lost-event        | an event is missing                                                    |
    | altered-payload   | another payload than was emitted                                       |
    | extra-field       | a payload, or an event, with a field that nobody emitted               |
    | repeated-name     | a JSON object with a name twice, of which a reader sees one            |
    | malformed-field   | an event without a field of the protocol, or with no string as an id   |
    | unexpected-event  | an event that nobody emitted for this client                           |
    | wrong-stream      | an event of another stream than the one announced, or of a neighbour   |
    | wrong-thread      | an event that names another thread than its agent's                    |
    | wrong-run         | an event that names another run than the one that emitted it           |
    | wrong-agent       | an event that names another agent than the one that emitted it         |

    One finding a client and anomaly: the first. Agents of one user run at once, so that only the order within each
    agent is known. Thread, run and agent are judged where nothing is missing, which would be a finding already.
    """
    every = list(received)
    pairs: list[Pair] = []
    first: dict[tuple[int, str], Finding] = {}
    misled = set()
    for place, one in enumerate(every):
        for finding in _judge(one, pairs):
            first.setdefault((place, finding.anomaly), finding)
    places = {id(one): place for place, one in enumerate(every)}
    for one, finding in wrongly_named(every, pairs):
        misled.add(places[id(one)])
        first.setdefault((places[id(one)], finding.anomaly), finding)
    for place, one in enumerate(every):
        if one.gaps and not any(found == place for found, _ in first):
            sentence = f"counted {counted(one.gaps, 'gap')} in the numbers after those that it had or was greeted with"
            first[place, "gap-in-seq"] = _found(one, "gap-in-seq", sentence, f"{len(one.events)} events received")
    findings = [first[key] for key in sorted(first, key=lambda key: key[0])]
    count = sum(len(one.events) for one in every)
    return Verdict.of(findings, count, "events received, each by its own user's client, once, in order and unaltered")


def crossings(received: Iterable[Received], owners: Mapping[str, str]) -> Counter[tuple[str, str]]:
    """Count events by (user who caused it, user whose client received it). `owners`: agent type -> its one user."""
    counts: Counter[tuple[str, str]] = Counter()
    for one in received:
        for event in one.events:
            # The canary decides; the user that the event itself names may be wrong.
            writer = next(iter(writers_in(event.body)), None)
            counts[writer or owners.get(event.agent, event.user), one.user] += 1
    return counts


def _judge(one: Received, pairs: list[Pair]) -> Iterator[Finding]:
    own: list[Arrived] = []
    foreign: list[tuple[Arrived, str]] = []
    for event in one.events:
        others = writers_in(event.body) - {one.user}
        if others or event.user != one.user:
            foreign.append((event, min(others, default=event.user)))
        else:
            own.append(event)
    yield from _malformed(one)
    if foreign:
        event, owner = foreign[0]
        yield _found(one, "foreign-event", f"received {counted(len(foreign), 'event')} of {owner!r}", found_in(event))
    once: dict[tuple[int, str, str, str, str], Arrived] = {}
    for event in own:
        key = (event.seq, event.agent, event.run, event.type, event.body)
        # By equality, not identity: in one process the very same object may come twice.
        if key in once:
            yield _found(one, "duplicate-event", f"received number {event.seq} twice", found_in(event), found_in(event))
        once.setdefault(key, event)
    lanes = list(_lanes(one, list(once.values()), pairs))
    yield from lanes
    # With foreign events between them the numbers are no longer one user's.
    if not foreign:
        yield from _numbers(one, list(once.values()), complete=not lanes)


def _malformed(one: Received) -> Iterator[Finding]:
    for event in one.events:
        for anomaly, sentence in event.flaws:
            yield _found(one, anomaly, f"received an event that {sentence}", found_in(event))
        # Flaws of the text were found where it came in.
        if not event.greeted and (names := repeated_names(event.body)):
            sentence = f"received a payload that names {', '.join(map(repr, names))} twice within one object"
            yield _found(one, "repeated-name", sentence, found_in(event))


def _numbers(one: Received, own: Sequence[Arrived], *, complete: bool) -> Iterator[Finding]:
    seen: dict[int, Arrived] = {}
    for event in own:
        other = seen.setdefault(event.seq, event)
        if other is not event:
            sentence = f"received two different events with number {event.seq}"
            yield _found(one, "repeated-seq", sentence, found_in(other), found_in(event))
    for before, after in pairwise(own):
        if after.seq < before.seq:
            sentence = f"received number {after.seq} after number {before.seq}"
            yield _found(one, "reordered-events", sentence, found_in(before), found_in(after))
    numbers = sorted(seen)
    if one.first_seq is not None:
        numbers.insert(0, one.first_seq - 1)
    for low, high in pairwise(numbers):
        if high - low != 1 and complete:
            place = f"next after {low}" if low in seen else f"first, where {low + 1} was due"
            sentence = f"received number {high} {place}, with no event lost"
            yield _found(one, "gap-in-seq", sentence, found_in(seen[high]))


def _lanes(one: Received, own: Sequence[Arrived], pairs: list[Pair]) -> Iterator[Finding]:
    expected: dict[str, list[Said]] = defaultdict(list)
    for said in one.said:
        expected[said.agent].append(said)
    events: dict[str, list[Arrived]] = defaultdict(list)
    for event in own:
        events[event.agent].append(event)
    lanes: dict[str, tuple[list[Said], list[Said]]] = {}
    for agent in dict.fromkeys([*expected, *events]):
        got = [Said.of(agent, event.type, decoded(event.body)) for event in events[agent]]
        lanes[agent] = _due(expected[agent], got) if one.cut_off else expected[agent], got
    yield from _misnamed(one, lanes)
    for agent, (due, got) in lanes.items():
        if got == due and len(got) == len(events[agent]):
            emitted = zip(due, events[agent], got, strict=True)
            pairs += [Pair(one, said, event, came.call) for said, event, came in emitted]
        elif got != due:
            yield from _lane(one, due, got)


def _misnamed(one: Received, lanes: Mapping[str, tuple[list[Said], list[Said]]]) -> Iterator[Finding]:
    """Take out of the lanes what one agent lacks and another has once too often: such an event names the other one."""
    for agent, (due, got) in lanes.items():
        for missing in (Counter(due) - Counter(got)).elements():
            for other, (others_due, others_got) in lanes.items():
                named = replace(missing, agent=other)
                if other == agent or others_got.count(named) <= others_due.count(named):
                    continue
                _take_out(missing, due, got)
                _take_out(named, others_got, others_due)
                sentence = f"received {missing.type} of agent {agent!r} as one of {other!r}"
                yield _found(one, "wrong-agent", sentence, f"emitted  {missing}", f"received {named}")
                break


def _take_out(said: Said, of: list[Said], other: list[Said]) -> None:
    """Take an event out of the list that has it once too often: from where the two lists differ, if it is there."""
    apart = next((at for at, pair in enumerate(zip(of, other, strict=False)) if len(set(pair)) > 1), len(other))
    del of[of.index(said, apart if said in of[apart:] else 0)]


def _due(expected: list[Said], got: list[Said]) -> list[Said]:
    # The last event that a cut-off client received ends the part that was due; before that nothing may be missing.
    ends = [place for place, said in enumerate(expected) if got and said == got[-1] and place + 1 >= len(got)]
    return expected[: ends[0] + 1 if ends else len(got)]


def _lane(one: Received, expected: list[Said], got: list[Said]) -> Iterator[Finding]:
    missing, extra = list((Counter(expected) - Counter(got)).elements()), Counter(got) - Counter(expected)
    known = set(expected)
    for said in missing:
        like = [other for other in extra if other not in known and other.type == said.type]
        altered = next((other for other in like if other.fields_beside(said)), like[0] if like else None)
        if altered is not None:
            extra = extra - Counter([altered])
            witness = (f"emitted  {said}", f"received {altered}")
            if beside := altered.fields_beside(said):
                sentence = f"received {said.type} with {', '.join(map(repr, beside))}, which nobody emitted"
                yield _found(one, "extra-field", sentence, *witness)
            else:
                yield _found(one, "altered-payload", f"received another {said.type} than was emitted", *witness)
        else:
            near = expected.index(said)
            yield _found(one, "lost-event", f"never received event {near + 1} of {len(expected)} of {said.agent!r}, "
                         f"{said.type}", *(f"before it: {other}" for other in expected[max(0, near - 1) : near]),
                         f"missing:   {said}")  # fmt: skip
    for said in extra:
        if said in known:
            times = f"{got.count(said)} times, emitted {expected.count(said)} while it listened"
            yield _found(one, "duplicate-event", f"received an event {times}", str(said))
        else:
            yield _found(one, "unexpected-event", "received an event that no run emitted while it listened", str(said))
    # The order of the events that were both emitted and received.
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


def writers_in(body: str) -> frozenset[str]:
    """The users whose canaries are in a payload's JSON text."""
    if "canary<" not in body:
        return frozenset()
    try:
        decoded = json.loads(body)
    except ValueError:
        return frozenset()  # Altered; the escapes in it are not names.
    return frozenset(writer for text in texts_in(decoded) for writer in writers_named(text))
