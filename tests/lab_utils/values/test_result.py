"""A result goes through JSON and comes back as it was, whatever a target put into it."""

from __future__ import annotations

import enum
import json
import math
from typing import Any

import pytest

from lab_utils.values.result import Budget, CheckResult, Measurement, Sample, decode, encode
from lab_utils.values.verdict import Finding, Verdict
from tests.lab_utils.made import HOSTILE, calibration, failed, op, result


class Word(str):
    __slots__ = ()


class Colour(enum.StrEnum):
    RED = "red"


class Mute:
    def __repr__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    "made",
    [
        result(),
        result(verdict=failed(), notes=("one", "two"), traceback="Traceback"),
        calibration().result,
        result(verdict=failed(Finding("odd", HOSTILE, (HOSTILE,))), operations=(op(0, HOSTILE, value=HOSTILE),)),
        result(operations=(op(0, value={"deep": [1, 2.5, True, None, {"x": "ä"}]}), op(1, value=10**30))),
        result(parameters={"share": 0.5, "transport": "websocket", "on": True}),
        result(samples=(Sample("uss", math.inf, "bytes", 0.25, "work", "1", "2"),)),
        result(measurements=(Measurement("ratio", 1.0, "", Budget("<", -math.inf, "lab")),)),
    ],
)
def test_a_result_comes_back_equal(made: CheckResult) -> None:
    text = encode(made)
    assert decode(text) == made
    assert json.loads(text)["check"] == made.check


def test_a_measurement_that_is_not_a_number_stays_one() -> None:
    (back,) = decode(encode(result(measurements=(Measurement("ratio", math.nan, ""),)))).measurements
    assert math.isnan(back.value)


def test_subclasses_of_plain_types_are_written_as_the_plain_type() -> None:
    made = result(Word("first"), Verdict.passed(Colour.RED), operations=(op(0, value=[Word("a"), Colour.RED]),))
    back = decode(encode(made))
    assert (back.check, back.verdict.reason, back.operations[0].value) == ("first", "red", ["a", "red"])
    assert type(back.check) is str


ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (b"x", "b'x'"),
        ({1, 2}, "{1, 2}"),
        (math.nan, "nan"),
        ([-math.inf], ["-inf"]),
        ((1, (2,)), [1, [2]]),
        ({1: 2, None: 3, (1, 2): 4}, {"1": 2, "None": 3, "(1, 2)": 4}),
        (range(3), "range(0, 3)"),
        (Mute(), "<Mute whose repr raises RuntimeError>"),
        pytest.param(1 << 20_000, "<int whose repr raises ValueError>", id="huge"),
    ],
)
def test_values_that_json_cannot_hold_are_given_by_their_repr(value: Any, written: Any) -> None:
    assert decode(encode(result(operations=(op(0, value=value),)))).operations[0].value == written


def test_a_value_without_an_end_is_cut() -> None:
    assert len(encode(result(operations=(op(0, value=ENDLESS),)))) < 2_000


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (b"", "Expecting value"),
        (b"[]", "Expected `object`, got `array`"),
        (encode(result()).replace(b'"seed":7', b'"seed":"7"'), r"Expected `int`, got `str` - at `\$.seed`"),
        (encode(result()).replace(b'"PASS"', b'"MAYBE"'), r"Invalid enum value 'MAYBE' - at `\$.verdict.outcome`"),
        (encode(result()).replace(b'"PASS"', b'"FAIL"'), r"findings exactly when it is FAIL.* at `\$.verdict`"),
        (encode(result()).replace(b'"value":null', b'"value":NaN,"index":"0"'), r"at `\$.operations\[0\].index`"),
        pytest.param(
            encode(result()).replace(b'"value":null', b'"value":' + b"[" * 100_000), "recursion depth", id="deep"
        ),
    ],
)
def test_what_is_no_result_is_refused_with_the_place(text: bytes, place: str) -> None:
    with pytest.raises(ValueError, match=place):
        decode(text)


def test_another_value_that_json_cannot_hold_is_refused() -> None:
    with pytest.raises(TypeError, match="is of type complex, which JSON cannot hold"):
        encode(result(seed=1j))
