"""Histories of activations that raced, wrongly and rightly."""

from __future__ import annotations

from typing import Any

import pytest

from lab_utils.judges.activation import failures_forgotten, only_own_cancellations, single_activation
from lab_utils.values.history import History, Op, OpType
from lab_utils.values.verdict import Outcome


def op(
    when: tuple[int, int],
    value: Any,
    *,
    action: str = "get_or_create",
    user: str = "ann",
    thread: str = "main",
    client: str = "c",
    error: str = "",
) -> Op:
    kind = OpType.OK if not error else OpType.INFO if error == "CancelledError" else OpType.FAIL
    return Op(when[0], client, user, action, "helper", thread, kind, when[0], when[1], 0.0, 0.0, value, error)


ONE_AGENT = {
    "two threads": [op((1, 2), "#1"), op((3, 4), "#2", thread="other"), op((5, 6), "#1")],
    "two users": [op((1, 2), "#1"), op((3, 4), "#2", user="bob"), op((5, 6), "#1")],
    "a call that failed": [op((1, 2), "#1"), op((3, 4), "no", error="Planned"), op((5, 6), "#1")],
    "removed at the same time": [op((1, 4), "#1"), op((3, 6), True, action="remove"), op((5, 8), "#2")],
    "an end of unknown effect": [op((1, 2), "#1"), op((3, 4), None, action="end", error="CancelledError"), op((5, 6), "#2")],
}  # fmt: skip
TWO_AGENTS = {
    "two at once": [op((1, 4), "#1"), op((2, 3), "#2")],
    "removed before either": [op((1, 2), True, action="remove"), op((3, 4), "#1"), op((5, 6), "#2")],
    "removed after both": [op((1, 2), "#1"), op((3, 4), "#2"), op((5, 6), True, action="remove")],
    "nobody removed": [op((1, 2), "#1"), op((3, 4), True, action="run"), op((5, 6), "#2")],
    "another user removed": [op((1, 2), "#1"), op((3, 4), True, action="remove", user="bob"), op((5, 6), "#2")],
    "the removal was refused": [op((1, 2), "#1"), op((3, 4), "no", action="remove", error="Refused[closed]"), op((5, 6), "#2")],
}  # fmt: skip


@pytest.mark.parametrize("name", ONE_AGENT)
def test_one_agent_for_all_passes(name: str) -> None:
    assert single_activation(History(ONE_AGENT[name])).outcome is Outcome.PASS


@pytest.mark.parametrize("name", TWO_AGENTS)
def test_two_agents_are_named_with_both_answers(name: str) -> None:
    verdict = single_activation(History(TWO_AGENTS[name]))
    (finding,) = verdict.findings
    assert finding.anomaly == "double-activation"
    assert "#1" in finding.witness[0] + finding.witness[1]
    assert "#2" in finding.witness[0] + finding.witness[1]


def test_a_shared_failure_a_new_one_a_success_and_the_same_text_for_another_user_pass() -> None:
    shared = [op((1, 4), "failure 1", error="Planned"), op((2, 5), "failure 1", error="Planned")]
    later = [op((6, 7), "failure 2", error="Planned"), op((8, 9), "#1"), op((10, 11), "#1")]
    others = [op((12, 13), "failure 1", error="Planned", **of) for of in ({"user": "bob"}, {"action": "remove"})]
    verdict = failures_forgotten(History([*shared, *later, *others]))
    assert verdict.outcome is Outcome.PASS
    assert verdict.reason.startswith("1 ")


def test_a_failure_answered_again_later_is_cached() -> None:
    early, late = op((1, 2), "failure 1", error="Planned"), op((3, 4), "failure 1", error="Planned")
    (finding,) = failures_forgotten(History([early, late])).findings
    assert finding.anomaly == "cached-failure"
    assert finding.witness == (str(early), str(late))


def test_a_cancellation_of_ones_own_passes_and_one_that_spreads_is_found() -> None:
    own = op((1, 3), None, client="a", error="CancelledError")
    assert only_own_cancellations(History([own, op((2, 4), "#1", client="b")]), {"a"}).outcome is Outcome.PASS
    ops = [own, op((2, 4), None, client="b", error="CancelledError")]
    bobs = op((1, 3), None, client="a", user="bob", error="CancelledError")
    (finding,) = only_own_cancellations(History([bobs, *ops]), {"a"}).findings
    assert finding.anomaly == "cancelled-others"
    assert finding.witness == (str(ops[0]), str(ops[1]))
