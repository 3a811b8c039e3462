"""The dispatcher: a tool's arguments, refusals, events, and leftovers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from inline_snapshot import snapshot

from registry.agent import BaseAgent
from registry.agent_registry import AgentRegistry
from registry.context import UserExecutionContext, managed_user_context
from registry.errors import (
    ContextBoundaryError,
    PermissionDenied,
    RegistryError,
    SessionClosed,
    UncopyableValue,
    UnknownTool,
)
from registry.events.bridge import AgentWebSocketBridge, Connection, SilentBridge
from registry.events.manager import WebSocketManager
from registry.events.types import EventType, Origin
from registry.tools import Tool, ToolContext, ToolDispatcher, ToolResult
from registry.usage.database import InMemoryUsage, UsageDatabase, UsageRecord
from registry.usage.questions import QUESTIONS
from registry.usage.tools import (
    USAGE_TOOLS,
    OwningDispatcher,
    UsageDispatcher,
    usage_dispatcher_factory,
)
from tests.registry.kit import Gate, reachable, received
from tests.registry.refusing import Refusals

START = datetime(2025, 3, 1, tzinfo=UTC)


def records_of(user_id: str, count: int = 5) -> list[UsageRecord]:
    """Records whose model names their user, so that a row that strayed shows where it came from."""
    return [
        UsageRecord(START + timedelta(hours=hour), f"model-of-{user_id}", 100 + hour, 10, 50.0 + hour, 0.5, "chat")
        for hour in range(count)
    ]


def source_of(*users: str) -> InMemoryUsage:
    return InMemoryUsage({user: records_of(user) for user in users})


def channel(user_id: str = "ada") -> tuple[AgentWebSocketBridge, Connection, WebSocketManager]:
    manager = WebSocketManager()
    connection = manager.connect(user_id)
    return manager.create_bridge(UserExecutionContext(user_id)), connection, manager


def echo(tool_context: ToolContext, parameters: dict[str, Any]) -> Any:
    return {"user": tool_context.user_context.user_id, "parameters": parameters}


ECHO = Tool("echo", echo)


def call(dispatcher: ToolDispatcher, name: str, parameters: Mapping[str, Any] | None = None) -> Any:
    return asyncio.run(dispatcher.execute_tool(name, parameters)).output


def test_a_tool_runs_with_the_context_of_its_dispatcher() -> None:
    context = UserExecutionContext("ada")
    dispatcher = ToolDispatcher(context, tools=[ECHO])
    result = asyncio.run(dispatcher.execute_tool("echo", {"a": 1}))
    assert result == ToolResult("echo", {"user": "ada", "parameters": {"a": 1}})
    assert dispatcher.user_context is context
    assert dispatcher.tool_names == ("echo",)
    assert (ECHO.requires, ECHO.description) == (frozenset(), "")
    assert call(dispatcher, "echo") == {"user": "ada", "parameters": {}}
    assert repr(dispatcher) == "<ToolDispatcher user='ada' tools=1 calls=2>"


async def test_async_tools_are_awaited_and_calls_may_overlap() -> None:
    both = asyncio.Barrier(2)

    async def meet(_: ToolContext, parameters: dict[str, Any]) -> int:
        await both.wait()  # Opens only when both calls are under way.
        return int(parameters["n"]) * 10

    dispatcher = ToolDispatcher(UserExecutionContext("ada"), tools=[Tool("meet", meet)])
    calls = (dispatcher.execute_tool("meet", {"n": n}) for n in (1, 2))

    assert [result.output for result in await asyncio.wait_for(asyncio.gather(*calls), 60)] == [10, 20]


def test_nothing_mutable_is_shared_in_either_direction() -> None:
    kept: list[Any] = []

    def keep(_: ToolContext, parameters: dict[str, Any]) -> Any:
        kept.append(parameters)
        parameters["list"].append("from the tool")
        kept.append(answer := {"list": [1]})
        return answer

    dispatcher = ToolDispatcher(UserExecutionContext("ada"), tools=[Tool("keep", keep)])
    given = {"list": ["from the caller"]}
    output = call(dispatcher, "keep", given)
    assert given == {"list": ["from the caller"]}
    output["list"].append("from the caller")
    assert kept == [{"list": ["from the caller", "from the tool"]}, {"list": [1]}]


def test_an_unknown_tool_or_a_missing_permission_is_refused_before_the_tool_or_an_event() -> None:
    ran: list[str] = []
    secret = Tool("secret", lambda tool_context, _: ran.append(tool_context.user_context.user_id), frozenset({"admin"}))
    bridge, connection, _manager = channel()
    with pytest.raises(PermissionDenied, match="tool 'secret' requires admin; user 'ada' has read"):
        call(ToolDispatcher(UserExecutionContext("ada", permissions={"read"}), bridge, [secret]), "secret")
    with pytest.raises(UnknownTool, match="did you mean 'usage_totals'"):
        call(ToolDispatcher(UserExecutionContext("ada"), bridge, USAGE_TOOLS), "usage_total")
    assert (ran, received(connection)) == ([], [])
    call(ToolDispatcher(UserExecutionContext("ada", permissions={"read", "admin"}), bridge, [secret]), "secret")
    assert (ran, len(received(connection))) == (["ada"], 2)


ADA = UserExecutionContext("ada", permissions={"read"})


async def test_dispatchers_and_calls_that_cannot_be_are_refused() -> None:
    refused = Refusals()
    refused.by(ValueError, lambda: ToolDispatcher(ADA, tools=[ECHO, Tool("b", echo), ECHO]))
    refused.by(ContextBoundaryError, lambda: ToolDispatcher(ADA, SilentBridge("bob")))
    refused.by(ContextBoundaryError, lambda: UsageDispatcher(ADA, usage=UsageDatabase("bob")))
    totals = next(one for one in USAGE_TOOLS if one.name == "usage_totals")
    stream = Tool("stream", lambda _, __: {"n": (n for n in [1])})
    call: Any = ToolDispatcher(
        ADA, tools=[ECHO, totals, stream, Tool("vault", echo, frozenset({"admin"}))]
    ).execute_tool
    await refused.awaited(UnknownTool, call("ecko", {}))
    await refused.awaited(PermissionDenied, call("vault", {}))
    await refused.awaited(TypeError, call("echo", 5))
    await refused.awaited(RegistryError, call("usage_totals", {}))
    await refused.awaited(UncopyableValue, call("echo", {"n": (n for n in [1])}), call("stream", {}))
    assert refused.texts == snapshot(
        [
            "two tools have the same name: echo, b, echo",
            "a dispatcher of user 'ada' was given <SilentBridge user='bob'>",
            "a dispatcher of user 'ada' was given <UsageDatabase user='bob' records=0>",
            "unknown tool 'ecko'; known: echo, stream, usage_totals, vault; did you mean 'echo'?",
            "tool 'vault' requires admin; user 'ada' has read",
            "the parameters of tool 'echo' are an int; pass a mapping",
            "tool 'usage_totals' needs usage records; pass usage= to the dispatcher",
            "parameters['n'] is a builtins.generator, which cannot be copied deep (TypeError: cannot pickle 'generator' object); pass plain data, or an object with a __deepcopy__",
            "the answer of tool 'stream'['n'] is a builtins.generator, which cannot be copied deep (TypeError: cannot pickle 'generator' object); pass plain data, or an object with a __deepcopy__",
        ]
    )


async def test_plain_data_alone_is_taken_under_strict_isolation_and_anything_may_be_answered() -> None:
    class Own:
        """Copied deep under standard isolation, and no plain data."""

    dispatcher = ToolDispatcher(
        UserExecutionContext("ada", isolation_level="strict"), tools=[ECHO, Tool("own", lambda _, __: Own())]
    )
    with pytest.raises(UncopyableValue, match=r"parameters\['own'\]"):
        await dispatcher.execute_tool("echo", {"own": Own()})
    assert type((await dispatcher.execute_tool("own")).output) is Own
    loose = ToolDispatcher(UserExecutionContext("ada"), tools=[ECHO])
    assert type((await loose.execute_tool("echo", {"own": Own()})).output["parameters"]["own"]) is Own


async def test_an_error_that_nobody_is_left_to_be_told_of_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Heard:
        def emit(self, event_type: EventType, payload: Any, origin: Origin) -> None:
            told.append(event_type)

    told: list[EventType] = []
    caplog.set_level(logging.DEBUG, "registry.tools")
    gate = Gate()

    async def slow(_: ToolContext, __: dict[str, Any]) -> None:
        await gate.pass_through()
        raise LookupError("no such table")

    async with managed_user_context("ada") as context:
        dispatcher = ToolDispatcher(context, Heard(), [Tool("slow", slow)])
        calling = asyncio.create_task(dispatcher.execute_tool("slow"))
        await gate.reached()
    gate.open()
    with pytest.raises(LookupError, match=r"^no such table$"):
        await calling
    assert told == [EventType.TOOL_EXECUTING]
    (record,) = [one for one in caplog.records if one.name == "registry.tools"]
    words = "{'tool': 'slow', 'call': 1} of user 'ada' was not reported: "
    assert record.getMessage() == f"{words}{record.args[2]}"  # type: ignore[index]
    assert isinstance(record.args[2], SessionClosed)  # type: ignore[index]


def test_each_call_is_told_in_order_with_its_number() -> None:
    bridge, connection, _manager = channel()
    context = UserExecutionContext("ada", thread_id="t", run_id="r")
    dispatcher = ToolDispatcher(context, bridge, [ECHO, Tool("other", echo)])
    call(dispatcher, "echo", {"private": "parameters are not told"})
    call(dispatcher, "other")
    events = received(connection)
    assert [(event.seq, event.type, event.payload) for event in events] == [
        (1, EventType.TOOL_EXECUTING, {"tool": "echo", "call": 1}),
        (2, EventType.TOOL_COMPLETED, {"tool": "echo", "call": 1, "status": "ok"}),
        (3, EventType.TOOL_EXECUTING, {"tool": "other", "call": 2}),
        (4, EventType.TOOL_COMPLETED, {"tool": "other", "call": 2, "status": "ok"}),
    ]
    assert {(event.user_id, event.origin) for event in events} == {("ada", Origin("t", "r", "", ""))}


def test_what_a_tool_raises_is_told_with_its_cause_and_raised() -> None:
    def fail(_: ToolContext, __: dict[str, Any]) -> None:
        raise LookupError("no such table")

    async def fail_later(_: ToolContext, __: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        raise LookupError("no such table")

    for run in (fail, fail_later):
        bridge, connection, _manager = channel()
        with pytest.raises(LookupError, match="no such table"):
            call(ToolDispatcher(UserExecutionContext("ada"), bridge, [Tool("fail", run)]), "fail")
        assert [(event.type, event.payload) for event in received(connection)] == [
            (EventType.TOOL_EXECUTING, {"tool": "fail", "call": 1}),
            (
                EventType.TOOL_COMPLETED,
                {"tool": "fail", "call": 1, "status": "error", "error": "LookupError", "message": "no such table"},
            ),
        ]


async def test_a_cancelled_call_is_told_and_stays_cancelled() -> None:
    gate = Gate()
    bridge, connection, _manager = channel()
    waits = Tool("wait", lambda _, __: gate.pass_through())
    calling = asyncio.create_task(ToolDispatcher(UserExecutionContext("ada"), bridge, [waits]).execute_tool("wait"))
    await gate.reached()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    executing, completed = received(connection)
    assert (executing.type, completed.payload["status"]) == (EventType.TOOL_EXECUTING, "cancelled")


async def test_a_tool_of_an_agent_that_is_older_than_the_bridge_is_heard_on_it() -> None:
    """The bridge of a session may be replaced; a dispatcher made before must not speak to the old one."""
    async with AgentRegistry(tool_dispatcher_factory=usage_dispatcher_factory(source_of("ada"))) as registry:
        registry.register("plain", BaseAgent)
        context = UserExecutionContext("ada")
        agent = await registry.create_agent_for_user("ada", "plain", context)
        await agent.tool_dispatcher.execute_tool("usage_totals")
        session = await registry.get_user_session("ada")
        heard = []
        for _ in range(2):
            manager = WebSocketManager()
            connection = manager.connect("ada")
            await session.set_websocket_manager(manager)
            await agent.tool_dispatcher.execute_tool("usage_totals")
            heard.append([event.type for event in received(connection)])

        assert heard == [[EventType.TOOL_EXECUTING, EventType.TOOL_COMPLETED]] * 2


async def test_an_answer_that_comes_after_the_end_is_not_delivered() -> None:
    gate = Gate()

    async def slow(_: ToolContext, __: dict[str, Any]) -> str:
        await gate.pass_through()
        return "late"

    async with managed_user_context("ada") as context:
        calling = asyncio.create_task(ToolDispatcher(context, tools=[Tool("slow", slow)]).execute_tool("slow"))
        await gate.reached()
    gate.open()
    with pytest.raises(SessionClosed):
        await calling


class CountingSource:
    """A source that notes whom it was asked for, and answers with a generator, whose frame holds the source."""

    def __init__(self, *users: str) -> None:
        self.records = {user: records_of(user) for user in users}
        self.asked: list[str] = []

    def records_for(self, user_id: str) -> Iterable[UsageRecord]:
        self.asked.append(user_id)
        yield from self.records[user_id]


async def test_agents_of_one_session_share_one_database_and_sessions_share_none() -> None:
    source = CountingSource("ada", "bob")
    async with AgentRegistry(tool_dispatcher_factory=usage_dispatcher_factory(source)) as registry:
        registry.register("plain", BaseAgent)
        agents = [
            await registry.create_agent_for_user(user, "plain", UserExecutionContext(user))
            for user in ("ada", "ada", "bob")
        ]
        await agents[0].tool_dispatcher.execute_tool("generate_synthetic_usage", {"count": 3})
        totals = [(await agent.tool_dispatcher.execute_tool("usage_totals")).output["calls"] for agent in agents]
        await registry.cleanup_user_session("ada")
        with pytest.raises(SessionClosed):
            await agents[1].tool_dispatcher.execute_tool("usage_totals")
        # The next session reads the source anew: rows added in the last one went with it.
        again = await registry.create_agent_for_user("ada", "plain", UserExecutionContext("ada"))
        totals.append((await again.tool_dispatcher.execute_tool("usage_totals")).output["calls"])

        assert totals == [8, 8, 5, 5]
    assert source.asked == ["ada", "bob", "ada"]


async def test_without_a_session_the_dispatcher_owns_its_records() -> None:
    make = usage_dispatcher_factory(source_of("ada"), tools=[ECHO])
    context = UserExecutionContext("ada")
    first, second = await make(context, None), await make(context, None)
    assert isinstance(first, OwningDispatcher)
    assert isinstance(second, OwningDispatcher)
    await first.execute_tool("generate_synthetic_usage", {"count": 2})
    assert (await first.execute_tool("usage_totals")).output["calls"] == 7
    assert (await second.execute_tool("usage_totals")).output["calls"] == 5
    first.close()
    first.close()
    with pytest.raises(SessionClosed):
        await first.execute_tool("usage_totals")
    assert (await first.execute_tool("echo")).output["user"] == "ada"
    assert (await second.execute_tool("usage_totals")).output["calls"] == 5
    second.close()


@pytest.mark.parametrize("in_a_session", [True, False])
async def test_no_reference_leads_from_a_dispatcher_to_the_source_or_another_user(*, in_a_session: bool) -> None:
    source, dispatchers = CountingSource("ada", "bob"), {}
    make = usage_dispatcher_factory(source)
    async with AgentRegistry(tool_dispatcher_factory=make) as registry:
        registry.register("plain", BaseAgent)
        for user in ("ada", "bob"):
            agent = await registry.create_agent_for_user(user, "plain", UserExecutionContext(user))
            dispatchers[user] = agent.tool_dispatcher if in_a_session else await make(agent.context, None)
            await dispatchers[user].execute_tool("usage_by_model")
        found = reachable(dispatchers["ada"])
        assert id(source) not in found
        assert not [thing for thing in found.values() if isinstance(thing, str) and "bob" in thing]
        owners = {getattr(thing, "user_id", "ada") for thing in found.values()}
        assert owners == {"ada"}
        for dispatcher in dispatchers.values():
            getattr(dispatcher, "close", lambda: None)()
    # The walk does see what a tool holds.
    assert id(source) in reachable(Tool("leaky", lambda _, __: list(source.records_for("bob"))))


def owning(**overrides: Any) -> OwningDispatcher:
    context = UserExecutionContext("ada", **overrides)
    return OwningDispatcher(context, None, USAGE_TOOLS, UsageDatabase("ada", records_of("ada")))


def test_the_records_are_those_of_the_dispatcher_whatever_the_parameters_say() -> None:
    dispatcher = owning()
    own = call(dispatcher, "usage_totals", {"user_id": "ada"})
    assert own == call(dispatcher, "usage_totals")
    assert own["calls"] == 5
    for question in QUESTIONS.values():
        if not question.requires:
            with pytest.raises(ContextBoundaryError, match="was asked for user 'bob', but serves 'ada'"):
                call(dispatcher, question.name, {"user_id": "bob"})
    dispatcher.close()
