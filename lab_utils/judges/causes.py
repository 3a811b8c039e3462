"""Groups the findings of a run by their cause; runs nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter

from lab_utils.judges.anomalies import FOLLOWS, sentence_for, severity
from lab_utils.judges.identity import Identified
from lab_utils.values.quantities import counted
from lab_utils.values.verdict import REPLAY

__all__ = ["Cause", "causes", "may_follow"]

_OPENERS = frozenset(
    (
        *("a", "after", "all", "an", "any", "at", "before", "both", "by", "each", "every", "for", "if", "in", "it"),
        *("no", "none", "of", "on", "one", "some", "the", "there", "this", "two", "when", "where", "while", "with"),
    )
)
"""Words at the beginning of a sentence that name nobody: any other may be a user's id."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Findings that most likely have one cause. The first of them explains it best.

    `followers`: findings of the same checks that usually follow from it.
    """

    anomaly: str
    findings: tuple[Identified, ...]
    followers: tuple[Identified, ...]

    @property
    def sentence(self) -> str:
        """The cause, in words for people. An anomaly of a check of somebody's own has none: the finding's sentence
        stands in their place, written as the others are."""
        return sentence_for(self.anomaly) or _as_heading(self.first)

    @property
    def is_of_their_own(self) -> bool:
        """Whether the anomaly is one of a check of somebody's own."""
        return not sentence_for(self.anomaly)

    @property
    def effect(self) -> str:
        """The worst that was seen of the cause, in words for people: its own sentence, or that of a worse follower."""
        worst = min((one.finding.anomaly for one in self.followers), key=severity, default=self.anomaly)
        return sentence_for(worst) if severity(worst) < severity(self.anomaly) else self.sentence

    @property
    def first(self) -> Identified:
        """The finding that explains it."""
        return self.findings[0]

    @property
    def all(self) -> tuple[Identified, ...]:
        """The findings of the cause, and those that follow from it."""
        return self.findings + self.followers

    @property
    def checks(self) -> tuple[str, ...]:
        """The checks that found it."""
        return tuple(dict.fromkeys(one.result.check for one in self.all))

    @property
    def users(self) -> tuple[str, ...]:
        """The users that any of its findings names."""
        return tuple(sorted({user for one in self.all for user in one.users}))

    @property
    def consequences(self) -> tuple[tuple[str, int], ...]:
        """The anomalies that follow, and how many findings each has."""
        return tuple(Counter(one.finding.anomaly for one in self.followers).most_common())

    def telling(self, most: int) -> tuple[Identified, ...]:
        """At most so many of its findings, each of which says something new: the first, then one of each check and
        fingerprint, then of other users. A hundred alike hide none that is not."""
        chosen: dict[str, Identified] = {self.first.key: self.first}
        for new in map(attrgetter, ("fingerprint", "users", "key")):
            seen = {new(one) for one in chosen.values()}
            for one in self.findings:
                if new(one) not in seen:
                    seen.add(new(one))
                    chosen[one.key] = one
        return tuple(chosen.values())[:most]

    @property
    def affected(self) -> str:
        """The affected users, where known, and the number of findings: a sentence."""
        users = f"{counted(len(self.users), 'user')} affected; " if self.users else ""
        return f"{users}{counted(len(self.all), 'finding')} in {counted(len(self.checks), 'check')}."


def causes(found: Iterable[Identified]) -> list[Cause]:
    """Group the findings, the most serious cause first. Each finding is in exactly one group.

    Findings of one anomaly are one cause, in several checks too, unless they are about different calls. A finding that
    usually follows from another anomaly of the same check is put below that one.
    """
    every = list(found)
    roots = _roots(every)
    groups: list[list[Identified]] = []
    named: dict[str, list[list[Identified]]] = {}
    for one in every:
        if roots[one.key] == one.finding.anomaly:
            beside = named.setdefault(one.finding.anomaly, [])
            group = next((each for each in beside if _is_alike(each[0], one)), None)
            if group is None:
                groups.append([one])
                beside.append(groups[-1])
            else:
                group.append(one)
    below: list[list[Identified]] = [[] for _ in groups]
    for one in every:
        if roots[one.key] != one.finding.anomaly:
            below[_place(groups, roots[one.key], one.result.check)].append(one)
    made = [
        Cause(group[0].finding.anomaly, _best_first(group), tuple(of)) for group, of in zip(groups, below, strict=True)
    ]
    return sorted(made, key=lambda cause: severity(cause.anomaly))


def _as_heading(one: Identified) -> str:
    """The finding's sentence with a stop, and with a capital where its first word is no name."""
    sentence = one.finding.sentence.strip()
    first = sentence.partition(" ")[0]
    if first in _OPENERS and first not in one.users:
        sentence = sentence[:1].upper() + sentence[1:]
    return sentence if sentence.endswith((".", "!", "?", ":")) else f"{sentence}."


def may_follow(cause: Cause, other: Cause) -> bool:
    """Whether the anomaly of a cause usually follows from that of another one, which only other checks found: nothing
    shows that the two are one."""
    return cause.anomaly in FOLLOWS.get(other.anomaly, ())


def _roots(every: Sequence[Identified]) -> dict[str, str]:
    """Key of a finding -> the anomaly of the same check that it follows from, or its own."""
    present: dict[str, set[str]] = {}
    for one in every:
        present.setdefault(one.result.check, set()).add(one.finding.anomaly)
    return {one.key: _root(one.finding.anomaly, present[one.result.check]) for one in every}


def _root(anomaly: str, present: set[str]) -> str:
    seen = {anomaly}
    while True:
        above = [one for one, follow in FOLLOWS.items() if one in present and anomaly in follow and one not in seen]
        if not above:
            return anomaly
        anomaly = min(above, key=severity)
        seen.add(anomaly)


def _is_alike(one: Identified, other: Identified) -> bool:
    same = one.finding.anomaly == other.finding.anomaly
    return same and (not one.calls or not other.calls or bool({*one.calls} & {*other.calls}))


def _place(groups: Sequence[Sequence[Identified]], anomaly: str, check: str) -> int:
    """The group of that anomaly with a finding of this check."""
    return next(
        place
        for place, group in enumerate(groups)
        if group[0].finding.anomaly == anomaly and any(one.result.check == check for one in group)
    )


def _best_first(group: Sequence[Identified]) -> tuple[Identified, ...]:
    """One that can be replayed step by step before others, then those that name operations, then those of names that
    are read without an escape, then the shortest."""

    def order(one: Identified) -> tuple[bool, bool, bool, int]:
        witness = one.finding.witness
        can_be_replayed = any(line.startswith(REPLAY) for line in witness)
        return not can_be_replayed, not one.operations, "\\" in one.finding.sentence, len(witness)

    return tuple(sorted(group, key=order))
