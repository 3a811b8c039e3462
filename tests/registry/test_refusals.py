"""Calls that are refused, each with its whole text: it names the value at fault and the remedy."""

from __future__ import annotations

import asyncio
import copy
import pickle
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from registry import (
    AgentRegistry,
    AgentRequest,
    AgentScope,
    BaseAgent,
    InvalidAgent,
    InvalidIdentifier,
    Limits,
    LLMManager,
    RegistryClosed,
    ScriptedLLM,
    SessionClosed,
    ToolDispatcher,
    UncopyableValue,
    UnknownTool,
    UserExecutionContext,
    managed_user_context,
)
from registry.errors import (
    AgentClosed,
    CapacityExceeded,
    ContextBoundaryError,
    DuplicateAgentType,
    UnknownAgentType,
    WrongEventLoop,
)
from tests.registry.kit import context
from tests.registry.refusing import Uncopied, Zone, refused


def test_what_a_registry_is_made_of() -> None:
    with refused(
        TypeError,
        "llm_manager is a ScriptedLLM without create_handle(user_context); an agent may hold a handle of its own only, "
        "so wrap it, for instance as LLMManager(your_llm)",
    ):
        AgentRegistry(ScriptedLLM())  # type: ignore[arg-type]
    with refused(TypeError, "tool_dispatcher_factory 'tools' cannot be called"):
        AgentRegistry(None, "tools")  # type: ignore[arg-type]


def test_what_is_registered() -> None:
    registry = AgentRegistry()
    with refused(TypeError, "factory None of 'helper' cannot be called"):
        registry.register("helper", None)  # type: ignore[arg-type]
    with refused(TypeError, "requires='admin' is a single string; pass a set such as {'admin'}"):
        registry.register("helper", BaseAgent, requires="admin")
    registry.register("helper", BaseAgent)
    with refused(DuplicateAgentType, "agent type 'helper' is registered already; pass replace=True"):
        registry.register("helper", BaseAgent)
    registry.register("triage", BaseAgent)
    registry.register("actions", BaseAgent)
    with refused(DuplicateAgentType, "registered already: actions, triage; pass replace=True to replace them"):
        registry.register_default_agents()
    registry.register_default_agents(replace=True)
    assert {"triage", "actions", "helper"} <= set(registry.list_agents())


def test_live_handles_are_called_that() -> None:
    for make in (copy.copy, copy.deepcopy, pickle.dumps):
        with refused(TypeError, "a AgentRegistry is a live handle; it can be neither copied nor pickled"):
            make(AgentRegistry())


def test_what_is_unknown_comes_with_what_is_known() -> None:
    remedy = "give the registry a tool_dispatcher_factory whose dispatcher has it"
    assert str(UnknownTool("x", [])) == f"unknown tool 'x': none is known; {remedy}"
    assert str(UnknownTool("x", ["plot", "fetch"])) == f"unknown tool 'x'; known: fetch, plot; {remedy}"
    assert (
        str(UnknownTool("fecth", ["plot", "fetch"]))
        == "unknown tool 'fecth'; known: fetch, plot; did you mean 'fetch'?"
    )
    assert str(UnknownAgentType(7, ["plot"])) == "unknown agent type 7; known: plot; register() it first"


def tools_of(tools: Any) -> Callable[..., Any]:
    return lambda user_context, bridge: tools


class Handles(LLMManager):
    """Hands out what it was given."""

    def __init__(self, handle: Any) -> None:
        super().__init__(ScriptedLLM())
        self.handle = handle

    def create_handle(self, user_context: UserExecutionContext) -> Any:
        return self.handle


async def test_makers_that_hand_out_what_is_no_agent_s_own() -> None:
    async def create(registry: AgentRegistry, factory: Any = BaseAgent) -> BaseAgent:
        async with registry:
            registry.register("helper", factory)
            return await registry.create_agent_for_user("ada", "helper", context())

    with refused(TypeError, "the tool_dispatcher_factory returned a object without execute_tool(name, parameters)"):
        await create(AgentRegistry(None, tools_of(object())))
    bobs = SimpleNamespace(user_context=context("bob"), execute_tool=print)
    with refused(ContextBoundaryError, "user 'ada' was given a dispatcher of user 'bob'"):
        await create(AgentRegistry(None, tools_of(bobs)))
    with refused(ContextBoundaryError, "user 'ada' was given a LLM handle of user 'bob'"):
        await create(AgentRegistry(Handles(bobs)))
    with refused(InvalidAgent, "the factory of 'helper' returned a NoneType; return a BaseAgent made on the scope"):
        await create(AgentRegistry(), lambda scope: None)
    first = await create(AgentRegistry())
    with refused(
        InvalidAgent,
        "the factory of 'helper' returned an agent that was not made on the scope it was given; "
        "make a new agent at every call, or two callers share one",
    ):
        await create(AgentRegistry(), lambda scope: first)
    with pytest.raises(InvalidAgent, match="returned an agent that was not made on the scope it was given"):
        await create(AgentRegistry(), lambda scope: BaseAgent.__new__(BaseAgent))  # Made on no scope at all.
    for registry, what in (
        (AgentRegistry(None, tools_of(ToolDispatcher(first.context, None))), "dispatcher"),
        (AgentRegistry(Handles(SimpleNamespace(user_context=first.context))), "LLM handle"),
    ):
        with refused(
            ContextBoundaryError,
            f"user 'ada' was given a {what} that belongs to another agent; make a new one at every call",
        ):
            await create(registry)


@pytest.mark.parametrize(
    "part",
    [
        SimpleNamespace(execute_tool=print),  # Says nothing about whose it is.
        SimpleNamespace(execute_tool=print, user_context=None),
        SimpleNamespace(execute_tool=print, user_context=object()),  # Nor does its context.
        SimpleNamespace(execute_tool=print, user_context=SimpleNamespace(user_id="ada")),
    ],
)
async def test_foreign_parts_need_not_say_whose_they_are(part: Any) -> None:
    async with AgentRegistry(Handles(part), tools_of(part)) as registry:
        registry.register("helper", BaseAgent)
        agent = await registry.create_agent_for_user("ada", "helper", context())
        assert (agent.tool_dispatcher, agent.llm) == (part, part)


async def test_calls_in_the_name_of_another() -> None:
    async with AgentRegistry(limits=Limits(max_users=1, max_agents_per_user=1)) as registry:
        registry.register("helper", BaseAgent)
        with refused(TypeError, "user_context is a str; pass a UserExecutionContext"):
            await registry.create_agent_for_user("ada", "helper", "ada")  # type: ignore[arg-type]
        with refused(TypeError, "user_context is a NoneType; pass a UserExecutionContext"):
            await registry.get_or_create_agent(None, "helper")  # type: ignore[arg-type]
        with refused(
            ContextBoundaryError,
            "context of user 'bob' was offered for user 'ada'; make a UserExecutionContext for that user",
        ):
            await registry.create_agent_for_user("ada", "helper", context("bob"))
        agent = await registry.create_agent_for_user("ada", "helper", context())
        session = await registry.get_user_session("ada")
        with refused(CapacityExceeded, "1 users have a session, the limit; end one, or raise Limits.max_users"):
            await registry.get_user_session("bob")
        with refused(
            CapacityExceeded,
            "user 'ada' has 1 agents, the limit, and none of them is both superseded and idle; remove one, "
            "or raise Limits.max_agents_per_user",
        ):
            await registry.create_agent_for_user("ada", "helper", context(thread_id="t2"))
        with refused(InvalidAgent, "'helper' is a str; a session holds BaseAgent objects"):
            session.register_agent("helper", "helper")  # type: ignore[arg-type]
        with refused(ContextBoundaryError, f"{agent!r} belongs to a session already; an agent has one owner"):
            session.register_agent("helper", agent)


def test_a_request_asks_for_nothing_by_itself() -> None:
    one, other = AgentRequest(), AgentRequest()
    assert (one.text, one.parameters, one.run_id) == ("", {}, None)
    assert one.parameters is not other.parameters


async def test_requests_that_are_none() -> None:
    async with AgentRegistry() as registry:
        registry.register("helper", BaseAgent)
        agent = await registry.create_agent_for_user("ada", "helper", context())
        with refused(TypeError, "run() takes a str or an AgentRequest, not a int"):
            await agent.run(7)  # type: ignore[arg-type]
        with refused(TypeError, "the request's parameters are a list; pass a mapping"):
            await agent.run(AgentRequest("x", []))  # type: ignore[arg-type]
        with refused(InvalidIdentifier, "run_id '' is empty; pass at least one character"):
            await agent.run(AgentRequest("x", run_id=""))
        with pytest.raises(UncopyableValue, match=r"\Arequest\.parameters\['a'\] is a "):
            await agent.run(AgentRequest("x", {"a": Uncopied()}))
        with refused(AttributeError, "AgentScope is frozen: 'llm' cannot be set"):
            agent.scope.llm = None
        strict = context(isolation_level="strict")
        agent = await registry.create_agent_for_user("ada", "helper", strict)
        with pytest.raises(UncopyableValue, match="strict isolation takes only plain data"):
            await agent.run(AgentRequest("x", {"a": Zone()}))


async def test_what_has_ended_says_what_it_was() -> None:
    registry = AgentRegistry()
    registry.register("helper", BaseAgent)
    agent = await registry.create_agent_for_user("ada", "helper", context())
    await registry.remove_user_agent("ada", "helper")
    with refused(AgentClosed, "agent helper is closed and can no longer be used"):
        await agent.run()
    session = await registry.get_user_session("ada")
    adopted = BaseAgent(AgentScope(context(), None, None, None))
    session.register_agent("adopted", adopted)
    await registry.remove_user_agent("ada", "adopted")
    with refused(AgentClosed, "agent adopted is closed and can no longer be used"):
        await adopted.run()
    async with managed_user_context("ada", agent_context={"a": 1}) as managed:
        pass
    with refused(AgentClosed, "the managed context of user 'ada' is closed and can no longer be used"):
        _ = managed.agent_context
    await registry.aclose()
    with refused(SessionClosed, "the session of user 'ada' has ended; nothing of it can be used any more"):
        await session.get_agent("helper")
    with refused(RegistryClosed, "this registry was closed; make a new AgentRegistry"):
        await registry.get_user_session("ada")


def test_a_registry_of_another_loop_says_which() -> None:
    remedy = "make one registry for each loop, or use asyncio.run_coroutine_threadsafe(call, its_loop)"
    registry = AgentRegistry()
    running = asyncio.new_event_loop()
    try:
        running.run_until_complete(registry.get_user_agent("ada", "helper"))

        async def call() -> None:
            await registry.get_user_agent("ada", "helper")

        with refused(
            WrongEventLoop,
            f"this registry belongs to the event loop of its first call, which is another one; {remedy}",
        ):
            asyncio.run(call())
    finally:
        running.close()
    with refused(
        WrongEventLoop, f"this registry belongs to the event loop of its first call, which is closed; {remedy}"
    ):
        asyncio.run(call())


def test_a_registry_that_was_never_closed_says_how_to() -> None:
    async def main() -> None:
        registry = AgentRegistry()
        await registry.get_user_session("ada")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del registry
        assert [(w.category, str(w.message)) for w in caught] == [
            (
                ResourceWarning,
                "<AgentRegistry users=1 agents=0 types=0> was never closed; call aclose() or use async with",
            )
        ]

    asyncio.run(main())
