"""What a check may conclude, and the evidence it must show."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Finding", "Outcome", "Verdict"]


class Outcome(StrEnum):
    """A verdict's one word. Silence is UNKNOWN, never PASS."""

    PASS = "PASS"
    UNKNOWN = "UNKNOWN"
    FAIL = "FAIL"
    NOT_APPLICABLE = "NOT_APPLICABLE"


_WEIGHT = {Outcome.NOT_APPLICABLE: 0, Outcome.PASS: 1, Outcome.UNKNOWN: 2, Outcome.FAIL: 3}


@dataclass(frozen=True, slots=True)
class Finding:
    """One anomaly: its standard name, one sentence that explains it, and the least evidence that shows it.

    `witness` is readable text, one entry an operation or object, in the order in which they happened.
    """

    anomaly: str
    sentence: str
    witness: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.witness:
            raise ValueError(f"finding {self.anomaly!r} has no witness; a claim without evidence is no finding")

    def __str__(self) -> str:
        return "\n".join([f"{self.anomaly}: {self.sentence}", *(f"    {line}" for line in self.witness)])


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judgement: an outcome, why, and for FAIL the findings."""

    outcome: Outcome
    reason: str
    findings: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        if (self.outcome is Outcome.FAIL) != bool(self.findings):
            raise ValueError(f"a verdict has findings exactly when it is FAIL; this is {self.outcome} ({self.reason})")

    @classmethod
    def passed(cls, reason: str) -> Verdict:
        """`reason` says what was exercised, with its number: "15 users, 210 pairs compared"."""
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
        if found:
            names = ", ".join(sorted({finding.anomaly for finding in found}))
            return cls(Outcome.FAIL, f"{len(found)} finding(s): {names}", found)
        return cls.passed(f"{exercised} {what}") if exercised > 0 else cls.unknown(f"nothing was exercised: 0 {what}")

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
