"""The conclusions of a check, and the evidence for each."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from lab_utils.values.quantities import agreed, counted
from lab_utils.values.texts import cut, reported, shown

__all__ = ["FINE", "LONGEST_TOKEN", "REPLAY", "Finding", "Outcome", "Verdict"]


REPLAY: Final = "replay: registry-lab replay "
"""How the entry of a witness begins that holds a token, which is kept whole."""
_LONGEST: Final = 1_000
_LONGEST_NAME: Final = 100
_LONGEST_REASON: Final = 2_000
LONGEST_TOKEN: Final = 20_000
"""Characters of a token, or of a command with one, that is shown: it is to be copied whole."""
_MOST_LINES: Final = 120
_MOST_LETTERS: Final = 20_000
_TAIL: Final = _MOST_LINES // 4
# Where the name of the counted things ends in a sentence about it.
_METRIC: Final = re.compile(r", | \(| while ")


class Outcome(StrEnum):
    """A verdict's one word. Silence is UNKNOWN, never PASS."""

    PASS = "PASS"
    UNKNOWN = "UNKNOWN"
    FAIL = "FAIL"
    NOT_APPLICABLE = "NOT_APPLICABLE"


FINE: Final = (Outcome.PASS, Outcome.NOT_APPLICABLE)
"""The outcomes that fail no run."""
_WEIGHT = {Outcome.NOT_APPLICABLE: 0, Outcome.PASS: 1, Outcome.UNKNOWN: 2, Outcome.FAIL: 3}


@dataclass(frozen=True, slots=True)
class Finding:
    """One anomaly: its standard name, one sentence that explains it, and the least evidence that shows it.

    `witness` is readable text, one entry an operation or object, in the order in which they happened. Strangers' texts
    in it are escaped and cut, and folders of this machine removed. Of a very long one head and tail are kept. Letters
    beyond ASCII are escaped, for ids may look alike.
    """

    anomaly: str
    sentence: str
    witness: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.witness:
            raise ValueError(f"finding {self.anomaly!r} has no witness; a claim without evidence is not a finding")
        object.__setattr__(self, "anomaly", _fit(self.anomaly, _LONGEST_NAME))
        object.__setattr__(self, "sentence", _fit(self.sentence))
        object.__setattr__(self, "witness", _bounded([_entry(entry) for entry in self.witness]))

    def __str__(self) -> str:
        return "\n".join([f"{self.anomaly}: {self.sentence}", *(f"    {line}" for line in self.witness)])


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judgement: an outcome, why, and for FAIL the findings.

    `exercised`: how many things one judge looked at, as ("pairs of users compared", 210); a combined verdict has none.
    """

    outcome: Outcome
    reason: str
    findings: tuple[Finding, ...] = ()
    exercised: tuple[str, int] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if (self.outcome is Outcome.FAIL) != bool(self.findings):
            raise ValueError(f"a verdict has findings exactly when it is FAIL; this is {self.outcome} ({self.reason})")
        object.__setattr__(self, "reason", _fit(self.reason, _LONGEST_REASON))

    @classmethod
    def passed(cls, reason: str) -> Verdict:
        """`reason` names the things that were exercised, with their number: "15 users, 210 pairs compared"."""
        return cls(Outcome.PASS, reason)

    @classmethod
    def unknown(cls, reason: str) -> Verdict:
        return cls(Outcome.UNKNOWN, reason)

    @classmethod
    def not_applicable(cls, reason: str) -> Verdict:
        return cls(Outcome.NOT_APPLICABLE, reason)

    @classmethod
    def of(cls, findings: Iterable[Finding], exercised: int, what: str) -> Verdict:
        """FAIL with the findings, else PASS if anything was exercised, else UNKNOWN."""
        found = tuple(findings)
        number = (_METRIC.split(what, maxsplit=1)[0], exercised) if what else None
        if found:
            names = ", ".join(sorted({finding.anomaly for finding in found}))
            return cls(Outcome.FAIL, f"{counted(len(found), 'finding')}: {names}", found, number)
        if exercised > 0:
            return cls(Outcome.PASS, f"{exercised} {agreed(exercised, what)}", exercised=number)
        return cls(Outcome.UNKNOWN, f"nothing was exercised: 0 {what}", exercised=number)

    @classmethod
    def combined(cls, verdicts: Iterable[Verdict]) -> Verdict:
        """The worst of several; none at all is UNKNOWN. FAIL has the findings of all."""
        parts = list(verdicts)
        if not parts:
            return cls.unknown("the check judged nothing")
        worst = max(parts, key=lambda part: _WEIGHT[part.outcome]).outcome
        findings = tuple(finding for part in parts for finding in part.findings)
        if findings:
            return cls.of(findings, 0, "")
        reasons = [part.reason for part in parts if part.outcome is worst]
        return cls(worst, "; ".join(dict.fromkeys(reasons)), findings)

    def __bool__(self) -> bool:
        raise TypeError("a Verdict is not true or false; compare its outcome")


def _fit(text: str, most: int = _LONGEST) -> str:
    return reported(text, most, only_ascii=True)


def _entry(text: str) -> str:
    """An entry of a witness, which may have several lines; a token for `replay` is to be copied whole."""
    if text.startswith(REPLAY):
        return shown(text, LONGEST_TOKEN)
    return "\n".join(map(_fit, cut(text, _MOST_LETTERS).split("\n")))


def _bounded(entries: list[str]) -> tuple[str, ...]:
    """The entries, or of too many the first and the last, with the count of those between them, and every token."""
    letters = sum(map(len, entries))
    if len(entries) <= _MOST_LINES and letters <= _MOST_LETTERS + LONGEST_TOKEN:
        return tuple(entries)
    tokens = [entry for entry in entries if entry.startswith(REPLAY)]
    others = [entry for entry in entries if not entry.startswith(REPLAY)]
    head = _within(others[: _MOST_LINES - _TAIL], 3 * _MOST_LETTERS // 4)
    tail = _within(others[len(head) :][: -_TAIL - 1 : -1], _MOST_LETTERS // 4)[::-1]
    left_out = len(others) - len(head) - len(tail)
    return (*head, *([f"... {left_out:,} more entries ..."] if left_out else []), *tail, *tokens[:1])


def _within(entries: list[str], letters: int) -> list[str]:
    kept: list[str] = []
    for entry in entries:
        letters -= len(entry)
        if letters < 0 and kept:
            break
        kept.append(entry)
    return kept
