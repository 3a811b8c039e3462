"""Judges other users' observations after one user's call was interrupted: the same as without the interruption."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from lab_utils.judges.interference import Observed, normalised
from lab_utils.values.canaries import Writers
from lab_utils.values.quantities import counted
from lab_utils.values.verdict import Finding

__all__ = ["AT_CAPACITY", "NO_ANSWER", "OF_A_CROWD", "Record", "after_interruption"]

_DATA = ("recall", "context", "rows", "total", "ask")
"""Steps that are answered with data that is one user's alone."""

OF_A_CROWD = ", one of a crowd,"
"""The role of an observer who worked at the same time as many others."""

NO_ANSWER = "no answer"
"""The beginning of an observation whose call did not end."""

_FAILURES = (NO_ANSWER, "error ")
_FORBIDDEN = "error refused as permission"
AT_CAPACITY = "error refused as capacity"
"""The beginning of an observation whose call was refused for want of room."""


@dataclass
class Record:
    """One history. `observed`: the values that each observer received, step by step, in the order of asking; `own`:
    those that the interrupted user received afterwards. `outcome`: how the interrupted call ended, "" if it was not
    interrupted in time. `cancelling`, `changed`: of the caller's task afterwards, its cancellations that are not
    answered and its context variables that have another value. `left`: the target's holdings when everybody has ended.
    `at_once`: of each crowd, how many were in their own code at the same time.
    `outlived`: the interrupted user's agents had ended, and a connection had not.
    `ends`: the end events of the interrupted user's run that was sent more than one.
    `broken`: the first call that should succeed and raised an error of the target's own, with that error; or two "".
    `failed`: why the history could not be lived to its end, "" if it was; `stop`: the error of the target's stop."""

    observed: dict[tuple[str, str], list[Observed]] = field(default_factory=dict)
    own: list[Observed] = field(default_factory=list)
    outcome: str = ""
    is_interrupted: bool = False
    is_cancelled: bool = False
    place: str = ""
    cancelling: int = 0
    changed: dict[str, str] = field(default_factory=dict)
    left: str = ""
    failed: str = ""
    stop: str = ""
    ends: list[str] = field(default_factory=list)
    at_once: list[int] = field(default_factory=list)
    outlived: bool = False
    broken: tuple[str, str] = ("", "")


def after_interruption(
    interrupted: str, happened: str, before: Record, after: Record, users: Sequence[str]
) -> Iterator[Finding]:
    """Yield the faults of the history `after`, compared with `before`, the same without the interruption.

    `interrupted`: the user whose call it was. `happened`: the interruption in words.
    """
    if after.failed:
        if after is before or before.failed:
            sentence = f"without any interruption, the registry fails with {after.failed}"
            yield Finding("failed-operation", sentence, (after.failed,))
        else:
            yield Finding("next-call-fails", f"nobody can go on for {after.failed}, after {happened}", (after.failed,))
        return
    yield from _given(interrupted, happened, before, after, users)
    if after is before and after.broken[0]:
        sentence = f"nobody has been interrupted, and {after.broken[1]}"
        yield Finding("failed-operation", sentence, (after.broken[1],))
        return
    unlike = []
    of_the_crowd: set[str] = set()
    for observer in after.observed:
        is_of_crowd = observer[1] == OF_A_CROWD
        for one in _unlike(interrupted, observer, happened, before, after):
            # The first of a crowd stands for all of them.
            if not is_of_crowd or one.anomaly not in of_the_crowd:
                unlike.append(one)
            if is_of_crowd:
                of_the_crowd.add(one.anomaly)
    # A crowd whose calls fail is not at work, for the cause that was just found.
    yield from unlike or _at_once(happened, before, after)
    yield from _asked_again(interrupted, happened, before, after)
    yield from _of_the_task(interrupted, happened, before, after)
    if len(after.ends) > 1:
        sentence = f"{interrupted!r} was sent {' and '.join(after.ends)} for one run, after {happened}"
        yield Finding("two-end-events", sentence, tuple(after.ends))
    if after.stop and (after is before or not before.stop):
        yield Finding("stop-failed", f"the stop fails with {after.stop}, after {happened}", (after.stop,))
    if after.outlived and not before.outlived:
        sentence = f"the agents of {interrupted!r} have ended and their client is still connected, after {happened}"
        yield Finding("connection-left", sentence, (f"the call came back as: {after.outcome}",))
    if after.left != before.left:
        sentence = f"something is left when everybody has ended, after {happened}"
        witness = (f"uninterrupted: {before.left}", f"interrupted: {after.left}")
        yield Finding("left-behind", sentence, witness)


def _given(interrupted: str, happened: str, before: Record, after: Record, users: Sequence[str]) -> Iterator[Finding]:
    writers = Writers(users)
    found: set[tuple[str, str]] = set()
    known = {seen.what for each in (*before.observed.values(), before.own) for seen in each}
    for (user, role), observed in {**after.observed, (interrupted, ""): after.own}.items():
        # An observation also made without the interruption is not caused by it.
        for seen in observed if after is before else [one for one in observed if one.what not in known]:
            for writer, shown in writers.of(seen.what):
                if writer == user or (user, writer) in found:
                    continue
                found.add((user, writer))
                sentence = f"{user!r}{role} received data of {writer!r} in {seen.step!r}, after {happened}"
                yield Finding("cross-user-data", sentence, (f"{seen.step}: {shown[:200]}",))


def _asked_again(interrupted: str, happened: str, before: Record, after: Record) -> Iterator[Finding]:
    """The answers to the interrupted user themselves, who asks the same again."""
    failing = {seen.step for seen in before.own if seen.what.startswith(_FAILURES)}
    for seen in after.own:
        if seen.what.startswith(_FAILURES) and seen.step not in failing:
            sentence = f"{interrupted!r} asks again, and {seen.step!r} fails, after {happened}"
            yield Finding("next-call-fails", sentence, (str(seen),))
            break
    # The lab's own records, which no interruption changes.
    usual = {seen.step: seen.what for seen in before.own if seen.step in ("rows", "total")}
    for seen in after.own:
        if not seen.what.startswith(_FAILURES) and usual.get(seen.step, seen.what) != seen.what:
            sentence = f"{interrupted!r} asks again, and {seen.step!r} gives another answer, after {happened}"
            witness = (f"without the interruption: {usual[seen.step]}", f"with it: {seen.what}")
            yield Finding("wrong-rows", sentence, witness)
            break


def _of_the_task(interrupted: str, happened: str, before: Record, after: Record) -> Iterator[Finding]:
    """The caller's own task, which may serve another user next: its cancellation and its context variables."""
    is_answered = after.outcome.startswith("answered")
    if after.is_cancelled and (is_answered or (after.outcome.startswith("error ") and after.outcome != before.outcome)):
        given = "an answer" if is_answered else "another error"
        sentence = f"the caller got {given} in place of its cancellation: {happened}"
        yield Finding("cancellation-lost", sentence, (f"the call came back as: {after.outcome}",))
    elif after.cancelling > before.cancelling:
        sentence = f"the caller's task has {counted(after.cancelling, 'unanswered cancellation')}, after {happened}"
        yield Finding("cancellation-left", sentence, (f"cancelling() is {after.cancelling}, not {before.cancelling}",))
    elif after.cancelling < before.cancelling:
        sentence = f"the caller's task has lost an earlier cancellation, which its caller handles, after {happened}"
        yield Finding("cancellation-lost", sentence, (f"cancelling() is {after.cancelling}, not {before.cancelling}",))
    left = {
        name: value
        for name, value in after.changed.items()
        # One that names the user is wrong also where nothing was interrupted: the task may serve another next.
        if (shown := _without_ids(value)) != _without_ids(before.changed.get(name, ""))
        or (after is before and repr(interrupted)[1:-1] in shown)
    }
    if left:
        sentence = f"context variables of the caller's task keep a changed value, after {happened}"
        yield Finding("context-left", sentence, tuple(f"{name}: {value}" for name, value in left.items()))


def _at_once(happened: str, before: Record, after: Record) -> Iterator[Finding]:
    for usual, now in zip(before.at_once, after.at_once, strict=False):
        witness = (f"at once before: {usual}", f"at once now: {now}")
        if now < usual:
            sentence = f"only {now} of a crowd can work at the same time, where {usual} could, after {happened}"
            yield Finding("capacity-lost", sentence, witness)
        elif now > usual:
            sentence = f"{now} of a crowd work at the same time, where a limit let in {usual}, after {happened}"
            yield Finding("over-limit", sentence, witness)


def _unlike(
    interrupted: str, observer: tuple[str, str], happened: str, before: Record, after: Record
) -> Iterator[Finding]:
    """The first observation that differs, of an observer by id and role."""
    user, role = observer
    one, other = before.observed.get(observer, []), after.observed[observer]
    if one == other or (alone := normalised(one)) == (beside := normalised(other)):
        return
    place = next(
        (n for n, (a, b) in enumerate(zip(alone, beside, strict=False)) if a != b), min(len(alone), len(beside))
    )
    wanted = alone[place] if place < len(alone) else None
    given = beside[place] if place < len(beside) else None
    step = (given or wanted or Observed("", "")).step
    what = "" if given is None else given.what
    witness = (f"without the interruption: {wanted or 'nothing more'}", f"with it: {given or 'nothing more'}")
    owner = _owner_of(interrupted, before, user, given) if given is not None and step in _DATA else ""
    if what.startswith((NO_ANSWER, AT_CAPACITY)):
        does = "waits" if what.startswith(NO_ANSWER) else "is refused"
        sentence = f"{user!r}{role} {does} in {step!r} because a place was not given back, after {happened}"
        yield Finding("capacity-lost", sentence, witness)
    elif what.startswith("error CancelledError"):
        sentence = f"{user!r}{role} is cancelled in {step!r}, and nobody had cancelled that, after {happened}"
        yield Finding("cancelled-others", sentence, witness)
    elif wanted is not None and wanted.what.startswith(_FORBIDDEN) and not what.startswith(_FAILURES):
        sentence = f"{user!r}{role} is allowed {step!r}, after {happened}"
        yield Finding("not-refused", sentence, witness)
    elif owner:
        sentence = f"{user!r}{role} received the answer of {owner!r} in {step!r}, after {happened}"
        yield Finding("cross-user-data", sentence, witness)
    elif step == "recall" and given is not None and wanted is not None and not what.startswith("error "):
        if _is_within(wanted.what, what):
            # Nothing is gone: two calls of this user at once lost one of their own writes without the interruption.
            return
        sentence = f"a write of {user!r}{role} that had succeeded is gone, after {happened}"
        yield Finding("lost-write", sentence, witness)
    elif what.startswith("error ") and wanted is not None and not wanted.what.startswith(_FAILURES):
        sentence = f"{step!r} of {user!r}{role} fails with {what.removeprefix('error ')[:120]}, after {happened}"
        yield Finding("next-call-fails", sentence, witness)
    elif wanted is not None and wanted.step == "event" and (given is None or given.step != "event"):
        sentence = f"{user!r}{role} does not receive all of their events, after {happened}"
        yield Finding("lost-event", sentence, witness)
    else:
        sentence = f"{user!r}{role} observes something else in {step!r}, after {happened}"
        yield Finding("interference", sentence, witness)


def _is_within(less: str, more: str) -> bool:
    """Whether one memory, as JSON, holds every value of the other and some more."""
    try:
        one, other = json.loads(less), json.loads(more)
    except ValueError:
        return False
    return isinstance(one, dict) and isinstance(other, dict) and one == {key: other.get(key) for key in one}


def _owner_of(interrupted: str, before: Record, user: str, given: Observed) -> str:
    """The other user who alone received just this data without the interruption, "" for nobody."""
    owners = [(owner, seen) for (owner, _), seen in before.observed.items()] + [(interrupted, before.own)]
    received = {owner for owner, seen in owners for one in seen if one.step in _DATA and one.what == given.what}
    return min(received) if len(received) == 1 and user not in received else ""


def _without_ids(value: str) -> str:
    """The value without the ids that are new in every history, which may look like a user's name."""
    return normalised([Observed("", value)])[0].what
