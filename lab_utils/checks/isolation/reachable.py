"""Judges the objects that users can reach: each one user's only, no text of another, and no user's data in code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from lab_utils.judges.isolation import Seen, foreign_canaries
from lab_utils.probes.kinds import is_application_module
from lab_utils.probes.reachability import Survey, survey
from lab_utils.target import Target
from lab_utils.trial import Trial
from lab_utils.values.canaries import opening
from lab_utils.values.quantities import counted
from lab_utils.values.verdict import Finding, Verdict

__all__ = ["judge_reach"]

_MARK = "canary<"


def judge_reach(
    trial: Trial, target: Target, roots: Mapping[str, Mapping[str, object]], users: Sequence[str], written: int
) -> int:
    """Walk from each user's roots (user -> name -> object) and judge the result; return how many texts were in reach.

    Anomalies: `shared-object`, `cross-user-data`, and `shared-state` for a user's objects in a class or a module, which
    are in reach of every user of that code. Trusted objects, and how often they were met, go into the notes.
    """
    found = survey(roots, target.trusted(), text=_MARK, modules=is_application_module, met=True)
    texts = [Seen(user, _place(found, user, text), text) for user in users for text in found.texts.get(user, ())]
    trial.judge(foreign_canaries(texts, users, written))
    trial.judge(Verdict.of(_shared(found), found.objects, "objects reached, each by one user only"))
    trial.judge(Verdict.of(_in_code(found, users), found.objects, "objects reached, none of them held by code"))
    trial.measure("objects reached", found.objects, "objects")
    trial.measure("references followed", found.references, "references")
    for name, times in found.met.items():
        trial.sample("trusted", times, "meetings", x=name)
    met = "; ".join(f"{name} ({times:,})" for name, times in found.met.items() if times)
    never = "; ".join(name for name, times in found.met.items() if not times)
    trial.note(
        f"Trusted, and so not walked, with the number of times each was met: {met}. Never met: {never or 'none'}."
    )
    trial.note(
        "Not seen by the walk: weak references, which hold nothing; the variables of running frames; and an "
        "extension's own memory that is hidden from the collector, such as the rows in a sqlite3 database."
    )
    return len(texts)


def _place(found: Survey, user: str, text: str) -> str:
    """Where a user reaches a text; looked for only where it is somebody else's."""
    return "the objects in reach" if opening(user) in text else found.path(user, text)


def _shared(found: Survey) -> Iterator[Finding]:
    beside = f"and {counted(found.more_shared, 'more object')} of several users, which were only counted"
    for one in found.shared:
        more = f", as can {len(one.users) - 2} more" if len(one.users) > 2 else ""
        sentence = f"{one.users[0]!r} and {one.users[1]!r} can both reach one object{more}"
        yield Finding("shared-object", sentence, (*one.paths, beside) if found.more_shared else one.paths)


def _in_code(found: Survey, users: Sequence[str]) -> Iterator[Finding]:
    for one in found.in_code:
        owner = one.user or next((user for user in users if opening(user) in one.path), "")
        if owner:
            sentence = f"a class or a module, which all users' code can read, holds something of {owner!r}"
            yield Finding("shared-state", sentence, (one.path,))
