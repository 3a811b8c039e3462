"""Judgement of a service's answers, on made-up answers: each anomaly is seen, and its right twin is not."""

from __future__ import annotations

import pytest

from lab_utils.judges.isolation import Seen
from lab_utils.judges.services import (
    Attempt,
    Growth,
    Listened,
    counted_up,
    denied,
    events_own,
    guessable,
    id_keys,
    ids_under,
    no_keys_of_others,
    nothing_kept,
    only_own,
)
from lab_utils.values.canaries import word
from lab_utils.values.verdict import Outcome, Verdict

ADA, BOB = word("ada", 1), word("bob", 2)


def anomalies(verdict: Verdict) -> list[str]:
    return [finding.anomaly for finding in verdict.findings]


def test_data_of_another_is_one_finding_for_each_word() -> None:
    long = f"{'-' * 5_000}{BOB}{'-' * 5_000}"
    seen = [Seen("ada", "read", [ADA]), Seen("ada", "read", [long, f"<{BOB}>"]), Seen("bob", "read", ADA)]
    seen.append(Seen("ada", "list", BOB))
    read, _ = only_own(seen, ["ada", "bob"]).findings
    # The witness shows the place, however long the answer.
    assert BOB in read.witness[0]
    assert len(read.witness) == 2
    assert anomalies(only_own(seen, ["ada", "bob"])) == ["cross-user-data"] * 2
    assert only_own(seen[:1], ["ada", "bob"]).outcome is Outcome.PASS


def test_an_attempt_is_judged_by_what_it_achieved() -> None:
    refused = Attempt("write", "another user", "changed-by-another", granted=True, achieved="", answer="204")
    worked = Attempt("write", "another user", "changed-by-another", granted=True, achieved="it is there", answer="404")
    shown = Attempt("read", "another user", "read-by-another", granted=False, achieved="", answer="404")
    assert denied([refused]).outcome is Outcome.PASS
    assert anomalies(denied([refused, worked])) == ["changed-by-another"]
    assert denied([shown]).outcome is Outcome.UNKNOWN


@pytest.mark.parametrize(
    ("text", "is_shown"),
    [
        ("try room-of-bob", True),
        ('x-token: "Bearer a.b/c"', True),
        ("room-of-bob1", False),
        ("room-of-ada", False),
    ],
)
def test_keys_of_others_are_shown_by_no_answer_and_quoted_by_no_finding(text: str, is_shown: bool) -> None:
    keys = {"room-of-ada": "ada", "room-of-bob": "bob", "a.b/c": "bob"}
    seen = [Seen("ada", "read", ["nothing", text]), Seen("bob", "read", ["room-of-bob, a.b/c"])]
    verdict = no_keys_of_others(seen, keys, lambda one: one.replace("a.b/c", "***"))
    assert anomalies(verdict) == ["cross-user-data"] * is_shown
    assert "a.b/c" not in str(verdict.findings)


@pytest.mark.parametrize(
    ("ids", "is_guessable"),
    [
        (["s-1", "s-2", "s-3", "s-4"], True),
        (["session-0000010", "session-0000011", "session-0000013"], True),
        (["abc", "xyz", "qrs"], True),
        (["same-id-again", "same-id-again"], True),
        (["Zk3hQ0pV9xTt", "b81LmNqw72Rs", "0dKcY5uUeA3o"], False),
        (["0b9c27f3-1f7e-4a7e", "f22c6a18-90ab-4f1d", "91d0aa3e-77cd-4e02"], False),
        # The time stands at the front, and the rest is the machine; or chance is behind the time.
        ([f"{n:08x}-ec58-11f1-abd9-02fc00000001" for n in range(0x93AE5BD4, 0x93BDAA4E, 99_991)], True),
        ([f"0199d1a0-{word('ada', n)[3:]}-{n * 7_919:012x}{n * 104_729:012x}" for n in range(1, 9)], False),
    ],
)
def test_ids_that_can_be_guessed(ids: list[str], is_guessable: bool) -> None:
    assert bool(guessable(ids)) is is_guessable


@pytest.mark.parametrize(
    ("alone", "beside", "is_count"),
    [
        ('201 {"id": 1}', '201 {"id": 2}', True),
        ("200 Run 3. <own value 1>", "200 Run 30. <own value 1>", True),
        ('200 {"ids": [1, 2]}', '200 {"ids": [7, 9]}', True),
        ('200 {"ids": [1]}', '200 {"ids": [1, 2]}', False),
        ('200 {"left": 9}', '200 {"left": 3}', False),
        ('200 {"id": 1}', '429 {"id": 2}', False),
        ('200 {"id": 1}', '200 {"id": 1}', False),
        ('200 "<own value 1>"', f'200 "{BOB}"', False),
    ],
)
def test_a_number_that_all_users_count_up_is_no_difference(alone: str, beside: str, is_count: bool) -> None:
    assert counted_up(alone, beside) is is_count


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (["1", "2", "3"], ""),
        ([1, 2, 3], ""),
        ({"sessions": [{"id": 1, "size": 2}, {"id": 2, "size": 7}, {"id": 3, "size": 1}]}, "id"),
        ('{"data": [{"key": "1"}, {"key": "2"}, {"key": "3"}]}', "key"),
    ],
)
def test_short_ids_are_those_that_stand_where_the_users_own_do(value: object, key: str) -> None:
    assert id_keys(value, ["1", "2"]) == {key}
    assert ids_under(value, {key}) == {"1", "2", "3"}
    assert id_keys(value, ["1", "4"]) == id_keys("1, 2, 3", ["1", "2"]) == id_keys(value, []) == set()


def test_a_stream_brings_its_own_each_once() -> None:
    users = ["ada", "bob"]
    more = word("ada", 3)

    def judged(*received: str, own_only: bool = True) -> list[str]:
        return anomalies(events_own([Listened("ada", (ADA, more), received, is_whole=True)], users, own_only))

    assert judged(ADA, more) == []
    assert judged(ADA, more, BOB) == ["cross-user-event"]
    assert judged(ADA, more, BOB, own_only=False) == []
    assert judged(ADA) == ["lost-event"]
    assert judged(ADA, ADA, more) == ["doubled-event"]
    # A stream that never brings the written values shows nothing.
    assert judged() == []


def test_memory_is_kept_where_what_was_written_is_found_again_in_each_series() -> None:
    def judged(*series: tuple[float, float], control: float = 0.0) -> list[str]:
        growth = Growth("memory", "bytes", series, limit=250.0)
        return anomalies(nothing_kept([growth], 4, 1_000.0, {"memory": control}))

    assert judged((900, 1_100), (800, 1_000)) == ["memory-kept"]
    assert judged((900, 1_100), (-50, 40)) == []
    assert judged((100, 200), (100, 200)) == []
    # It grows as much without the written data: another cause.
    assert judged((900, 1_100), (800, 1_000), control=900.0) == []
    threads = Growth("threads", "objects", ((4.0, 4.0), (4.0, 4.0)), limit=2.0)
    assert anomalies(nothing_kept([threads], 4, 1.0, {})) == ["threads-kept"]


@pytest.mark.parametrize(
    ("series", "outcome"),
    [
        (((200.0, 900.0), (100.0, 800.0)), Outcome.UNKNOWN),
        (((200.0, 900.0), (300.0, 800.0)), Outcome.UNKNOWN),
        (((200.0, 900.0), (-100.0, 200.0)), Outcome.PASS),
        (((-400.0, 300.0), (-200.0, 260.0)), Outcome.PASS),
        (((300.0, 900.0), (260.0, 800.0)), Outcome.FAIL),
    ],
    ids=["both are open", "one is open", "one shows no growth", "open, and flat on the whole", "both show growth"],
)
def test_a_growth_that_too_few_cycles_leave_open_is_no_pass(
    series: tuple[tuple[float, float], ...], outcome: Outcome
) -> None:
    growth = Growth("memory", "bytes", series, limit=250.0)
    assert growth.is_open is (outcome is Outcome.UNKNOWN)
    verdict = nothing_kept([growth], 4, 1_000.0, {"memory": 0.0})
    assert verdict.outcome is outcome
    assert ("service.cycles" in verdict.reason) is growth.is_open
    # As much without the payload is an allocator's, whether it is certain or not.
    assert nothing_kept([growth], 4, 1_000.0, {"memory": 600.0}).outcome is Outcome.PASS


def test_what_a_rest_gives_back_is_not_kept() -> None:
    def judged(*between_rests: float) -> list[str]:
        growth = Growth("memory", "bytes", ((900, 1_100), (800, 1_000)), 250.0, between_rests)
        return anomalies(nothing_kept([growth], 4, 1_000.0, {"memory": 0.0}))

    assert judged() == judged(900.0) == judged(900.0, 800.0) == ["memory-kept"]
    assert judged(10.0) == judged(-4_000.0) == []
    # An allocator that gives nothing back at the second rest has it for the series after that.
    assert judged(900.0, 10.0) == judged(900.0, -50.0) == []
    # A fall after a rest makes no growth of what was flat.
    flat = Growth("memory", "bytes", ((-10, 10), (-10, 10)), 250.0, (900.0,))
    assert anomalies(nothing_kept([flat], 4, 1_000.0, {"memory": 0.0})) == []
