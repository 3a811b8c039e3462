"""When a refused call is made again, how long the pauses are, and the plain words that each failure gets."""

from __future__ import annotations

import random
from email.utils import formatdate

import httpx2
import openai
import pytest

from registry import LLMFailed, LLMTimedOut
from registry.llm.failures import (
    LONGEST_ASKED,
    Failure,
    failure_of,
    forget,
    is_passing,
    pause_asked,
    pause_before,
)
from registry.llm.stream import BadAnswer

KEY = "sk-secret-of-nobody"
NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after-ms": "1500", "retry-after": "7"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
        ({"retry-after": formatdate(NOW + 30, usegmt=True)}, 30.0),
        ({"retry-after": formatdate(NOW - 30, usegmt=True)}, 0.0),
        ({"retry-after": "-7"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
    ],
)
def test_what_the_server_asks_for_is_read(headers: dict[str, str], seconds: float | None) -> None:
    assert pause_asked(headers, NOW) == seconds


@pytest.mark.parametrize("passes", [True, False])
def test_refusals_that_may_pass_are_told_from_those_that_do_not(*, passes: bool) -> None:
    for status in (408, 409, 429, 500, 502, 503, 529) if passes else (307, 400, 401, 403, 404, 413, 422):
        assert is_passing(status, {}) == passes
        assert is_passing(status, {"x-should-retry": f"{not passes}".lower()}) != passes


def test_what_is_asked_for_is_a_floor_with_jitter_and_has_a_limit() -> None:
    rng = random.Random(1)
    pauses = [pause_before(1, 10.0, rng) or 0.0 for _ in range(200)]
    assert min(pauses) >= 10.0
    assert 12.0 < max(pauses) <= 12.5
    assert LONGEST_ASKED == 120.0, "two minutes"
    assert pause_before(1, LONGEST_ASKED, rng) is not None
    assert pause_before(1, LONGEST_ASKED + 1, rng) is None
    assert pause_before(1, float("inf"), rng) is None


def test_else_pauses_double_up_to_a_limit_with_jitter() -> None:
    rng = random.Random(1)
    for retry, longest in enumerate([0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0], start=1):
        pauses = [pause_before(retry, None, rng) or 0.0 for _ in range(200)]
        assert max(pauses) <= longest
        assert min(pauses) >= 0.75 * longest
        assert max(pauses) - min(pauses) > 0.2 * longest
    assert (pause_before(10_000, None, rng) or 99) <= 8.0


REQUEST = httpx2.Request("POST", "http://127.0.0.1:9/v1")


def refusal(status: int, body: object, **headers: str) -> Exception:
    response = httpx2.Response(status, headers=headers, request=REQUEST)
    return openai.APIStatusError("the library's own words", response=response, body=body)


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


NO_CONNECTION = openai.APIConnectionError(message="down", request=REQUEST)

FAILURES: list[tuple[Exception, Failure | None]] = [
    (BadAnswer("it sent no choice"), Failure("it sent no choice")),
    (openai.APITimeoutError(REQUEST), Failure("it was silent for 2.5 s", timed_out=True, may_pass=True)),
    (
        httpx2.ReadTimeout("slow"),
        Failure("it fell silent for 2.5 s in the middle of its answer", timed_out=True),
    ),
    (
        refusal(429, {"message": f"no more for {KEY}"}, **{"retry-after": "7"}),
        Failure("it answered 429: no more for ***", 429, may_pass=True, asked=7.0),
    ),
    (refusal(400, None), Failure("it answered 400", 400)),
    (refusal(500, None, **{"x-should-retry": "false"}), Failure("it answered 500", 500)),
    (NO_CONNECTION, Failure("no connection: APIConnectionError: down", may_pass=True)),
    (
        caused(openai.APIConnectionError(request=REQUEST), OSError("unplugged")),
        Failure("no connection: OSError: unplugged", may_pass=True),
    ),
    (
        httpx2.RemoteProtocolError("half"),
        Failure("its answer was cut off: RemoteProtocolError: half"),
    ),
    (openai.OpenAIError(f"bad key {KEY}"), Failure("OpenAIError: bad key ***")),
    (ValueError("our own"), None),
]


@pytest.mark.parametrize(("error", "failure"), FAILURES, ids=[f"{failure and failure[0]}" for _, failure in FAILURES])
def test_each_error_of_the_library_is_a_failure_in_plain_words(error: Exception, failure: Failure | None) -> None:
    assert failure_of(error, 2.5, KEY) == failure


def test_an_error_is_made_of_a_failure_with_nothing_attached() -> None:
    refused, late = Failure("it answered 429", 429).error("model 'm'"), Failure("late", timed_out=True).error("model")
    assert (type(refused), str(refused), refused.status) == (LLMFailed, "model 'm': it answered 429", 429)
    assert (type(late), str(late), late.status) == (LLMTimedOut, "model: late", None)
    assert Failure("x") == ("x", None, False, False, None)


def test_forgetting_an_error_cuts_the_frames_off_all_that_led_to_it() -> None:
    def fail() -> None:
        try:
            try:
                raise KeyError("the first")
            except KeyError as error:
                raise ValueError("the second") from error
        except ValueError:
            raise TypeError("the third")  # noqa: B904 - the context is what is looked at.

    try:
        fail()
    except TypeError as error:
        third = error
    second = third.__context__
    assert second is not None
    first = second.__cause__
    assert first is not None
    errors = (third, second, first)
    assert all(each.__traceback__ is not None for each in errors)
    forget(third)
    assert [each.__traceback__ for each in errors] == [None] * 3
