"""Judges whether users share objects, and whether one user's data reached another."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import comb
from typing import Any

from lab_utils.values.canaries import Writers
from lab_utils.values.history import History, OpType
from lab_utils.values.verdict import Finding, Verdict

__all__ = [
    "SPOILED",
    "Seen",
    "distinct_objects",
    "foreign_canaries",
    "holds_only_others",
    "own_answers",
    "same_after_mutation",
]

SPOILED = "spoiled"
"""The text that a caller puts into its own objects, to see whether it arrives inside."""
_CANARY = re.compile(r"canary<[^>]*>")


def distinct_objects(parts: Mapping[str, Mapping[str, Iterable[object]]]) -> Verdict:
    """Judge that no object belongs to two users. `parts`: kind -> user -> the user's objects of that kind.

    All pairs of users are compared, through one owner table a kind: n users are n(n-1)/2 pairs.
    """
    findings: list[Finding] = []
    pairs = 0
    for kind, by_user in parts.items():
        owners: dict[int, str] = {}
        for user, items in by_user.items():
            for item in items:
                other = owners.setdefault(id(item), user)
                if other != user:
                    sentence = f"{user!r} and {other!r} have the same {kind}"
                    findings.append(Finding("shared-object", sentence, (f"{kind}: {item!r} at {id(item):#x}",)))
        pairs += comb(len(by_user), 2)
    return Verdict.of(findings, pairs, "pairs of users compared, over every kind of object")


@dataclass(frozen=True, slots=True)
class Seen:
    """A value that a user received: its origin, and the value itself."""

    user: str
    place: str
    value: Any


def foreign_canaries(seen: Iterable[Seen], users: Iterable[str], written: int) -> Verdict:
    """Judge that nobody received a canary of another user. `written`: how many canaries there were to be seen.

    A canary names its writer (`lab_utils.values.canaries`), so each finding names the one it leaked from. Also counts
    the canaries that came back to their own writers: if none did, nothing was read and the verdict is UNKNOWN.
    """
    writers = Writers(users)
    findings: list[Finding] = []
    own = 0
    for item in seen:
        for writer, shown in writers.of(item.value):
            if writer == item.user:
                own += 1
            else:
                sentence = f"{item.user!r} received data of {writer!r} in {item.place}"
                findings.append(Finding("cross-user-data", sentence, (f"{item.place}: {shown[:200]}",)))
    if not findings and (own == 0 or written == 0):
        return Verdict.unknown(f"no canary came back to its own writer ({written} written): nothing was read")
    return Verdict.of(findings, own, f"canaries read by their own writers, none by others ({written} written)")


def own_answers(history: History) -> Verdict:
    """Judge that no two users ever received the same agent instance."""
    owners: dict[str, tuple[str, str]] = {}
    findings: list[Finding] = []
    count = 0
    for op in history:
        if op.type is not OpType.OK or op.action not in ("create", "get", "get_or_create") or op.value is None:
            continue
        count += 1
        user, first = owners.setdefault(str(op.value), (op.user, str(op)))
        if user != op.user:
            sentence = f"agent {op.value} answered {user!r} and {op.user!r}"
            findings.append(Finding("cross-user-answer", sentence, (first, str(op))))
    return Verdict.of(findings, count, "answers, each agent to one user only")


def holds_only_others(written: Any, found: Any) -> bool:
    """True if there are canaries in `found`, and none of those in `written`."""
    own, there = (set(_CANARY.findall(repr(value))) for value in (written, found))
    return bool(there) and not there & own


def same_after_mutation(cases: Iterable[tuple[str, str, Any, Any]]) -> Verdict:
    """Judge that a caller's changes to its own objects changed nothing inside.

    `cases`: (anomaly, the mutated object, its value before, the value read afterwards). A change has put `SPOILED` into
    the object. A value that differs without it was changed by somebody else: that is a wrong answer, and no alias.
    """
    findings: list[Finding] = []
    count = 0
    for anomaly, what, before, after in cases:
        count += 1
        if before == after:
            continue
        witness = (f"before: {before!r}", f"after the caller changed its own object: {after!r}")
        if SPOILED in repr(after):
            findings.append(Finding(anomaly, f"a later change of {what} changed the stored data", witness))
        else:
            sentence = f"an answer is another one than before, and not because of a change of {what}"
            findings.append(Finding("wrong-answer", sentence, witness))
    return Verdict.of(findings, count, "objects changed by their callers, without effect inside")
