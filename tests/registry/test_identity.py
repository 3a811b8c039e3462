"""The values allowed as user ids, and that two ids are one user only code point for code point."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from registry import (
    BaseAgent,
    ContextBoundaryError,
    InvalidIdentifier,
    InvalidUserId,
    UserExecutionContext,
)
from registry.identity import MAX_ID_LENGTH, check_id, check_user_id, random_hex
from tests.registry.kit import Closable, context, registry_of

DRAW_IN_A_FORK = """
import os
from registry.identity import random_hex
random_hex()
reading, writing = os.pipe()
if os.fork() == 0:
    os.write(writing, random_hex().encode())
    os._exit(0)
print(random_hex(), os.read(reading, 100).decode())
"""


def test_random_digits_are_unique() -> None:
    drawn = [random_hex() for _ in range(1_000)]
    assert len(set(drawn)) == 1_000
    assert {len(digits) for digits in drawn} == {16}
    assert set("".join(drawn)) == set("0123456789abcdef")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_a_forked_process_draws_digits_of_its_own() -> None:
    # In a process of its own: to fork this one would copy its threads.
    said = subprocess.run([sys.executable, "-c", DRAW_IN_A_FORK], capture_output=True, text=True, check=True).stdout
    mine, the_fork_s = said.split()
    assert len(mine) == len(the_fork_s) == 16
    assert mine != the_fork_s


class Liar(str):
    """Says that it equals everything, is one character long and has nothing to strip."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    def __len__(self) -> int:
        return 1

    def __str__(self) -> str:
        return "someone else"

    def strip(self, *_: Any) -> Any:
        return self

    def __getitem__(self, _: Any) -> Any:
        return "x"

    def isprintable(self) -> bool:
        return True


class HashLiar(Liar):
    __slots__ = ()

    def __hash__(self) -> int:
        return hash("bob")


class PosesAsStr:
    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return str


class RaisesInRepr:
    def __repr__(self) -> str:
        raise ZeroDivisionError


NOT_IDS: list[Any] = [
    None, 0, 1, False, True, 1.5, b"a", bytearray(b"a"), [], {}, ["a"], object(), "", " ", " a", "a ", "a\n", "\na",
    "a\tb", "a\0b", "\0", "a\x1fb", "a\x7fb", "a\x80b", "a\x9fb", "\x85a", "\u00a0a", "a\u2003", "a\u2028", "\u3000a",
    "a\ud800b", "a" * (MAX_ID_LENGTH + 1), Liar(""), Liar(" a"), Liar("a\n"), Liar("a" * 257), PosesAsStr(),
    RaisesInRepr(), float("nan"),
]  # fmt: skip
IDS = [
    "a", "0", "None", "False", "a b", "a:b", "a/b", "a|b", "a,b", "../a", "%00", "'; --", "ada@example.org", "A",
    "ß", "SS", "İ", "ı", "\u03a9", "\u2126", "а", "e\u0301", "\u00e9", "a\u200bb", "\u200ba", "a\u2028b", "a\u00a0b",
    "👩‍👩‍👧", "x" * MAX_ID_LENGTH,
]  # fmt: skip


@pytest.mark.parametrize("value", NOT_IDS, ids=lambda value: ascii(type(value).__name__))
def test_what_is_no_user_id(value: Any) -> None:
    with pytest.raises(InvalidUserId):
        check_user_id(value)
    with pytest.raises(InvalidUserId):
        UserExecutionContext(value)
    for kind in ("thread_id", "run_id", "request_id"):
        with pytest.raises(InvalidIdentifier, match=kind):
            check_id(kind, value)
    for name in ("thread_id", "run_id", "request_id"):
        if value is not None:
            with pytest.raises(InvalidIdentifier):
                UserExecutionContext("ada", **{name: value})


@pytest.mark.parametrize("value", NOT_IDS, ids=lambda value: ascii(type(value).__name__))
async def test_every_method_refuses_it_and_makes_nothing(value: Any) -> None:
    async with registry_of(helper=BaseAgent) as registry:
        life = registry.lifecycle
        for call in (
            registry.get_user_session(value),
            registry.get_user_agent(value, "helper"),
            registry.remove_user_agent(value, "helper"),
            registry.reset_user_agents(value),
            registry.cleanup_user_session(value),
            registry.create_agent_for_user(value, "helper", context()),
            life.monitor_memory_usage(value),
            life.trigger_cleanup(value),
            life.cleanup_agent_resources(value, "helper"),
        ):
            with pytest.raises(InvalidUserId):
                await call
        assert registry.get_registry_health()["total_user_sessions"] == 0
        assert "users=0" in repr(registry)


@pytest.mark.parametrize("value", IDS, ids=ascii)
def test_what_is_one(value: str) -> None:
    assert check_user_id(value) == value
    assert check_id("thread_id", value) == value
    assert UserExecutionContext(value, value, value, value).user_id == value


async def test_a_str_that_lies_reaches_nobody_else() -> None:
    """It hashes and compares as bob; its characters say mallory."""
    async with registry_of(helper=Closable) as registry:
        bob = await registry.create_agent_for_user("bob", "helper", context("bob"))
        liar = HashLiar("mallory")
        assert await registry.get_user_agent(liar, "helper") is None
        assert await registry.remove_user_agent(liar, "helper") is False
        assert (await registry.cleanup_user_session(liar))["status"] == "no_session"
        assert (await registry.reset_user_agents(liar))["agents_reset"] == 0
        with pytest.raises(ContextBoundaryError):
            await registry.create_agent_for_user(liar, "helper", context("bob"))
        with pytest.raises(ContextBoundaryError):
            await registry.create_agent_for_user(HashLiar("bob"), "helper", context("mallory"))
        session = await registry.get_user_session(liar)
        assert session.user_id.encode() == b"mallory"
        assert dict(session.agents) == {}
        assert isinstance(bob, Closable)
        assert bob.closed == 0
        assert await registry.get_user_agent("bob", "helper") is bob


async def test_a_thread_or_type_that_lies_finds_nothing() -> None:
    async with registry_of(helper=BaseAgent) as registry:
        await registry.create_agent_for_user("ada", "helper", context())
        assert await registry.get_user_agent("ada", "helper", Liar("other")) is None
        assert await registry.get_user_agent("ada", Liar("other")) is None
        assert await registry.remove_user_agent("ada", Liar("other")) is False
        assert await registry.get_user_agent("ada", Liar("helper"), Liar("main")) is not None
        threads: list[Any] = [0, "", b"main", [], " main"]
        for wrong in threads:
            with pytest.raises(InvalidIdentifier):
                await registry.get_user_agent("ada", "helper", wrong)
