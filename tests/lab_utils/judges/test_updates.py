"""Counters that lose, double or mix up updates, and their twins that do not."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from lab_utils.judges.updates import Update, counters_add_up
from lab_utils.values.history import Op, OpType
from lab_utils.values.verdict import Outcome


def update(
    user: str, amount: int, answer: Any, when: tuple[int, int], kind: OpType = OpType.OK, error: str = ""
) -> Update:
    begin, end = when
    return Update(Op(begin, user, user, "run:add", "ledger", "main", kind, begin, end, 0.0, 0.0, answer, error), amount)


RIGHT = {
    "one after another": ([update("ann", 5, 5, (1, 2)), update("ann", 7, 12, (3, 4))], {"ann": 12}),
    "at once, the later one first": ([update("ann", 5, 12, (1, 4)), update("ann", 7, 7, (2, 3))], {"ann": 12}),
    "two users with equal numbers": ([update("ann", 5, 5, (1, 2)), update("bob", 6, 6, (3, 4))], {"ann": 5, "bob": 6}),
    "a failed one has no effect": (
        [update("ann", 5, 5, (1, 2)), update("ann", 7, "no", (3, 4), OpType.FAIL, "Refused")],
        {"ann": 5},
    ),
    "an unknown one may count": (
        [update("ann", 5, None, (1, 2), OpType.INFO), update("ann", 7, 12, (3, 4))],
        {"ann": 12},
    ),
    "an unknown one may not count": (
        [update("ann", 5, None, (1, 2), OpType.INFO), update("ann", 7, 7, (3, 4))],
        {"ann": 7},
    ),
}
WRONG = {
    "both began with nothing": ([update("ann", 5, 5, (1, 3)), update("ann", 7, 7, (2, 4))], {"ann": 7}, "lost-update"),
    "both began with five": (
        [update("ann", 5, 5, (1, 2)), update("ann", 7, 12, (3, 5)), update("ann", 8, 13, (4, 6))],
        {"ann": 13},
        "lost-update",
    ),
    "the final number lacks the last": (
        [update("ann", 5, 5, (1, 2)), update("ann", 7, 12, (3, 4))],
        {"ann": 5},
        "lost-update",
    ),
    "nothing is left of it": ([update("ann", 5, 5, (1, 2))], {"ann": None}, "lost-update"),
    "began with another user's": (
        [update("ann", 5, 5, (1, 2)), update("bob", 7, 12, (3, 4))],
        {"ann": 12, "bob": 12},
        "cross-user-update",
    ),
    "added twice": ([update("ann", 5, 10, (1, 2))], {"ann": 10}, "phantom-update"),
    "added again after the answer": ([update("ann", 5, 5, (1, 2))], {"ann": 10}, "phantom-update"),
    "a failed one had an effect": (
        [update("ann", 5, "no", (1, 2), OpType.FAIL, "Refused"), update("ann", 7, 12, (3, 4))],
        {"ann": 12},
        "phantom-update",
    ),
    "answered less than before": (
        [update("ann", 5, 12, (1, 2)), update("ann", 7, 7, (3, 4))],
        {"ann": 12},
        "stale-update",
    ),
    "no number": ([update("ann", 5, "5", (1, 2))], {}, "wrong-answer"),
}


@pytest.mark.parametrize(("updates", "finals"), RIGHT.values(), ids=RIGHT)
def test_right(updates: list[Update], finals: dict[str, int | None]) -> None:
    assert counters_add_up(updates, finals).outcome is Outcome.PASS


@pytest.mark.parametrize(("updates", "finals", "anomaly"), WRONG.values(), ids=WRONG)
def test_wrong(updates: list[Update], finals: dict[str, int | None], anomaly: str) -> None:
    assert anomaly in {finding.anomaly for finding in counters_add_up(updates, finals).findings}


@pytest.mark.parametrize(("final", "anomalies"), [(12, set()), (7, {"lost-update"}), (13, {"phantom-update"})])
def test_of_updates_whose_answers_hold_no_number_the_final_number_is_judged(final: int, anomalies: set[str]) -> None:
    updates = [update("ann", 5, '{"done":true}', (1, 3)), update("ann", 7, None, (2, 4))]
    verdict = counters_add_up(updates, {"ann": final}, are_answered=False)
    assert {finding.anomaly for finding in verdict.findings} == anomalies
    assert (verdict.outcome is Outcome.PASS) == (final == 12)


def test_updates_that_all_failed_are_unknown() -> None:
    failed = update("ann", 5, "no", (1, 2), OpType.FAIL, "Refused")
    assert counters_add_up([failed], {"ann": None}).outcome is Outcome.UNKNOWN


def test_the_witness_is_the_two_and_what_they_began_with() -> None:
    updates = [update("ann", 5, 5, (1, 2)), update("ann", 7, 12, (3, 5)), update("ann", 8, 13, (4, 6))]
    lost = counters_add_up(updates, {}).findings[0]
    assert lost.witness == tuple(map(str, updates))


def test_exactly_the_orders_of_a_counter_pass() -> None:
    """Three updates at once: of all ways to answer 3 + 5 + 9, those of a counter pass and no other one does."""
    amounts = (3, 5, 9)
    orders = set()
    for order in itertools.permutations(range(3)):
        answers, total = [0, 0, 0], 0
        for place in order:
            total += amounts[place]
            answers[place] = total
        orders.add(tuple(answers))
    sums = [sum(some) for size in range(4) for some in itertools.combinations(amounts, size)]
    for answers_ in itertools.product(sums, repeat=3):
        updates = [update("ann", amounts[n], answers_[n], (n + 1, n + 4)) for n in range(3)]
        passed = counters_add_up(updates, {"ann": 17}).outcome is Outcome.PASS
        assert passed == (answers_ in orders), answers_
