"""Counts that drift, lookups that find the wrong agent, closings that are not one each; and right ones."""

from __future__ import annotations

from typing import Any

import pytest

from lab_utils.judges.counts import Reading, closed_once, population_follows, refused_after_close
from lab_utils.judges.lookups import lookups_find_newest
from lab_utils.target import EndReport
from lab_utils.values.history import History, Op, OpType
from lab_utils.values.verdict import Outcome

Row = tuple[str, Any, tuple[int, int]]


def op(
    index: int,
    action: str,
    value: Any,
    *,
    user: str = "ann",
    agent_type: str = "helper",
    thread: str = "main",
    error: str = "",
    until: int | None = None,
) -> Op:
    kind = OpType.OK if not error else OpType.INFO if error == "CancelledError" else OpType.FAIL
    end = 3 * index + 1 if until is None else until
    return Op(index, "c", user, action, agent_type, thread, kind, 3 * index, end, 0.0, 0.0, value, error)


def judged(rows: list[tuple[Op, tuple[int, int]]]) -> Any:
    readings = [Reading(3 * one.index + 2, *counts) for one, counts in rows]
    return population_follows(History(one for one, _ in rows), readings)


LIFE: list[tuple[Op, tuple[int, int]]] = [
    (op(0, "get", None), (0, 0)),
    (op(1, "create", "no", error="Planned"), (0, 0)),
    (op(2, "create", "#1"), (1, 1)),
    (op(3, "create", "#2"), (1, 2)),
    (op(4, "get_or_create", "#2"), (1, 2)),
    (op(5, "create", "#3", user="bob"), (2, 3)),
    (op(6, "remove", True), (2, 2)),
    (op(7, "remove", False, agent_type="analyst"), (2, 2)),
    (op(8, "reset", 1), (2, 1)),
    (op(9, "reset", 0), (2, 1)),
    (op(10, "end", EndReport(True, 0)), (1, 1)),
    (op(11, "end", EndReport(False, 0)), (1, 1)),
    (op(12, "end", EndReport(True, 1), user="bob"), (0, 0)),
]


def test_a_session_ends_with_its_last_agent_or_stays_and_so_does_every_other() -> None:
    ends = [
        *LIFE[:8],
        (LIFE[8][0], (1, 1)),
        (LIFE[9][0], (1, 1)),
        (op(10, "end", EndReport(False, 0)), (1, 1)),
        *LIFE[11:],
    ]
    assert judged(ends).outcome is Outcome.PASS
    assert judged([*ends[:9], *LIFE[9:]]).outcome is Outcome.FAIL
    assert judged([*LIFE[:9], *ends[9:]]).outcome is Outcome.FAIL


def with_counts(index: int, counts: tuple[int, int]) -> list[tuple[Op, tuple[int, int]]]:
    return [(one, counts if place == index else right) for place, (one, right) in enumerate(LIFE)]


def with_answer(index: int, value: Any) -> list[tuple[Op, tuple[int, int]]]:
    ops = [op(one.index, one.action, value if place == index else one.value, user=one.user, agent_type=one.agent_type,
              error=one.error) for place, (one, _) in enumerate(LIFE)]  # fmt: skip
    return [(one, counts) for one, (_, counts) in zip(ops, LIFE, strict=True)]


@pytest.mark.parametrize(
    ("index", "counts", "anomaly"),
    [
        (0, (1, 0), "lookup-created"),
        (1, (1, 0), "left-behind"),
        (1, (0, 1), "left-behind"),
        (2, (1, 2), "wrong-count"),
        (12, (1, 0), "wrong-count"),
        (8, (2, 0), "wrong-count"),
    ],
)
def test_a_wrong_count_is_named_where_it_arises(index: int, counts: tuple[int, int], anomaly: str) -> None:
    finding = judged(with_counts(index, counts)).findings[0]
    assert finding.anomaly == anomaly
    assert str(LIFE[index][0]) in finding.witness


def test_a_drift_that_stays_is_reported_once() -> None:
    drifted = [(one, counts if place < 3 else (counts[0], counts[1] + 1)) for place, (one, counts) in enumerate(LIFE)]
    assert len(judged(drifted).findings) == 1


@pytest.mark.parametrize(
    ("index", "answer"),
    [
        (6, False),
        (7, True),
        (8, 2),
        (9, 1),
        (10, EndReport(True, 1)),
        (10, EndReport(False, 0)),
        (11, EndReport(True, 0)),
    ],
)
def test_a_wrong_answer_is_found(index: int, answer: Any) -> None:
    assert "wrong-answer" in {finding.anomaly for finding in judged(with_answer(index, answer)).findings}


def test_what_cannot_be_counted_exactly_is_unknown() -> None:
    overlapping = History([op(0, "create", "#1", until=5), op(1, "create", "#2")])
    assert population_follows(overlapping, [Reading(9, 1, 2)]).outcome is Outcome.UNKNOWN
    unknown = History([op(0, "create", None, error="CancelledError")])
    assert population_follows(unknown, [Reading(9, 0, 0)]).outcome is Outcome.UNKNOWN


def test_closings_that_are_not_one_each_are_found() -> None:
    assert closed_once({"ann": 2}, {"ann": 2}, "by the end").outcome is Outcome.PASS
    made = {"ann": 2, "bob": 2, "cyd": 2, "dan": 2}
    verdict = closed_once(made, {"ann": 2, "bob": 3, "cyd": 1, "eve": 1}, "by the end")
    found = [(finding.sentence.partition(":")[0], finding.anomaly) for finding in verdict.findings]
    assert found == [("bob", "closed-twice"), ("cyd", "never-closed"), ("dan", "never-closed"), ("eve", "closed-twice")]


def test_uses_after_the_close() -> None:
    assert refused_after_close([("a run", "closed")]).outcome is Outcome.PASS
    answers = ["answered None", "refused: permission", "raised KeyError: 1"]
    names = [finding.anomaly for finding in refused_after_close([("a run", answer) for answer in answers]).findings]
    assert names == ["use-after-close", "wrong-refusal", "wrong-refusal"]


def get(index: int, value: str | None, thread: str = "", **fields: Any) -> Op:
    return op(index, "get", value, thread=thread, **fields)


MADE = [
    op(0, "create", "#1", thread="a"),
    op(1, "create", "#2", thread="b"),
    op(2, "create", "#3", thread="a"),
    op(3, "create", "#4", thread="a", agent_type="analyst"),
    op(4, "create", "#5", thread="a", user="bob"),
]
FOUND = {
    "the other thread": [*MADE, get(9, "#2", "b")],
    "newest of any thread": [*MADE, get(9, "#3")],
    "none in an unknown thread": [*MADE, get(9, None, "c")],
    "none for a stranger": [*MADE, get(9, None, user="eve")],
    "the next newest": [*MADE, op(6, "remove", True), get(9, "#1", "a")],
    "a removal that took nothing": [*MADE, op(6, "remove", False), get(9, "#3", "a")],
    "none after a reset": [*MADE, op(6, "reset", 3), get(9, None, "a")],
    "none after the end, bob's stays": [*MADE, op(6, "end", None), get(9, None), get(10, "#5", user="bob")],
    "found by get_or_create": [op(0, "get_or_create", "#1"), op(1, "get_or_create", "#1"), get(9, "#1")],
    "a failed create changes nothing": [*MADE, op(6, "create", "no", thread="a", error="Planned"), get(9, "#3", "a")],
}
MISSED = {
    "wrong-thread": [*MADE, get(9, "#3", "b")],
    "stale-agent": [*MADE, get(9, "#1", "a")],
    "lost-agent": [*MADE, get(9, None, "a")],
    "phantom-agent": [*MADE, get(9, "#77", "c")],
    "cross-user-answer": [*MADE, get(9, "#5", "a")],
    "wrong-type": [*MADE, get(9, "#4", "a")],
    "closed-agent-found": [*MADE, op(6, "remove", True), get(9, "#3", "a")],
}


@pytest.mark.parametrize("name", FOUND)
def test_right_lookups_pass(name: str) -> None:
    assert lookups_find_newest(History(FOUND[name])).outcome is Outcome.PASS


@pytest.mark.parametrize("anomaly", MISSED)
def test_wrong_lookups_are_named(anomaly: str) -> None:
    (finding,) = lookups_find_newest(History(MISSED[anomaly])).findings
    assert finding.anomaly == anomaly
    assert finding.witness[-1] == str(MISSED[anomaly][-1])


def test_a_lookup_beside_a_change_is_not_judged() -> None:
    ops = [op(0, "create", "#1"), op(1, "create", "#2", until=20), get(4, "#1")]
    assert lookups_find_newest(History(ops)).outcome is Outcome.UNKNOWN
    ops = [op(0, "create", "#1"), op(1, "create", None, error="CancelledError"), get(4, "#1")]
    assert lookups_find_newest(History(ops)).outcome is Outcome.UNKNOWN
