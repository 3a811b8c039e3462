"""Judges whether one user's observations depend on other users' actions, and finds the first difference."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from lab_utils.values.verdict import Finding, Verdict

__all__ = ["Observed", "normalised", "not_interfered"]

# Ids drawn at random may also stand within texts; nothing else looks like this, and counted ids never hide here.
_RANDOM = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{16,}")


@dataclass(frozen=True, slots=True)
class Observed:
    """One value that a user received: the step that returned it, and the value as text. `ids`: names of instances and
    runs, which are drawn at random or counted for everybody, and so may differ."""

    step: str
    what: str
    ids: tuple[str, ...] = ()

    def __str__(self) -> str:
        shown = self.what if len(self.what) <= 300 else f"{self.what[:270]}... ({len(self.what)} characters)"
        return " ".join([f"{self.step} -> {shown}", *self.ids])


def normalised(observations: Iterable[Observed]) -> list[Observed]:
    """Replace each id by the place of its first appearance: the values are lost, but not which of them are equal."""
    names: dict[str, str] = {}

    def name(text: str) -> str:
        return names.setdefault(text, f"<id {len(names) + 1}>")

    def named(one: Observed) -> Observed:
        what = _RANDOM.sub(lambda found: name(found[0]), one.what) if _has_ids(one.what) else one.what
        if what is one.what and not one.ids:
            return one
        return Observed(one.step, what, tuple(map(name, one.ids)))

    return list(map(named, observations))


@lru_cache(maxsize=1_024)
def _has_ids(text: str) -> bool:
    # Most texts are the same in all the histories that a check compares.
    return _RANDOM.search(text) is not None


def not_interfered(
    alone: Mapping[str, Sequence[Observed]],
    beside: Mapping[str, Sequence[Observed]],
    happened: str = "when others act",
) -> Verdict:
    """Judge that each user observed the same alone as beside the others, ids aside; one finding a user, the first
    difference. A user who observed nothing in one of the two is a difference like any other. `happened`: the others'
    work in words."""
    findings: list[Finding] = []
    count = 0
    for user in dict.fromkeys([*alone, *beside]):
        one, other = normalised(alone.get(user, ())), normalised(beside.get(user, ()))
        count += len(one)
        if one == other:
            continue
        place = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
        before = [f"both:   {seen}" for seen in one[max(0, place - 1) : place]]
        sentence = f"observation {place + 1} of {user!r} differs {happened}"
        findings.append(
            Finding("interference", sentence, (*before, f"alone:  {_at(one, place)}", f"beside: {_at(other, place)}"))
        )
    return Verdict.of(findings, count, "observations, the same alone and beside the others")


def _at(observations: Sequence[Observed], place: int) -> str:
    return str(observations[place]) if place < len(observations) else "nothing more"
