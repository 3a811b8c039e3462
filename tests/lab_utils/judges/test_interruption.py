"""Other users' observations after an interruption, and the state of the caller's own task."""

from __future__ import annotations

import json
from copy import deepcopy

import pytest

from lab_utils.judges.interference import Observed
from lab_utils.judges.interruption import NO_ANSWER, Record, after_interruption
from lab_utils.values.workload import canary

USERS = ("ada", "bob", "cyd")
HAPPENED = "the call 'tool' of 'ada' was cancelled at store.py:21 ask"
BOB, CYD = ("bob", ", who was there,"), ("cyd", ", who is new,")


def record() -> Record:
    """A history in which nothing went wrong."""
    return Record(
        observed={
            BOB: [
                Observed("create", "helper", ("#2",)),
                Observed("rows", f'["{canary("bob", "row", 0)}"]'),
                Observed("total", "7.5"),
                Observed("recall", '{"note": "mine"}'),
            ],
            CYD: [Observed("total", "9.25")],
        },
        own=[Observed("total", "3.125")],
        outcome="cancelled",
        is_interrupted=True,
        is_cancelled=True,
    )


def anomalies(after: Record) -> list[tuple[str, str]]:
    return [(one.anomaly, one.sentence) for one in after_interruption("ada", HAPPENED, record(), after, USERS)]


def changed(place: int, what: str) -> Record:
    after = record()
    after.observed[BOB][place] = Observed(after.observed[BOB][place].step, what)
    return after


def test_the_same_observations_are_no_finding_whatever_their_ids() -> None:
    after = record()
    after.observed[BOB][0] = Observed("create", "helper", ("#99",))
    assert anomalies(after) == []


@pytest.mark.parametrize(
    ("place", "what", "anomaly"),
    [
        (1, f'["{canary("ada", "row", 0)}"]', "cross-user-data"),
        (2, "3.125", "cross-user-data"),
        (2, "9.25", "cross-user-data"),
        (2, "8.0", "interference"),
        (3, "{}", "lost-write"),
        (2, f"{NO_ANSWER} in 60 s", "capacity-lost"),
        (2, "error CancelledError: nobody had cancelled it", "cancelled-others"),
        (2, "error OSError: closed", "next-call-fails"),
    ],
)
def test_another_observation_is_found_by_its_name_with_both_users_and_the_call(
    place: int, what: str, anomaly: str
) -> None:
    found = anomalies(changed(place, what))
    assert found[0][0] == anomaly
    assert "'bob'" in found[0][1]
    assert HAPPENED in found[0][1]


def test_a_memory_that_holds_all_and_more_has_lost_no_write() -> None:
    # Two calls of bob at once lost one of his own writes where nothing was interrupted, and here none.
    kept = json.loads(record().observed[BOB][3].what)
    assert anomalies(changed(3, json.dumps({**kept, "beside": "bob's own"}))) == []
    (gone,) = anomalies(changed(3, json.dumps({**dict.fromkeys(kept, "another"), "beside": "bob's own"})))
    assert gone[0] == "lost-write"


def test_an_answer_in_place_of_the_cancellation_is_found() -> None:
    after = record()
    after.outcome = "answered 7.5"
    assert [name for name, _ in anomalies(after)] == ["cancellation-lost"]
    after.is_cancelled = False
    assert anomalies(after) == []


@pytest.mark.parametrize(
    ("field", "value", "anomaly"),
    [
        ("cancelling", 1, "cancellation-left"),
        ("changed", {"current_user": "'ada'"}, "context-left"),
        ("ends", ["agent_completed", "agent_error"], "two-end-events"),
        ("left", "1 session", "left-behind"),
        ("own", [Observed("rows", f"{NO_ANSWER} in 60 s")], "next-call-fails"),
        ("own", [Observed("rows", "error OSError: closed")], "next-call-fails"),
        ("failed", "OSError: no database", "next-call-fails"),
    ],
)
def test_what_the_callers_task_and_the_target_are_left_with(field: str, value: object, anomaly: str) -> None:
    after = record()
    setattr(after, field, value)
    assert [name for name, _ in anomalies(after)] == [anomaly]


def test_a_context_variable_that_names_the_user_is_found_without_an_interruption() -> None:
    naming, other = record(), record()
    naming.changed, other.changed = {"current_user": "'ada'"}, {"decimal_context": "a context"}
    assert [one.anomaly for one in after_interruption("ada", HAPPENED, naming, naming, USERS)] == ["context-left"]
    assert list(after_interruption("ada", HAPPENED, other, other, USERS)) == []


def test_a_history_that_fails_without_an_interruption_is_judged_no_further() -> None:
    failing = changed(1, f'["{canary("ada", "row", 0)}"]')
    failing.failed = "OSError: no database"
    found = list(after_interruption("ada", HAPPENED, failing, failing, USERS))
    assert [one.anomaly for one in found] == ["failed-operation"]


def test_another_error_in_place_of_the_cancellation_is_found_and_the_calls_own_is_not() -> None:
    before, after = record(), record()
    after.outcome = "error RuntimeError: given up"
    assert [name for name, _ in anomalies(after)] == ["cancellation-lost"]
    before.outcome = after.outcome
    assert list(after_interruption("ada", HAPPENED, before, after, USERS)) == []


def test_what_was_so_without_the_interruption_is_not_blamed_on_it() -> None:
    before, after = record(), record()
    for one in (before, after):
        one.own = [Observed("rows", "error Refused: closed")]
        one.changed = {"decimal_context": "a context"}
    assert list(after_interruption("ada", HAPPENED, before, after, USERS)) == []


@pytest.mark.parametrize(("left", "is_wrong"), [("()", False), ("('{}', 'started')", True)])
def test_an_id_in_the_callers_context_is_new_in_every_history(left: str, is_wrong: bool) -> None:
    before, after = record(), record()
    one, other = "20c4ad59-d69b-4c23-8ecf-bc9ab3cb5f24", "664976b5-8f81-40bb-8794-ae63f65b9488"
    before.changed = {"last_event": repr(one), "open_events": "()"}
    after.changed = {"last_event": repr(other), "open_events": left.format(other)}
    found = list(after_interruption("ada", HAPPENED, before, after, USERS))
    assert [one.anomaly for one in found] == ["context-left"] * is_wrong
    # Nor does the id name a user, whatever its digits.
    assert list(after_interruption("c4ad", HAPPENED, before, before, ("c4ad", "bob", "cyd"))) == []


def test_a_leak_that_needs_no_interruption_is_found_in_the_history_itself() -> None:
    leaking = changed(1, f'["{canary("ada", "row", 0)}"]')
    found = list(after_interruption("ada", HAPPENED, leaking, leaking, USERS))
    assert [one.anomaly for one in found] == ["cross-user-data"]
    assert list(after_interruption("ada", HAPPENED, leaking, deepcopy(leaking), USERS)) == []


def test_a_crowd_works_at_once_as_before_unless_its_calls_fail() -> None:
    before, after = record(), record()
    before.at_once, after.at_once = [12, 10], [12, 3]
    (finding,) = after_interruption("ada", HAPPENED, before, after, USERS)
    assert (finding.anomaly, finding.witness) == ("capacity-lost", ("at once before: 10", "at once now: 3"))
    (finding,) = after_interruption("ada", HAPPENED, after, before, USERS)
    assert finding.anomaly == "over-limit"
    after.observed[BOB][2] = Observed("total", "error OSError: closed")
    (finding,) = after_interruption("ada", HAPPENED, before, after, USERS)
    assert finding.anomaly == "next-call-fails"


def test_events_that_do_not_come_are_lost() -> None:
    before, after = record(), record()
    before.observed[CYD] += [Observed("event", "1 of 'cyd'"), Observed("end", "found=True")]
    after.observed[CYD] += [Observed("end", "found=True")]
    (finding,) = after_interruption("ada", HAPPENED, before, after, USERS)
    assert finding.anomaly == "lost-event"
