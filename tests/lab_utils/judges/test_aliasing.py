"""A value that differs is an alias only if the caller's own change arrived in it."""

from __future__ import annotations

from lab_utils.checks.isolation.aliasing import spoil
from lab_utils.judges.isolation import same_after_mutation


def test_what_somebody_else_changed_is_no_alias() -> None:
    shared = {"note": ["mine"]}
    spoil(shared)
    cases = [
        ("aliased-input", "a value", {"note": ["mine"]}, shared),
        ("aliased-output", "an answer", {"note": ["mine"]}, {"note": ["another user's"]}),
        ("aliased-output", "an answer", {"note": ["mine"]}, {"note": ["mine"]}),
    ]
    assert [finding.anomaly for finding in same_after_mutation(cases).findings] == ["aliased-input", "wrong-answer"]
