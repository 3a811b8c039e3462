"""Judges whether a run's events came with the run, and whether two devices of one user received the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from lab_utils.judges.delivery import Arrived, decoded
from lab_utils.judges.speech import Said
from lab_utils.values.verdict import Finding, Verdict

__all__ = ["Pause", "Told", "none_late", "told_the_same"]


@dataclass(frozen=True, slots=True)
class Pause:
    """One client after a run had ended and before the next began: the events due, those that had arrived by a generous
    deadline, and those that had arrived once the next run, of another agent, was over."""

    client: str
    user: str
    due: Sequence[Said]
    arrived: Sequence[Arrived]
    later: Sequence[Arrived]


def none_late(pauses: Iterable[Pause]) -> Verdict:
    """Judge that no event of a run waited for the next run: `late-event`. An event that never comes is lost, not late:
    another judge finds it."""
    every = list(pauses)
    findings = [finding for pause in every for finding in _late(pause)]
    return Verdict.of(findings, len(every), "pauses between runs in which every event had come")


def _late(pause: Pause) -> Iterator[Finding]:
    missing = Counter(pause.due) - _said(pause.arrived)
    late = missing & _said(pause.later)
    if late:
        sentence = (
            f"{pause.client} of {pause.user!r} received {late.total()} of {len(pause.due)} events of a run only once "
            "the next run had spoken"
        )
        yield Finding("late-event", sentence, tuple(f"late: {said}" for said in list(late)[:3]))


def _said(events: Sequence[Arrived]) -> Counter[Said]:
    return Counter(Said.of(event.agent, event.type, decoded(event.body)) for event in events)


@dataclass(frozen=True, slots=True)
class Told:
    """The events that one device received, one by one, byte for byte as they came."""

    device: str
    user: str
    texts: Sequence[str]


def told_the_same(pairs: Iterable[tuple[Told, Told]]) -> Verdict:
    """Judge that two devices of one user, connected at the same time, received identical texts: `devices-differ`, at
    the first place where they do."""
    findings: list[Finding] = []
    count = 0
    for one, other in pairs:
        count += len(one.texts)
        differing = (
            (place, left, right)
            for place, (left, right) in enumerate(zip_longest(one.texts, other.texts), 1)
            if left != right
        )
        first = next(differing, None)
        if first is not None:
            place, left, right = first
            sentence = f"{one.device} and {other.device} of {one.user!r} received different content as event {place}"
            findings.append(Finding("devices-differ", sentence, (_at(one.device, left), _at(other.device, right))))
    return Verdict.of(findings, count, "events, byte for byte the same on both devices of their user")


def _at(device: str, text: str | None) -> str:
    shown = "nothing more" if text is None else text if len(text) <= 200 else f"{text[:170]}... ({len(text)})"
    return f"{device}: {shown}"
