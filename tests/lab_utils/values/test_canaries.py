"""Canaries of every type are found again, wherever they stand, and name their own writer and nobody else."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from lab_utils.judges.isolation import Seen, foreign_canaries
from lab_utils.values.canaries import Writers, canary, mark, opening, typed, writers_named
from lab_utils.values.verdict import Outcome
from lab_utils.values.workload import hostile_pairs, nested

ADA, BOB = "ada", "bob"
KINDS = ("int", "float", "moment", "flags", "keys")


def writers(value: Any, *users: str) -> set[str]:
    return {user for user, _ in Writers(users or (ADA, BOB)).of(value)}


@pytest.mark.parametrize("number", [0, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_a_canary_of_each_type_names_its_writer_at_any_depth(kind: str, number: int) -> None:
    value = typed(ADA, number)[kind]
    assert writers(value) == {ADA}
    assert writers([{"deep": (value,)}]) == {ADA}
    assert writers(value, BOB) == set()


@pytest.mark.parametrize("kind", ["int", "float", "moment", "keys"])
@pytest.mark.parametrize("said", [str, repr, lambda value: f"<row of {value!r}>", lambda value: repr(value).encode()])
def test_a_number_and_a_moment_are_found_in_text(kind: str, said: Any) -> None:
    assert writers(said(typed(ADA, 3)[kind])) == {ADA}


def test_a_moment_is_found_as_iso_and_in_another_zone() -> None:
    moment = typed(ADA, 0)["moment"]
    assert isinstance(moment, datetime)
    assert writers(moment.isoformat()) == {ADA}
    assert writers(moment.astimezone(timezone(timedelta(hours=5)))) == {ADA}
    assert writers(moment.replace(tzinfo=None)) == {ADA}
    assert writers(moment.astimezone(UTC) + timedelta(microseconds=1)) == set()


def test_what_crossed_json_is_found() -> None:
    crossed = json.loads(json.dumps(nested(ADA, "context"), default=repr))
    assert writers(crossed) == {ADA}
    numbers = json.loads(json.dumps({kind: typed(ADA, 1)[kind] for kind in ("int", "float", "flags", "keys")}))
    assert {kind for kind, value in numbers.items() if writers(value) == {ADA}} == set(numbers)


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, 0, 7, 123_456_789_012_345, float("inf"), float("nan"), 1e300),
        *("", "2100", "2100-13-45T99:99:99.1", b"\xff", str(mark(ADA)) + "0" * 9),
        *(datetime(2026, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC), [True] * 40, [1] * 40),
    ],
)
def test_what_is_no_canary_is_nobodys(value: Any) -> None:
    assert writers(value) == set()


def test_a_row_of_booleans_must_be_whole() -> None:
    flags = typed(ADA, 0)["flags"]
    assert writers(tuple(flags)) == {ADA}
    assert writers(flags[1:]) == set()
    assert writers([*flags, False]) == set()
    assert writers([int(flag) for flag in flags]) == set()
    assert writers([not flags[0], *flags[1:]]) == set()


@pytest.mark.parametrize(("one", "other"), hostile_pairs())
def test_users_that_read_alike_are_told_apart(one: str, other: str) -> None:
    assert writers(nested(one, "context"), one, other) == {one}
    assert all(writers(value, one, other) == {one} for value in typed(one, 2).values())


def test_a_text_is_found_in_keys_sets_bytes_and_what_only_has_a_repr() -> None:
    text = canary(ADA, "place", 1)
    for value in ({text: 1}, {"inner": [{text}]}, text.encode(), bytearray(text.encode()), frozenset({text})):
        assert writers(value) == {ADA}, value
    assert writers(RuntimeError(text)) == {ADA}


@pytest.mark.parametrize("kind", KINDS)
def test_a_canary_that_is_no_text_is_a_finding_in_anothers_hands(kind: str) -> None:
    seen = [Seen(ADA, "its context", nested(ADA, "context")), Seen(ADA, "an answer", [typed(BOB, 5)[kind]])]
    verdict = foreign_canaries(seen, [ADA, BOB], 2)
    assert {finding.anomaly for finding in verdict.findings} == {"cross-user-data"}
    assert "'bob' in an answer" in verdict.findings[0].sentence
    assert foreign_canaries(seen[:1], [ADA, BOB], 2).outcome is Outcome.PASS


def test_a_canary_behind_one_that_is_cut_short_is_found() -> None:
    text = f"{canary(ADA, 'place', 1)[:9]}...{canary(BOB, 'place', 1)} {canary(BOB, 'place', 2)}"
    assert list(Writers([ADA, BOB]).of(text)) == [(BOB, text)]


def test_nothing_read_is_unknown() -> None:
    assert foreign_canaries([Seen(ADA, "an answer", 7)], [ADA], 1).outcome is Outcome.UNKNOWN


def test_a_bar_in_a_name_ends_no_other_name() -> None:
    users = ("acme", "acme|eu", "acme%7Ceu", "canary<acme|eu|1>")
    for user in users:
        text = f"a note: {canary(user, 'place', 1)}"
        assert writers(text, *users) == {user}
        assert writers_named(text) == {user}
        assert opening(user) in text
