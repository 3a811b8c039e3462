"""A finding has a key in its run, and a fingerprint that ids, addresses, times, seeds and wordings do not change."""

from __future__ import annotations

from typing import Any

import pytest

from lab_utils.judges.identity import Identified, identified
from lab_utils.values.history import Op, OpType
from lab_utils.values.verdict import Finding
from tests.lab_utils.made import failed, result


def call(
    index: int, action: str = "get_or_create", user: str = "ada", agent_type: str = "helper", value: Any = "#1"
) -> Op:
    return Op(
        index, f"client of {user}", user, action, agent_type, "main", OpType.OK, index, index + 1, 0.0, 0.5, value
    )


def found(*findings: Finding, ops: tuple[Op, ...] = (), **fields: Any) -> list[Identified]:
    return identified([result(verdict=failed(*findings), operations=ops, **fields)])


def double(first: Op, second: Op) -> Finding:
    sentence = f"{first.user}/helper in thread 'main' answered as {first.value} and as {second.value}"
    return Finding("double-activation", sentence, (str(first), str(second)))


def test_another_seed_user_id_and_wording_give_the_same_fingerprint() -> None:
    one, two = call(3, value="#1"), call(4, value="#2")
    other, another = call(95, user="bo", agent_type="helper-7", value="#31"), call(97, user="bo", agent_type="helper-7")
    (first,) = found(double(one, two), ops=(one, two))
    (second,) = found(double(other, another), ops=(other, another), seed=99)
    (third,) = found(Finding("double-activation", "worded anew", (str(one), str(two))), ops=(one, two))
    assert first.fingerprint == second.fingerprint == third.fingerprint
    assert (first.operations, first.users) == ((3, 4), ("ada",))
    assert (second.operations, second.users) == ((95, 97), ("bo",))


@pytest.mark.parametrize(
    "other",
    [
        {"anomaly": "lost-agent"},
        {"check": "second"},
        {"op": call(3, "get")},
        {"op": call(3, agent_type="analyst")},
    ],
)
def test_another_anomaly_check_call_or_type_gives_another_fingerprint(other: dict[str, Any]) -> None:
    def one(anomaly: str = "double-activation", check: str = "first", op: Op | None = None) -> str:
        op = op or call(3)
        verdict = failed(Finding(anomaly, "s", (str(op),)))
        (made,) = identified([result(check, verdict, operations=(op,))])
        return made.fingerprint

    assert one() != one(**other)


@pytest.mark.parametrize(
    ("anomaly", "sentence", "same", "different"),
    [
        ("shared-object", "'a' and 'b' have the same session", "'x' and 'y' have the same session", "'a' and 'b' have the same context"),
        ("retained-object", "p.Agent: 545 are left where 97 were before, 448 too many", "p.Agent: 5 are left where 1 were before, 4 too many", "p.Scope: 545 are left where 97 were before, 448 too many"),
        ("memory-growth", "traced memory of factories grows by 963.8 ± 235.2 bytes a cycle", "traced memory of factories grows by 12 ± 1 bytes a cycle", "anonymous memory grows by 963.8 ± 235.2 bytes a cycle"),
        ("budget-exceeded", "growth of 10 users is 1.37e+07 bytes, budget <= 8.3e+06 (lab)", "growth of 12 users is 2e+09 bytes, budget <= 8.3e+06 (lab)", "time is 1.37e+07 s, budget <= 8.3e+06 (lab)"),
        ("budget-exceeded", "growth of 10 users is 1.37e+07 bytes, budget <= 8.3e+06 (lab)", "growth of 12 users is 13.7 MB, budget <= 8.3 MB (lab)", "time is 13.7 s, budget <= 8.3 s (lab)"),
        ("budget-exceeded", "reports right is 0.94 share, budget > 0.95 (asked)", "reports right is 94%, budget > 95% (asked)", "updates right is 94%, budget > 95% (asked)"),
        ("budget-exceeded", "foreign data seen is 3 canaries, budget == 0 (lab)", "foreign data seen is 1,420 canaries, budget == 0 canaries (lab)", "time seen is 1,420 s, budget == 0 s (lab)"),
        ("failed-operation", "an operation of 'a' failed with KeyError: 'a'", "an operation of 'b' failed with KeyError: 'c'", "an operation of 'a' failed with ValueError: 3"),
        ("lookup-created", "reset of 'nobody-1', who never was, left something", "reset of 'nobody-2', who never was, left something", "get of 'nobody-1', who never was, left something"),
        ("not-sequential", "no order answers so (registration/remove+end@1, in order)", "none answers so (registration/remove.cancelled-2-0+end@0, with 2)", "no order answers so (registration/reset+end@1, in order)"),
    ],
)  # fmt: skip
def test_what_a_finding_is_about_is_read_from_its_sentence(
    anomaly: str, sentence: str, same: str, different: str
) -> None:
    first, second, third = (
        found(Finding(anomaly, text, ("w",)))[0].fingerprint for text in (sentence, same, different)
    )
    assert first == second
    assert first != third


def test_a_race_of_many_and_what_came_last_before_do_not_count() -> None:
    many = tuple(call(index, "create" if index % 2 else "get") for index in range(6))
    (race,) = found(Finding("wrong-count", "24, not 18", tuple(map(str, many))), ops=many)
    (stuck,) = found(Finding("never-ends", "it did not end", (str(many[0]),)), ops=many)
    assert (race.calls, race.operations) == ((), (0, 1, 2, 3, 4, 5))
    assert (stuck.calls, stuck.types, stuck.operations) == ((), (), (0,))


def test_a_text_of_the_target_that_reads_like_an_operation_is_none() -> None:
    real = call(3)
    (one,) = found(Finding("wrong-answer", "s", ("op 3 client of eve: end x", "answered: op 3 ")), ops=(real,))
    assert (one.operations, one.users) == ((), ())


def test_an_operation_is_known_again_where_its_line_was_escaped() -> None:
    real = call(3, user="café")
    line = str(real).encode("ascii", "backslashreplace").decode("ascii")
    (one,) = found(Finding("wrong-answer", "'caf\\xe9' was answered wrongly", (line,)), ops=(real,))
    assert (one.operations, one.users, one.calls) == ((3,), ("café",), ("get_or_create",))


def test_a_result_that_has_lost_its_operations_names_the_calls_all_the_same() -> None:
    (one,) = found(Finding("wrong-answer", "s", ("op 3 client of a:b: end a:b/ -> ok",)), ops=())
    assert (one.calls, one.operations) == (("end",), ())
