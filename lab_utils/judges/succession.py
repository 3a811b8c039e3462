"""Judges sessions that were opened again under the same id: nothing of the old one acts in them or is read there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from lab_utils.values.verdict import Finding, Verdict

__all__ = ["Event", "Life", "no_resurrection"]


class Event(Protocol):
    """One event as a client received it."""

    @property
    def seq(self) -> int: ...

    @property
    def type(self) -> str: ...

    @property
    def run(self) -> str: ...

    @property
    def body(self) -> str: ...


@dataclass(slots=True)
class Life:
    """One user's two sessions: the call that the first one ended in the middle of, and the state of the second.

    `old_events`, `late_events`: the events that the first session's client had received by its end, and those it
    received later. `old_handle`: the outcome of each action on the first agent: "closed" if it was refused so.
    `instances`: the first agent (empty if the target knows both by one key), the second, and the one that is found.
    `given`: agents that the interrupted call answered with. `privileged`: the outcome of each attempt of the second
    session at an action that only the first had the permission for: "permission" if it was refused so.
    """

    user: str
    what: str
    old_events: Sequence[Event] = ()
    late_events: Sequence[Event] = ()
    new_events: Sequence[Event] = ()
    thoughts_due: Sequence[str] = ()
    old_handle: dict[str, str] = field(default_factory=dict)
    memory: Mapping[str, Any] | None = None
    memory_due: Mapping[str, Any] = field(default_factory=dict)
    context: Mapping[str, Any] = field(default_factory=dict)
    instances: tuple[str, str, str] = ("", "", "")
    given: int = 0
    privileged: dict[str, str] = field(default_factory=dict)


def no_resurrection(lives: Iterable[Life]) -> Verdict:
    """Judge every second life.

    | anomaly          | meaning                                                                                  |
    |------------------|------------------------------------------------------------------------------------------|
    | old-handle-works | a handle of the first session was not refused as closed                                  |
    | old-agent-found  | a lookup, or the second create, answers with the first session's agent                   |
    | lost-agent       | a lookup does not answer with the second session's agent                                 |
    | old-life-wrote   | the second agent's memory holds data that a left-over of the first session wrote         |
    | old-life-read    | the second agent holds data of the first one, in its memory or its context               |
    | lost-write       | data that the second agent wrote is gone: something left over erased it                  |
    | old-life-event   | the second session's client received an event of the first session's, or the first's     |
    |                  | client one of the second's                                                               |
    | old-permission-  | the second session may act by a permission of the first alone                            |
    | works            |                                                                                          |
    | run-id-reused    | a run of the second session has the id of one of the first                               |
    | lost-event       | the second session's client did not receive its own thoughts                             |
    | duplicate-event, | it received a number twice, or its numbers in another order, or with a gap               |
    | reordered-events,|                                                                                          |
    | gap-in-seq       |                                                                                          |
    """
    findings: list[Finding] = []
    count = 0
    for life in lives:
        count += 1
        after = f"{life.user!r} came back after an end in the middle of {life.what}"
        findings += [Finding(name, f"{after}: {sentence}", witness) for name, sentence, witness in _wrong(life)]
    return Verdict.of(findings, count, "sessions opened again, with nothing of the ones before")


def _wrong(life: Life) -> Iterable[tuple[str, str, tuple[str, ...]]]:
    works = tuple(f"{action}: {answer}" for action, answer in life.old_handle.items() if answer != "closed")
    if works:
        yield "old-handle-works", "the handle from before the end was not refused as closed", works
    allowed = tuple(f"{what}: {answer}" for what, answer in life.privileged.items() if answer != "permission")
    if allowed:
        sentence = "without the permissions that the session before had, this was not refused as a missing permission"
        yield "old-permission-works", sentence, allowed
    old, new, found = life.instances
    if old and old in (new, found):
        yield "old-agent-found", f"the agents were {old} before and are {new} now, and {found} is found", life.instances
    elif new != found:
        yield "lost-agent", f"the new agent is {new}, and {found} is found", life.instances
    yield from _wrong_data(life)
    yield from _wrong_events(life)


def _wrong_data(life: Life) -> Iterable[tuple[str, str, tuple[str, ...]]]:
    memory = dict(life.memory or {})
    foreign = {key: value for key, value in memory.items() if life.memory_due.get(key) != value}
    wrote = {key: value for key, value in foreign.items() if "|first life|" not in repr(value)}
    if wrote:
        yield "old-life-wrote", "the new agent's memory was written by code that outlived the end", (repr(wrote),)
    if len(wrote) < len(foreign):
        yield "old-life-read", "the new agent's memory holds values of the session before", (repr(memory),)
    if gone := sorted(life.memory_due.keys() - memory.keys()):
        witness = (f"written: {dict(life.memory_due)!r}", f"in the memory afterwards: {memory!r}")
        yield "lost-write", f"the new agent wrote {', '.join(gone)}, and that is gone", witness
    if life.context:
        yield (
            "old-life-read",
            "the new agent was given no data, and its context holds some",
            (repr(life.context)[:300],),
        )


def _wrong_events(life: Life) -> Iterable[tuple[str, str, tuple[str, ...]]]:
    began = {event.run for event in life.new_events if event.type == "agent_started"}
    old_runs = {event.run for event in life.old_events}
    late = [event for event in life.new_events if event.run not in began]
    late += [
        event for event in life.new_events if event.run in began and "canary<" in event.body and not _due(event, life)
    ]
    if late:
        yield "old-life-event", "the new client received events of the session before", tuple(map(str, late[:3]))
    if life.late_events:
        sentence = "the client from before the end received more after it"
        yield "old-life-event", sentence, tuple(map(str, life.late_events[:3]))
    reused = sorted(old_runs & began - {""})
    if reused:
        yield "run-id-reused", "runs of the new session have ids of runs before the end", tuple(reused)
    numbers = [event.seq for event in life.new_events]
    missing = [due for due in life.thoughts_due if not any(due in event.body for event in life.new_events)]
    witness = (f"missing: {missing}", f"numbers: {numbers}")
    twice = [number for number, times in Counter(numbers).items() if times > 1]
    if missing:
        yield "lost-event", "the new client did not receive all of its own events", witness
    elif twice:
        yield "duplicate-event", f"the new client received number {twice[0]} twice", witness
    elif numbers != sorted(numbers):
        yield "reordered-events", "the new client received its own events in another order than their numbers", witness
    elif numbers and numbers != [*range(numbers[0], numbers[0] + len(numbers))]:
        yield "gap-in-seq", "the numbers of the events that the new client received have a gap", witness


def _due(event: Event, life: Life) -> bool:
    return any(due in event.body for due in life.thoughts_due)
