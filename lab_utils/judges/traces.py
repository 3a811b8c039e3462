"""Judges the traces of users in log records, reprs and errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from lab_utils.values.canaries import Writers
from lab_utils.values.quantities import agreed
from lab_utils.values.verdict import Finding, Verdict

__all__ = ["KINDS", "Trace", "own_traces"]

KINDS = ("log", "repr", "error")
"""Where a trace is left: a record that was logged, the repr of an object, an error with all that it names."""

_SHOWN = 300


@dataclass(frozen=True, slots=True)
class Trace:
    """One thing left in a user's work: its kind, one of `KINDS`, its place, and its content.

    `user`: "" for a record that was logged in no known user's work."""

    user: str
    kind: str
    place: str
    value: Any


def own_traces(traces: Iterable[Trace], users: Iterable[str]) -> Verdict:
    """Judge that no trace of a user's work holds a canary (`lab_utils.values.canaries`) or the id of another user.

    | anomaly             | another user's canary or id stands in                                        |
    |---------------------|------------------------------------------------------------------------------|
    | canary-in-log       | a record that was logged in this user's work                                 |
    | canary-in-repr      | the repr of an object of this user                                           |
    | canary-in-error     | an error that this user met: its text, its arguments, notes, causes, context |

    A record of an unknown user has no known owner: it is a canary-in-log when it holds canaries of two users, for then
    it is wrong for any owner. Ids alone are none there: an operator's record may name several users.

    The ids must be such that none is part of another, nor of any other text. UNKNOWN unless a log, if anything was
    logged, and an error held something of its own user: else a leak could not have been seen. A repr need not mention
    anybody.
    """
    known = list(dict.fromkeys(users))
    writers = Writers(known)
    findings: list[Finding] = []
    own: Counter[str] = Counter(error=0)
    nobodys = 0
    for trace in traces:
        if not trace.user:
            nobodys += 1
            findings += _mixed(trace, writers)
            continue
        own[trace.kind] += 0
        for writer, shown in dict(_named(trace.value, writers, known)).items():
            if writer == trace.user:
                own[trace.kind] += 1
                continue
            sentence = f"{trace.place} of {trace.user!r} holds data of {writer!r}"
            findings.append(Finding(f"canary-in-{trace.kind}", sentence, (_shown(trace, writer, shown),)))
    silent = [kind for kind, count in own.items() if not count and kind != "repr"]
    if not findings and silent:
        return Verdict.unknown(f"no {' and no '.join(silent)} held anything of its own user: nothing was read")
    what = ", ".join(f"{count} in {kind}s" for kind, count in own.items())
    what += f"; {nobodys} {agreed(nobodys, 'records')} without an owner, none with data of two users" if nobodys else ""
    return Verdict.of(findings, own.total(), f"traces, each of its own user alone ({what})")


def _mixed(trace: Trace, writers: Writers) -> Iterator[Finding]:
    found = dict(writers.of(trace.value))
    if len(found) > 1:
        sentence = f"{trace.place}, logged in no user's work, holds data of {' and '.join(map(repr, sorted(found)))}"
        witness = tuple(_shown(trace, writer, text) for writer, text in sorted(found.items()))
        yield Finding(f"canary-in-{trace.kind}", sentence, witness)


def _shown(trace: Trace, writer: str, text: str) -> str:
    at = max(0, text.find(writer) - _SHOWN // 2)
    return f"{trace.place}: {text[at : at + _SHOWN]}"


def _named(value: Any, writers: Writers, users: Iterable[str]) -> Iterable[tuple[str, str]]:
    text = value if isinstance(value, str) else repr(value)
    yield from ((user, text) for user in users if user in text)
    yield from writers.of(value)
