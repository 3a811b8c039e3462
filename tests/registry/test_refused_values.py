"""Values that are refused, each with its whole text: it names the value at fault and the remedy."""

from __future__ import annotations

import datetime
import pickle
from typing import Any

import pytest

from registry import (
    AgentRegistry,
    InvalidIdentifier,
    InvalidUserId,
    Limits,
    LLMFailed,
    LLMTimedOut,
    UncopyableValue,
    UserExecutionContext,
)
from registry.errors import (
    ContextBoundaryError,
    describe,
)
from registry.identity import check_id, check_user_id, plain_str
from registry.usage.database import ExactSum
from tests.registry.kit import context
from tests.registry.refusing import Uncopied, Zone, refused

PLAIN = "(None, bool, numbers, str, bytes, dates and times, lists, tuples, dicts and sets of them)"


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ({"max_users": 0}, "Limits.max_users=0 is not a positive number"),
        ({"max_users": True}, "Limits.max_users=True is not a positive number"),
        ({"idle_timeout": "9"}, "Limits.idle_timeout='9' is not a positive number"),
        ({"idle_timeout": float("nan")}, "Limits.idle_timeout=nan is not a positive number"),
        ({"max_agents_per_user": None}, "Limits.max_agents_per_user=None is not a positive number"),
        ({"close_timeout": None}, "Limits.close_timeout=None is not a positive number"),
        ({"max_agents_per_user": 2.5}, "Limits.max_agents_per_user=2.5 is not a whole number"),
        ({"max_users": 2.0}, "Limits.max_users=2.0 is not a whole number"),
        ({"close_timeout": float("inf")}, "Limits.close_timeout=inf would let one cleanup hang for ever"),
    ],
)
def test_limits_that_are_none(limits: dict[str, Any], text: str) -> None:
    with refused(ValueError, text):
        Limits(**limits)


def test_limits_that_hold_nothing_back() -> None:
    """Fractions of a second and of an age are limits, and so is one of anything."""
    limits = Limits(max_agents_per_user=1, max_session_age=0.5, idle_timeout=0.25, close_timeout=0.125, max_users=1)
    assert (limits.max_session_age, limits.idle_timeout, limits.close_timeout) == (0.5, 0.25, 0.125)
    unlimited = Limits(max_session_age=None, idle_timeout=None, max_users=None)
    assert (unlimited.max_session_age, unlimited.idle_timeout, unlimited.max_users) == (None, None, None)


def test_the_limits_of_a_registry_that_was_given_none() -> None:
    """At most 50 agents a user, each session for a day, five seconds to close it; users and idleness without limit."""
    assert AgentRegistry().limits == Limits(50, 24 * 60 * 60, None, 5.0, None)


class Unprintable:
    def __repr__(self) -> str:
        raise OSError("no")


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (7, "7 is a int; pass a str"),
        (None, "None is a NoneType; pass a str"),
        ("", "'' is empty; pass at least one character"),
        ("x" * 257, f"'{'x' * 76}... has 257 characters; at most 256 are allowed"),
        ("x" * 79 + "\n", f"'{'x' * 76}... begins or ends with white space; strip it where the id is made"),
        (" ada", "' ada' begins or ends with white space; strip it where the id is made"),
        ("ada ", "'ada ' begins or ends with white space; strip it where the id is made"),
        ("a\x00b", "'a\\x00b' holds '\\x00' at position 1; control characters are not allowed"),
        ("ad\x9fa", "'ad\\x9fa' holds '\\x9f' at position 2; control characters are not allowed"),
        (Unprintable(), "<Unprintable whose repr raised OSError> is a Unprintable; pass a str"),
        (b"x" * 77, f"b'{'x' * 77}' is a bytes; pass a str"),  # 80 characters are shown whole.
        (b"x" * 78, f"b'{'x' * 75}... is a bytes; pass a str"),
    ],
)
def test_ids_that_are_none(value: Any, problem: str) -> None:
    with refused(InvalidUserId, f"user_id {problem}"):
        check_user_id(value)
    with refused(InvalidIdentifier, f"run_id {problem}"):
        check_id("run_id", value)


def test_what_is_no_text_is_looked_up_as_nobody_s_name() -> None:
    class Text(str):
        __slots__ = ()

    assert [plain_str(value) for value in ("a", Text("a"), 7, None)] == ["a", "a", "", ""]
    assert type(plain_str(Text("a"))) is str


def test_an_id_may_have_256_characters() -> None:
    assert check_user_id("x" * 256) == "x" * 256


@pytest.mark.parametrize("field", ["thread_id", "run_id", "request_id"])
def test_the_ids_of_a_context_are_called_by_their_names(field: str) -> None:
    with refused(InvalidIdentifier, f"{field} '' is empty; pass at least one character"):
        context(**{field: ""})


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"isolation_level": "tight"}, ValueError, "isolation_level 'tight' is unknown; use 'standard' or 'strict'"),
        ({"permissions": "ab"}, TypeError, "permissions='ab' is a single string; pass a set such as {'ab'}"),
        ({"permissions": b"ab"}, TypeError, "permissions=b'ab' is a single string; pass a set such as {b'ab'}"),
        ({"permissions": frozenset({7})}, TypeError, "permission 7 is not a non-empty str"),
        ({"permissions": [""]}, TypeError, "permission '' is not a non-empty str"),
        ({"agent_context": [1]}, TypeError, "agent_context is a list; pass a mapping with str keys"),
        ({"agent_context": {1: 2}}, TypeError, "agent_context key 1 is a int; pass str keys"),
    ],
)
def test_contexts_that_are_none(options: dict[str, Any], kind: type[Exception], text: str) -> None:
    with refused(kind, text):
        UserExecutionContext("ada", **options)


def test_what_a_context_refuses_to_be() -> None:
    given = context()
    with refused(AttributeError, "UserExecutionContext is frozen: 'name' cannot be set; make a child or a new context"):
        given.name = "x"
    with refused(AttributeError, "UserExecutionContext is frozen: 'name' cannot be deleted"):
        del given.name
    with refused(TypeError, "a UserExecutionContext belongs to one process; send its ids and make a new one there"):
        pickle.dumps(given)
    with refused(TypeError, "UserExecutionContext is final: the isolation of its data cannot be kept for a subclass"):
        type("Mine", (UserExecutionContext,), {})
    with refused(
        ContextBoundaryError,
        "context of user 'ada' belongs to no session; use the context that the registry hands out",
    ):
        given.session_resource("key", list, list.clear)
    with refused(InvalidIdentifier, "name '' is empty; pass at least one character"):
        given.create_child_context("")


HERE = "tests.registry.refusing"
AT = datetime.datetime(2026, 1, 1, tzinfo=Zone())


def nested(levels: int) -> list[Any]:
    data: list[Any] = []
    for _ in range(levels):
        data = [data]
    return data


@pytest.mark.parametrize(
    ("data", "strict", "text"),
    [
        ({"a": Zone()}, True, f"agent_context['a'] is a {HERE}.Zone; strict isolation takes only plain data {PLAIN}"),
        (
            {"a": [{"b": Zone()}]},
            True,
            f"agent_context['a'][]['b'] is a {HERE}.Zone; strict isolation takes only plain data {PLAIN}",
        ),
        (
            {"a": (Zone(),)},
            True,
            f"agent_context['a']() is a {HERE}.Zone; strict isolation takes only plain data {PLAIN}",
        ),
        (
            {"a": {Zone()}},
            True,
            f"agent_context['a']{{}} is a {HERE}.Zone; strict isolation takes only plain data {PLAIN}",
        ),
        (
            {"a": {Zone: 1}},
            True,
            f"agent_context['a'] key is a builtins.type; strict isolation takes only plain data {PLAIN}",
        ),
        ({"a": AT}, True, f"agent_context['a'] is a datetime.datetime; strict isolation takes only plain data {PLAIN}"),
        (
            {"a": [Uncopied()]},
            False,
            (
                f"agent_context['a'][] is a {HERE}.Uncopied, which cannot be copied deep (OSError: no paper); "
                "pass plain data, or an object with a __deepcopy__"
            ),
        ),
        ({"a": nested(100_000)}, False, "agent_context is nested too deep to be copied; pass flatter data"),
    ],
)
def test_data_that_cannot_be_made_private(data: dict[str, Any], *, strict: bool, text: str) -> None:
    with refused(UncopyableValue, text):
        UserExecutionContext("ada", agent_context=data, isolation_level="strict" if strict else "standard")


def test_an_error_whose_text_fails_is_told_by_its_type() -> None:
    class Mute(ValueError):
        def __str__(self) -> str:
            raise OSError("no")

    assert describe(Mute("x")) == "Mute: <Mute whose text failed>"
    assert describe(ValueError("\ud800é")) == "ValueError: \\ud800é"


def test_sums_need_some_room() -> None:
    with refused(ValueError, "most=99 floats could not hold every sum exactly; allow 100"):
        ExactSum(99)
    assert len(ExactSum(100)) == 0


def test_a_model_that_failed_without_a_server_has_no_status() -> None:
    assert (LLMFailed("cut off").status, LLMTimedOut("late").status) == (None, None)
