"""Two values that differ are shown as their difference, and nothing else of a witness is changed."""

from __future__ import annotations

import json

import pytest

from lab_utils.judges.difference import difference, witness_lines

BEFORE = {"flat": "canary", "list": ["a" * 30, ["b" * 30]], "dict": {"inner": "c" * 30}}
AFTER = {**BEFORE, "list": ["a" * 30, ["b" * 30, "spoiled"]]}


def test_of_two_values_only_the_lines_that_differ_are_shown() -> None:
    lines = witness_lines([f"before: {BEFORE!r}", f"after the caller changed its own object: {AFTER!r}", "op 3"])
    assert lines[0] == ("", "before (-) and after the caller changed its own object (+):")
    assert lines[-1] == ("", "op 3")
    assert [line for line in lines if line[0] in ("-", "+")] == [
        ("-", f"    ['{'b' * 30}'],"),
        ("+", f"    ['{'b' * 30}', 'spoiled'],"),
    ]


def test_a_long_text_is_never_broken_and_an_item_more_is_a_line_more() -> None:
    first = {"one": ("x " * 60, {1}), "two": [{"three": ["y " * 60]}], "deep": json.loads("[" * 60 + "]" * 60)}
    second = {**first, "two": [{"three": ["y " * 60, "more"]}]}
    assert [line for line in difference(repr(first), repr(second)) if line[0] in ("-", "+")] == [
        ("+", "        'more',")
    ]


def test_json_is_laid_out_too_and_texts_show_where_they_differ() -> None:
    shown = difference(json.dumps({"a": True, "b": None}), json.dumps({"a": False, "b": None}))
    assert ("-", "{'a': True, 'b': None}") in shown
    long = "x" * 100
    assert difference(f"{long}1{long}", f"{long}2{long}") == [
        ("-", f"...{'x' * 30}1{'x' * 30}..."),
        ("+", f"...{'x' * 30}2{'x' * 30}..."),
    ]


def test_a_long_text_that_was_cut_shows_each_place_where_it_differs() -> None:
    whole = [f"'key {number}': 'value {number}'" for number in range(80)]
    other = [*whole[:10], "'new': 1", *whole[10:60], "'key 60': 'another'", *whole[61:]]
    lines = difference(f"{{{', '.join(whole)}, ... 40 characters ...", f"{{{', '.join(other)}, ... 40 characters ...")
    assert [mark for mark, _ in lines] == ["-", "+", "-", "+"]
    assert all(len(text) < 120 for _, text in lines)
    assert ["'new'" in text for _, text in lines] == [False, True, False, False]
    assert ["'another'" in text for _, text in lines] == [False, False, False, True]


@pytest.mark.parametrize(
    ("first", "second"),
    [("ab", "abab"), ("abab", "ab"), ("", "x"), ("aa", "a"), ("[1]", "[2"), ("{1: 2}", "[" * 9_000)],
)
def test_no_letter_of_a_short_difference_is_lost(first: str, second: str) -> None:
    minus, plus = difference(first, second)
    assert (minus, plus) == (("-", first), ("+", second)) or len(second) > 1_000


@pytest.mark.parametrize(
    "witness",
    [
        ["op 3 client: get a/b -> ok '#1'", "op 4 client: get a/b -> ok '#2'"],
        ["before: 97", "after: 545", "held by: x"],
        ["before: {}"],
        ["late: op 3", "held: op 4"],
        ["a trace\nof two lines", ""],
    ],
)
def test_every_other_line_stays_as_it_is(witness: list[str]) -> None:
    lines = witness_lines(witness)
    whole = "\n".join(text for _, text in lines)
    assert all(
        part in whole
        for entry in witness
        for part in entry.removeprefix("before: ").removeprefix("after: ").splitlines()
    )


def test_a_place_with_two_values_is_a_pair() -> None:
    lines = witness_lines(["report of ada: expected 3.5", "report of ada: got 3.25"])
    assert lines == [("", "report of ada: expected (-) and got (+):"), ("-", "3.5"), ("+", "3.25")]
