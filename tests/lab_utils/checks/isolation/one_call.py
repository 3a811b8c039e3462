"""The interruptions of one call alone: where one call shows a fault, the others need not be lived."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from lab_utils.checks.isolation.cuts import BESIDE
from lab_utils.checks.isolation.exploration import Exploration
from lab_utils.target import Target
from lab_utils.values.verdict import Finding


class _FoundError(Exception):
    """The finding that was looked for is there."""


def interrupted(make: Callable[[], Target], call: str, stop_at: frozenset[str] = frozenset()) -> list[Finding]:
    """The findings where this call is interrupted at each of its places, in every way, beside every other call; up to
    the first one of these anomalies."""
    findings: list[Finding] = []

    class OfOneCall(Exploration):
        def besides(self, one: str) -> Sequence[str]:
            return BESIDE if one == call else ()

    def found(finding: Finding) -> None:
        findings.append(finding)
        if finding.anomaly in stop_at:
            raise _FoundError

    exploration = OfOneCall(make, "made up", 20_261, found, lambda _: None)
    with suppress(_FoundError):
        assert exploration.whole(lambda _: None) == ""
    assert exploration.histories
    assert not exploration.unexplored
    return findings
