"""Endings that delay, touch, forget or repeat, and those that do not."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from lab_utils.judges.leaving import Left, closed_once, undelayed
from lab_utils.values.history import History, Op, OpType
from lab_utils.values.verdict import Outcome


def op(user: str, action: str, invoked: int, completed: int, kind: OpType = OpType.OK) -> Op:
    return Op(invoked, user, user, action, "", "", kind, invoked, completed, 0.0, 0.0)


END = op("ann", "end", 1, 9)
"""Held from position 2 to position 8."""

UNDELAYED = {
    "done in the meantime": ([END, op("bob", "run", 3, 4)], Outcome.PASS),
    "refused in the meantime": ([END, op("bob", "run", 3, 4, OpType.FAIL)], Outcome.PASS),
    "done after it was let go": ([END, op("bob", "run", 3, 10)], Outcome.FAIL),
    "given up": ([END, op("bob", "run", 3, 4, OpType.INFO)], Outcome.FAIL),
    "another one who leaves had to wait": ([END, op("cid", "end", 3, 10)], Outcome.FAIL),
    "nobody did anything": ([END, op("bob", "run", 10, 11)], Outcome.UNKNOWN),
    "nothing was held": ([op("ann", "end", 1, 3), op("bob", "run", 4, 5)], Outcome.UNKNOWN),
    "only the one who leaves": ([END, op("ann", "get", 3, 4)], Outcome.UNKNOWN),
}


@pytest.mark.parametrize(("ops", "outcome"), UNDELAYED.values(), ids=UNDELAYED)
def test_undelayed(ops: list[Op], outcome: Outcome) -> None:
    verdict = undelayed(History(ops), {"ann"}, 2, 8)
    assert verdict.outcome is outcome
    assert {finding.anomaly for finding in verdict.findings} <= {"delayed-by-neighbour"}


LEFT = Left("ann", 2, True, 2, (), False)
ONCE = {("ann", "first"): 1, ("ann", "second"): 1}
CLOSED: dict[str, tuple[Left, dict[tuple[str, str], int] | None, str]] = {
    "not closed": (LEFT, {("ann", "first"): 1}, "agent-not-closed"),
    "closed twice": (LEFT, {**ONCE, ("ann", "first"): 2}, "closed-twice"),
    "reported one less": (replace(LEFT, closed=1), ONCE, "wrong-report"),
    "reported one less, of agents without cleanups": (replace(LEFT, closed=1), None, "wrong-report"),
    "reported no session": (replace(LEFT, found=False), ONCE, "wrong-report"),
    "failed in silence": (replace(LEFT, failed=True), ONCE, "error-not-reported"),
    "errors of nothing": (replace(LEFT, errors=("disk full",)), ONCE, "error-of-others"),
    "the neighbour's too": (LEFT, {**ONCE, ("bob", "first"): 1}, "neighbour-touched"),
}


def test_closed_once() -> None:
    failed = replace(LEFT, failed=True, errors=("disk full",))
    for left in (LEFT, failed):
        assert closed_once([left], Counter(ONCE), ("first", "second"), ["bob"]).outcome is Outcome.PASS
    assert closed_once([LEFT], None, ("first", "second"), ["bob"]).outcome is Outcome.PASS


@pytest.mark.parametrize(("left", "cleanups", "anomaly"), CLOSED.values(), ids=CLOSED)
def test_not_closed_once(left: Left, cleanups: dict[tuple[str, str], int] | None, anomaly: str) -> None:
    verdict = closed_once([left], cleanups, ("first", "second"), ["bob"])
    assert [finding.anomaly for finding in verdict.findings] == [anomaly]
