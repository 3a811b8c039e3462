"""What is said of records that are none and of calls that cannot be, word for word, and where each bound lies."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from registry.context import UserExecutionContext, managed_user_context
from registry.errors import (
    ContextBoundaryError,
    InvalidUsageRecord,
    PermissionDenied,
    RegistryError,
    SessionClosed,
    UncopyableValue,
    UnknownTool,
)
from registry.events.types import EventType, Origin
from registry.tools import Tool, ToolContext, ToolDispatcher
from registry.usage.database import InMemoryUsage, UsageDatabase, UsageFilter, UsageRecord
from registry.usage.records import from_microseconds, parse_records, parse_time, to_microseconds
from registry.usage.tools import USAGE_TOOLS, UsageDispatcher

START = datetime(2025, 3, 1, tzinfo=UTC)
ROW: dict[str, Any] = {**UsageRecord(START, "large", 10, 20, 150.0, 0.25, "chat").as_row()}
NAIVE = datetime(2025, 3, 1)  # noqa: DTZ001
COLUMNS = "at, model, tokens_in, tokens_out, latency_ms, cost_usd, feature"


# ------------------------------------------------------------------------------------------------------------ records

COUNT = "is no count; pass an int from 0 to 1000000000000"
AMOUNT = "is no amount; pass a finite number from 0 to 1e+12"


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("tokens_in", -1, f"tokens_in -1 {COUNT}"),
        ("tokens_in", True, f"tokens_in True {COUNT}"),
        ("tokens_out", 10**12 + 1, f"tokens_out 1000000000001 {COUNT}"),
        ("tokens_out", 2.0, f"tokens_out 2.0 {COUNT}"),
        ("latency_ms", -0.5, f"latency_ms -0.5 {AMOUNT}"),
        ("latency_ms", 1.1e12, f"latency_ms 1100000000000.0 {AMOUNT}"),
        ("cost_usd", float("nan"), f"cost_usd nan {AMOUNT}"),
        ("cost_usd", False, f"cost_usd False {AMOUNT}"),
        ("cost_usd", "x" * 200, f"cost_usd '{'x' * 37}...{'x' * 38}' {AMOUNT}"),
        ("model", "", "model '' is empty; pass at least one character"),
        ("model", 3, "model 3 is a int; pass a str"),
        ("feature", " a", "feature ' a' begins or ends with white space; strip it where the id is made"),
        ("feature", 0, "feature 0 is a int; pass a str"),
        ("at", 5, "at: 5 is a int; pass an aware datetime or ISO 8601 text"),
        ("at", "soon", "at: Invalid isoformat string: 'soon'"),
        (
            "at",
            NAIVE,
            (
                "at: datetime.datetime(2025, 3, 1, 0, 0) has no time zone; "
                "pass an aware datetime, such as 2026-01-31T12:00:00+00:00"
            ),
        ),
        (
            "at",
            "9999-12-31T23:30:00-01:00",
            (
                "at: datetime.datetime(9999, 12, 31, 23, 30...ime.timedelta(days=-1, seconds=82800))) "
                "lies outside the years 1 to 9999 in UTC"
            ),
        ),
    ],
)
def test_a_record_s_refusal_names_column_value_and_remedy(column: str, value: object, words: str) -> None:
    with pytest.raises(InvalidUsageRecord) as refused:
        UsageRecord(**(ROW | {column: value}))
    assert str(refused.value) == words
    with pytest.raises(InvalidUsageRecord) as in_a_list:
        parse_records([ROW, ROW | {column: value}])
    assert str(in_a_list.value) == f"record 1: {words}"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (3, f"record 0 is a int; pass a UsageRecord or a mapping of {COLUMNS}"),
        ("at", f"record 0 is a str; pass a UsageRecord or a mapping of {COLUMNS}"),
        ({}, "record 0 lacks at, cost_usd, latency_ms, model, tokens_in, tokens_out"),
        (ROW | {"user_id": "bob", "id": 1}, f"record 0 has unknown columns 'id', 'user_id'; known: {COLUMNS}"),
    ],
)
def test_a_row_that_is_none_is_refused_with_the_columns(row: Any, words: str) -> None:
    with pytest.raises(InvalidUsageRecord) as refused:
        parse_records([row])
    assert str(refused.value) == words


def test_a_value_that_cannot_be_shown_is_refused_all_the_same() -> None:
    class Mute:
        def __repr__(self) -> str:
            raise RuntimeError("no repr")

    with pytest.raises(InvalidUsageRecord, match=f"^tokens_in <Mute instance at .*> {COUNT}$"):
        UsageRecord(**(ROW | {"tokens_in": Mute()}))


def test_the_greatest_and_the_least_of_every_column_are_taken() -> None:
    most = UsageRecord(START, "m" * 256, 10**12, 10**12, 1e12, 1e12, "f" * 256)
    least = UsageRecord(START, "m", 0, 0, 0, -0.0)
    assert (most.tokens_in, most.tokens_out, most.latency_ms, most.cost_usd) == (10**12, 10**12, 1e12, 1e12)
    assert (least.tokens_in, least.tokens_out, least.latency_ms, least.feature) == (0, 0, 0.0, "")
    assert str(least.cost_usd) == "0.0"
    without_feature = {name: value for name, value in ROW.items() if name != "feature"}
    assert parse_records([without_feature])[0].feature == ""


def test_a_number_is_an_int_of_any_kind() -> None:
    class Own:
        def __index__(self) -> int:
            return 7

    assert UsageRecord(**(ROW | {"tokens_in": Own()})).tokens_in == 7


def test_times_are_microseconds_since_1970_in_utc() -> None:
    assert to_microseconds(datetime(1970, 1, 1, 0, 0, 1, 2, tzinfo=UTC)) == 1_000_002
    assert to_microseconds(datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)) == -1
    assert from_microseconds(1_000_002) == "1970-01-01T00:00:01.000002+00:00"
    elsewhere = parse_time("2025-03-01T12:00:00+02:00")
    assert (elsewhere, elsewhere.tzinfo) == (datetime(2025, 3, 1, 10, tzinfo=UTC), UTC)
    with pytest.raises(ValueError, match=r"^\['2025'\] is a list; pass an aware datetime or ISO 8601 text$"):
        parse_time(["2025"])


# ------------------------------------------------------------------------------------------------------------ filters


def test_a_filter_keeps_its_limits_in_utc_and_its_models_in_a_tuple() -> None:
    at = datetime(2025, 3, 1, 1, tzinfo=timezone(timedelta(hours=1)))
    chosen = UsageFilter(since=at, until=at, models=["a", "b"])  # type: ignore[arg-type]
    assert chosen == UsageFilter(START, START, ("a", "b"))
    assert chosen.since is not None
    assert chosen.until is not None
    assert (chosen.since.tzinfo, chosen.until.tzinfo) == (UTC, UTC)
    assert (UsageFilter().since, UsageFilter().until, UsageFilter().models) == (None, None, None)


@pytest.mark.parametrize("name", ["since", "until"])
def test_a_limit_without_a_zone_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="has no time zone; pass an aware datetime"):
        UsageFilter(**{name: NAIVE})  # type: ignore[arg-type]


def test_models_that_are_one_text_are_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"^models='large' is a single string; pass a tuple of names$"):
        UsageFilter(models="large")  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------------ sources


def test_a_source_says_how_much_it_holds_and_of_a_bad_record_takes_none() -> None:
    assert repr(InMemoryUsage()) == "<InMemoryUsage users=0 records=0>"
    source = InMemoryUsage({"ada": [UsageRecord(**ROW)], "bob": []})
    source.add("ada", [ROW])  # type: ignore[list-item]
    assert repr(source) == "<InMemoryUsage users=2 records=2>"
    with pytest.raises(InvalidUsageRecord, match=r"^record 1 lacks at, "):
        source.add("ada", [UsageRecord(**ROW), {}])  # type: ignore[list-item]
    assert source.records_for("ada") == (UsageRecord(**ROW),) * 2
    assert source.records_for("eve") == ()


def test_a_database_says_how_much_it_holds_and_how_to_go_on_after_its_end() -> None:
    database = UsageDatabase("ada", [UsageRecord(**ROW)])
    assert repr(database) == "<UsageDatabase user='ada' records=1>"
    database.totals()
    assert repr(database) == "<UsageDatabase user='ada' records=1>"
    database.close()
    with pytest.raises(SessionClosed, match=r"^the usage database of user 'ada' is closed; open a new session$"):
        database.totals()


# -------------------------------------------------------------------------------------------------------------- tools


def echo(_: ToolContext, parameters: dict[str, Any]) -> Any:
    return parameters


ECHO = Tool("echo", echo)
ADA = UserExecutionContext("ada", permissions={"read"})


class Lister:
    """A bridge of another user's."""

    user_id = "bob"

    def emit(self, event_type: EventType, payload: Any, origin: Origin) -> None:
        raise AssertionError("nothing may be sent")

    def __repr__(self) -> str:
        return "<Lister>"


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (
            lambda: ToolDispatcher(ADA, tools=[ECHO, Tool("b", echo), ECHO]),
            ValueError,
            "two tools have the same name: echo, b, echo",
        ),
        (lambda: ToolDispatcher(ADA, Lister()), ContextBoundaryError, "a dispatcher of user 'ada' was given <Lister>"),
        (
            lambda: UsageDispatcher(ADA, usage=UsageDatabase("bob")),
            ContextBoundaryError,
            "a dispatcher of user 'ada' was given <UsageDatabase user='bob' records=0>",
        ),
    ],
)
def test_a_dispatcher_that_cannot_be_is_refused(
    make: Callable[[], ToolDispatcher], error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as refused:
        make()
    assert str(refused.value) == words


@pytest.mark.parametrize(
    ("tool", "parameters", "error", "words"),
    [
        ("ecko", {}, UnknownTool, "unknown tool 'ecko'; known: echo, usage_totals, vault; did you mean 'echo'?"),
        ("vault", {}, PermissionDenied, "tool 'vault' requires admin; user 'ada' has read"),
        ("echo", 5, TypeError, "the parameters of tool 'echo' are a int; pass a mapping"),
        (
            "usage_totals",
            {},
            RegistryError,
            "tool 'usage_totals' needs usage records; pass usage= to the dispatcher",
        ),
    ],
)
async def test_a_call_that_cannot_be_is_refused(tool: str, parameters: Any, error: type[Exception], words: str) -> None:
    totals = next(one for one in USAGE_TOOLS if one.name == "usage_totals")
    dispatcher = ToolDispatcher(ADA, tools=[ECHO, totals, Tool("vault", echo, frozenset({"admin"}))])
    with pytest.raises(error) as refused:
        await dispatcher.execute_tool(tool, parameters)
    assert str(refused.value) == words


def test_what_cannot_be_copied_is_named_by_its_place() -> None:
    dispatcher = ToolDispatcher(ADA, tools=[ECHO, Tool("stream", lambda _, __: {"n": (n for n in [1])})])
    for call, place in (
        (("echo", {"n": (n for n in [1])}), r"parameters\['n'\]"),
        (("stream", {}), r"the answer of tool 'stream'\['n'\]"),
    ):
        with pytest.raises(UncopyableValue, match=f"^{place} is a builtins.generator"):
            asyncio.run(dispatcher.execute_tool(*call))


def test_plain_data_alone_is_taken_under_strict_isolation_and_anything_may_be_answered() -> None:
    class Own:
        """Copied deep under standard isolation, and no plain data."""

    dispatcher = ToolDispatcher(
        UserExecutionContext("ada", isolation_level="strict"), tools=[ECHO, Tool("own", lambda _, __: Own())]
    )
    with pytest.raises(UncopyableValue, match=r"parameters\['own'\]"):
        asyncio.run(dispatcher.execute_tool("echo", {"own": Own()}))
    assert type(asyncio.run(dispatcher.execute_tool("own")).output) is Own
    loose = ToolDispatcher(UserExecutionContext("ada"), tools=[ECHO])
    assert type(asyncio.run(loose.execute_tool("echo", {"own": Own()})).output["own"]) is Own


def test_a_tool_takes_nothing_for_granted() -> None:
    tool = Tool("echo", echo)
    assert (tool.requires, tool.description) == (frozenset(), "")


async def test_an_error_that_nobody_is_left_to_be_told_of_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Heard:
        def emit(self, event_type: EventType, payload: Any, origin: Origin) -> None:
            told.append(event_type)

    told: list[EventType] = []
    caplog.set_level(logging.DEBUG, "registry.tools")
    reached, gate = asyncio.Event(), asyncio.Event()

    async def slow(_: ToolContext, __: dict[str, Any]) -> None:
        reached.set()
        await gate.wait()
        raise LookupError("no such table")

    async with managed_user_context("ada") as context:
        dispatcher = ToolDispatcher(context, Heard(), [Tool("slow", slow)])
        calling = asyncio.create_task(dispatcher.execute_tool("slow"))
        await reached.wait()
    gate.set()
    with pytest.raises(LookupError, match=r"^no such table$"):
        await calling
    assert told == [EventType.TOOL_EXECUTING]
    (record,) = [one for one in caplog.records if one.name == "registry.tools"]
    words = "{'tool': 'slow', 'call': 1} of user 'ada' was not reported: "
    assert record.getMessage().startswith(words)
    assert record.getMessage().removeprefix(words) == str(record.args[2])  # type: ignore[index]
    assert isinstance(record.args[2], SessionClosed)  # type: ignore[index]
