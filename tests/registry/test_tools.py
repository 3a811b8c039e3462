"""The dispatcher: a tool's arguments, refusals, events, and leftovers."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import json
import logging
import sys
import types
import weakref
from collections.abc import Callable, Coroutine, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from inline_snapshot import snapshot

from registry.agent import AgentRequest, BaseAgent
from registry.agent_registry import AgentRegistry
from registry.context import UserExecutionContext, managed_user_context
from registry.errors import (
    ContextBoundaryError,
    InvalidParameters,
    InvalidUsageRecord,
    PermissionDenied,
    RegistryError,
    RunFinished,
    SessionClosed,
    UncopyableValue,
    UnknownTool,
)
from registry.events.bridge import AgentWebSocketBridge, Connection, SilentBridge
from registry.events.manager import WebSocketManager
from registry.events.types import Event, EventType, Origin
from registry.tools import Tool, ToolContext, ToolDispatcher, ToolResult
from registry.usage.database import InMemoryUsage, UsageDatabase, UsageRecord
from registry.usage.prices import PRICES
from registry.usage.questions import QUESTIONS
from registry.usage.tools import (
    USAGE_TOOLS,
    OwningDispatcher,
    UsageDispatcher,
    usage_dispatcher_factory,
)
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


def received(connection: Connection) -> list[Event]:
    events = []
    while (event := connection.receive_nowait()) is not None:
        events.append(event)
    return events


def echo(tool_context: ToolContext, parameters: dict[str, Any]) -> Any:
    return {"user": tool_context.user_context.user_id, "parameters": parameters}


ECHO = Tool("echo", echo)


def usage_of(agent: BaseAgent) -> UsageDatabase:
    """The records that the dispatcher of an agent gives to tools."""
    dispatcher = agent.tool_dispatcher
    assert isinstance(dispatcher, UsageDispatcher)
    assert dispatcher._usage is not None
    return dispatcher._usage


def call(dispatcher: ToolDispatcher, name: str, parameters: Mapping[str, Any] | None = None) -> Any:
    return asyncio.run(dispatcher.execute_tool(name, parameters)).output


# -------------------------------------------------------------------------------------------------------------- calls


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

    assert [result.output for result in await asyncio.wait_for(asyncio.gather(*calls), 10)] == [10, 20]


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


def test_an_unknown_tool_is_refused_with_the_nearest_name_and_without_an_event() -> None:
    bridge, connection, _manager = channel()
    dispatcher = ToolDispatcher(UserExecutionContext("ada"), bridge, USAGE_TOOLS)
    with pytest.raises(UnknownTool, match="did you mean 'usage_totals'"):
        call(dispatcher, "usage_total")
    assert received(connection) == []


def test_a_missing_permission_is_refused_before_the_tool_or_an_event() -> None:
    ran: list[str] = []
    secret = Tool("secret", lambda tool_context, _: ran.append(tool_context.user_context.user_id), frozenset({"admin"}))
    bridge, connection, _manager = channel()
    with pytest.raises(PermissionDenied, match="tool 'secret' requires admin; user 'ada' has read"):
        call(ToolDispatcher(UserExecutionContext("ada", permissions={"read"}), bridge, [secret]), "secret")
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
            "the parameters of tool 'echo' are a int; pass a mapping",
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


# ------------------------------------------------------------------------------------------------------------- events


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


def test_an_answer_that_cannot_be_copied_and_an_error_without_text_are_told_as_errors() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    def mute(_: ToolContext, __: dict[str, Any]) -> None:
        raise Mute

    tools = [Tool("stream", lambda _, __: (n for n in [1])), Tool("mute", mute)]
    bridge, connection, _manager = channel()
    dispatcher = ToolDispatcher(UserExecutionContext("ada"), bridge, tools)
    with pytest.raises(UncopyableValue, match=r"the answer of tool 'stream' is a builtins\.generator"):
        call(dispatcher, "stream")
    with pytest.raises(Mute):
        call(dispatcher, "mute")
    told = [event.payload.get("error") for event in received(connection)]
    assert told == [None, "UncopyableValue", None, "Mute"]


async def test_a_cancelled_call_is_told_and_stays_cancelled() -> None:
    reached = asyncio.Event()

    async def wait(_: ToolContext, __: dict[str, Any]) -> None:
        reached.set()
        await asyncio.Event().wait()

    bridge, connection, _manager = channel()
    dispatcher = ToolDispatcher(UserExecutionContext("ada"), bridge, [Tool("wait", wait)])
    calling = asyncio.create_task(dispatcher.execute_tool("wait"))
    await reached.wait()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling

    executing, completed = received(connection)
    assert executing.type is EventType.TOOL_EXECUTING
    assert completed.payload["status"] == "cancelled"


def test_a_bridge_that_fails_does_not_stop_the_work() -> None:
    class BrokenBridge:
        def emit(self, event_type: EventType, payload: Mapping[str, Any], origin: Origin) -> None:
            raise OSError("gone")

    dispatcher = ToolDispatcher(UserExecutionContext("ada"), BrokenBridge(), [ECHO])
    assert call(dispatcher, "echo")["user"] == "ada"


def test_without_a_bridge_events_go_nowhere() -> None:
    for bridge in (None, SilentBridge("ada")):
        assert call(ToolDispatcher(UserExecutionContext("ada"), bridge, [ECHO]), "echo")["user"] == "ada"


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


# ------------------------------------------------------------------------------------------------------- after the end


async def test_after_the_end_no_tool_runs() -> None:
    ran: list[int] = []
    async with managed_user_context("ada") as context:
        dispatcher = ToolDispatcher(context, tools=[Tool("note", lambda _, __: ran.append(1))])
        await dispatcher.execute_tool("note")
    with pytest.raises(SessionClosed):
        await dispatcher.execute_tool("note")
    with pytest.raises(SessionClosed):
        await dispatcher.execute_tool("unknown, but that is not said any more")
    assert ran == [1]


async def test_an_answer_that_comes_after_the_end_is_not_delivered() -> None:
    reached, gate = asyncio.Event(), asyncio.Event()

    async def slow(_: ToolContext, __: dict[str, Any]) -> str:
        reached.set()
        await gate.wait()
        return "late"

    async with managed_user_context("ada") as context:
        calling = asyncio.create_task(ToolDispatcher(context, tools=[Tool("slow", slow)]).execute_tool("slow"))
        await reached.wait()
    gate.set()
    with pytest.raises(SessionClosed):
        await calling


async def test_a_task_left_over_from_a_finished_run_calls_no_tool() -> None:
    ran: list[int] = []
    gate = asyncio.Event()
    left: list[asyncio.Task[Any]] = []

    class LeavesTask(BaseAgent):
        async def execute(self, request: AgentRequest) -> None:
            async def later() -> None:
                await gate.wait()
                await self.tool_dispatcher.execute_tool("note")

            left.append(asyncio.create_task(later()))

    async def make(context: UserExecutionContext, bridge: Any) -> ToolDispatcher:
        return ToolDispatcher(context, bridge, [Tool("note", lambda _, __: ran.append(1))])

    async with AgentRegistry(tool_dispatcher_factory=make) as registry:
        registry.register("leaver", LeavesTask)
        agent = await registry.create_agent_for_user("ada", "leaver", UserExecutionContext("ada"), WebSocketManager())
        await agent.run()
        gate.set()
        await asyncio.wait(left)

        assert isinstance(left[0].exception(), RunFinished)
    assert ran == []


# ------------------------------------------------------------------------------------------------------- usage records


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


async def test_the_database_ends_with_its_session() -> None:
    async def scenario() -> UsageDatabase:
        async with AgentRegistry(tool_dispatcher_factory=usage_dispatcher_factory(source_of("ada"))) as registry:
            registry.register("plain", BaseAgent)
            agent = await registry.create_agent_for_user("ada", "plain", UserExecutionContext("ada"))
            database = usage_of(agent)
            assert database.totals()["calls"] == 5
            await registry.cleanup_user_session("ada")
            return database

    with pytest.raises(SessionClosed):
        (await scenario()).totals()


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


async def test_a_source_that_fails_leaves_no_session() -> None:
    class FailingSource:
        def records_for(self, user_id: str) -> Iterable[UsageRecord]:
            raise ConnectionError("warehouse is away")

    async with AgentRegistry(tool_dispatcher_factory=usage_dispatcher_factory(FailingSource())) as registry:
        registry.register("plain", BaseAgent)
        with pytest.raises(ConnectionError, match="warehouse is away"):
            await registry.create_agent_for_user("ada", "plain", UserExecutionContext("ada"))
        health: int = registry.get_registry_health()["total_user_sessions"]

        assert health == 0


# Objects shared on purpose: the code itself, and the event loop, which knows every task of the process.
_TRUSTED = (
    type,
    types.ModuleType,
    types.BuiltinFunctionType,
    types.CodeType,
    types.MethodDescriptorType,
    asyncio.AbstractEventLoop,
)


def reachable(root: object) -> list[object]:
    """Everything that a chain of references leads to; of a function its closure and defaults, not its globals."""
    seen: dict[int, object] = {}
    todo = [root]
    while todo:
        thing = todo.pop()
        if id(thing) in seen or isinstance(thing, _TRUSTED):
            continue
        seen[id(thing)] = thing
        if isinstance(thing, types.FunctionType):
            todo += [thing.__closure__, thing.__defaults__, thing.__kwdefaults__, thing.__dict__]
        else:
            todo += gc.get_referents(thing)
    return list(seen.values())


def strays(dispatcher: ToolDispatcher, source: object, foreign: str) -> list[object]:
    """Objects that a dispatcher must not lead to: the source, another user's context, records and their text."""
    return [
        thing
        for thing in reachable(dispatcher)
        if thing is source
        or (isinstance(thing, str) and foreign in thing)
        or getattr(thing, "user_id", None) == foreign
    ]


async def test_no_reference_leads_from_a_dispatcher_to_the_source_or_another_user() -> None:
    source = CountingSource("ada", "bob")
    async with AgentRegistry(tool_dispatcher_factory=usage_dispatcher_factory(source)) as registry:
        registry.register("plain", BaseAgent)
        agents = {}
        for user in ("ada", "bob"):
            agents[user] = await registry.create_agent_for_user(user, "plain", UserExecutionContext(user))
            await agents[user].tool_dispatcher.execute_tool("usage_by_model")
        dispatcher = agents["ada"].tool_dispatcher
        assert isinstance(dispatcher, ToolDispatcher)
        assert strays(dispatcher, source, "bob") == []
        # The walk does see present objects: the user's own, and a tool that holds the source.
        assert any(getattr(thing, "user_id", None) == "ada" for thing in reachable(agents["ada"].tool_dispatcher))
        leaky = Tool("leaky", lambda _, __: list(source.records_for("bob")))
        assert source in strays(ToolDispatcher(agents["ada"].context, None, [leaky]), source, "bob")


async def test_without_a_session_no_reference_leads_to_the_source_either() -> None:
    source = CountingSource("ada", "bob")
    dispatcher = await make_and_use(usage_dispatcher_factory(source))
    assert strays(dispatcher, source, "bob") == []
    dispatcher.close()


async def make_and_use(make: Callable[[UserExecutionContext, Any], Any]) -> OwningDispatcher:
    dispatcher = await make(UserExecutionContext("ada"), None)
    await dispatcher.execute_tool("usage_totals")
    assert isinstance(dispatcher, OwningDispatcher)
    return dispatcher


async def test_what_dispatchers_of_different_users_share_cannot_be_changed() -> None:
    """Two users' dispatchers meet in the tools alone, and those hold frozen values."""
    make = usage_dispatcher_factory(source_of("ada", "bob"))
    ada, bob = [await make(UserExecutionContext(user), None) for user in ("ada", "bob")]
    common = {id(thing) for thing in reachable(ada)} & {id(thing) for thing in reachable(bob)}

    mutable = [
        thing
        for thing in [thing for thing in reachable(ada) if id(thing) in common]
        if isinstance(thing, (dict, list, set, types.CellType))
    ]
    assert mutable == []


def test_a_dispatcher_is_small() -> None:
    dispatcher = ToolDispatcher(UserExecutionContext("ada"))
    assert not hasattr(dispatcher, "__dict__")
    assert sys.getsizeof(dispatcher) <= 100


@pytest.mark.parametrize("failing", [False, True])
async def test_everything_is_freed_by_reference_counting(failing: bool) -> None:
    async def fail(_: ToolContext, __: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        raise LookupError("failed")

    async def scenario() -> list[object]:
        make = usage_dispatcher_factory(source_of("ada"), tools=[Tool("fail", fail)])
        async with AgentRegistry(tool_dispatcher_factory=make) as registry:
            registry.register("plain", BaseAgent)
            agent = await registry.create_agent_for_user("ada", "plain", UserExecutionContext("ada"))
            tools = agent.tool_dispatcher
            gone: list[weakref.ref[Any]] = [
                weakref.ref(thing) for thing in (agent, tools, usage_of(agent), agent.context)
            ]
            await tools.execute_tool("usage_totals")
            if failing:
                with pytest.raises(LookupError):
                    await tools.execute_tool("fail")
                with pytest.raises(InvalidParameters):
                    await tools.execute_tool("usage_totals", {"since": "never"})
            del agent, tools
            await registry.cleanup_user_session("ada")
            # The loop's own handle of the step that woke this task may hold the last error until the next turn.
            await asyncio.sleep(0)
            return [ref() for ref in gone]

    gc.collect()
    gc.disable()
    try:
        assert await scenario() == [None] * 4
    finally:
        gc.enable()


# --------------------------------------------------------------------------------------------------------- usage tools


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


def test_answers_of_the_usage_tools_are_those_of_the_database_and_plain_json() -> None:
    dispatcher, database = owning(permissions={"admin"}), UsageDatabase("ada", records_of("ada"))
    settings: dict[str, Any] = {"token_threshold": 1_000, "target_model": "small"}
    since = {"since": (START + timedelta(hours=2)).isoformat()}
    answers = {
        "usage_totals": database.totals(),
        "usage_by_model": database.by_model(),
        "usage_by_day": database.by_day(),
        "query_usage": database.records(),
        "most_expensive_calls": database.most_expensive(),
        "latency_percentiles": database.latency_percentiles(),
        "usage_signals": database.signals(latency_limit_ms=2_000.0, top_percent=5),
        "savings_estimate": {"target_price": [0.5, 1.5]}
        | settings
        | database.savings(**settings, price=PRICES["small"]),
        "corpus_statistics": {"totals": database.totals(), "by_model": database.by_model(), "days": 1},
    }
    for name, expected in answers.items():
        answer = call(dispatcher, name)
        assert answer == expected
        assert json.loads(json.dumps(answer)) == answer
    assert call(dispatcher, "usage_totals", since)["calls"] == 3
    assert call(dispatcher, "query_usage", since | {"limit": 1}) == [records_of("ada")[2].as_row()]
    assert call(dispatcher, "usage_totals", {"models": ["other"]})["calls"] == 0
    assert set(answers) | {"corpus_import", "corpus_prune", "generate_synthetic_usage"} == set(QUESTIONS)
    dispatcher.close()
    database.close()


def test_the_tools_that_change_records_change_them() -> None:
    dispatcher = owning(permissions={"admin"})
    row = dataclasses.replace(records_of("ada")[0], at=START - timedelta(days=1)).as_row()
    assert call(dispatcher, "corpus_import", {"records": [row]}) == {"imported": 1, "records_after": 6}
    with pytest.raises(InvalidParameters, match="usage_totals has no parameter 'sinse'"):
        call(dispatcher, "usage_totals", {"sinse": None})
    with pytest.raises(InvalidUsageRecord, match="record 1: cost_usd"):
        call(dispatcher, "corpus_import", {"records": [row, row | {"cost_usd": -1}]})
    assert call(dispatcher, "corpus_prune", {"before": START.isoformat()}) == {"deleted": 1, "records_after": 5}
    added = call(dispatcher, "generate_synthetic_usage", {"count": 4, "days": 2, "seed": 1})
    assert (added["added"], added["records_after"]) == (4, 9)
    newest = START + timedelta(hours=4)
    assert newest - timedelta(days=2) <= datetime.fromisoformat(added["first_at"])
    assert datetime.fromisoformat(added["last_at"]) < newest
    dispatcher.close()


@pytest.mark.parametrize("name", ["corpus_statistics", "corpus_import", "corpus_prune"])
def test_the_corpus_tools_require_admin(name: str) -> None:
    dispatcher = owning()
    with pytest.raises(PermissionDenied, match="requires admin"):
        call(dispatcher, name, {"before": START.isoformat(), "records": []})
    assert call(dispatcher, "usage_totals")["calls"] == 5
    dispatcher.close()


async def test_many_users_at_once_each_see_their_own_rows() -> None:
    users = [f"user-{number}" for number in range(12)]

    async def totals(registry: AgentRegistry, user: str) -> set[str]:
        agent = await registry.create_agent_for_user(user, "plain", UserExecutionContext(user))
        seen = set()
        for _ in range(5):
            await asyncio.sleep(0)
            rows = (await agent.tool_dispatcher.execute_tool("query_usage")).output
            seen |= {row["model"] for row in rows}
        return seen

    async with AgentRegistry(tool_dispatcher_factory=usage_dispatcher_factory(source_of(*users))) as registry:
        registry.register("plain", BaseAgent)
        work: list[Coroutine[Any, Any, set[str]]] = [totals(registry, user) for user in users]

        assert (await asyncio.gather(*work)) == [{f"model-of-{user}"} for user in users]
