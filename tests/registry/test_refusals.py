"""Refusals: the error of each, with the value and the remedy in a text that a snapshot shows."""

from __future__ import annotations

import asyncio
import copy
import functools
import pickle
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from inline_snapshot import snapshot

from registry import (
    AgentRegistry,
    AgentRequest,
    AgentScope,
    BaseAgent,
    InvalidAgent,
    InvalidIdentifier,
    InvalidUserId,
    Limits,
    LLMManager,
    PermissionDenied,
    RegistryClosed,
    ScriptedLLM,
    SessionClosed,
    ToolDispatcher,
    UncopyableValue,
    UserExecutionContext,
    managed_user_context,
)
from registry.errors import (
    AgentClosed,
    CapacityExceeded,
    ContextBoundaryError,
    DuplicateAgentType,
    WrongEventLoop,
    describe,
)
from registry.identity import check_id, check_user_id
from tests.registry.kit import context, registry_of
from tests.registry.refusing import Refusals, Text, Uncopied, Zone

LIMITS: dict[str, dict[str, list[Any]]] = {
    "is not a positive number": {
        "max_users": [0, True], "max_agents_per_user": [0, None, True], "idle_timeout": ["9", 0, float("nan")],
        "max_session_age": ["1"], "close_timeout": [0, -1.0, None, float("nan")],
    },
    "is not a whole number": {"max_users": [2.0, 2.5], "max_agents_per_user": [2.5]},
    "would let one cleanup hang for ever": {"close_timeout": [float("inf")]},
}  # fmt: skip


@pytest.mark.parametrize("words", LIMITS)
def test_limits_that_are_none(words: str) -> None:
    for name, values in LIMITS[words].items():
        for value in values:
            with pytest.raises(ValueError, match=f"^{re.escape(f'Limits.{name}={value!r} {words}')}$"):
                Limits(**{name: value})


def test_the_limits_of_a_registry_that_was_given_none() -> None:
    """At most 50 agents a user, each session for a day, five seconds to close it; users and idleness without limit."""
    assert AgentRegistry().limits == Limits(50, 24 * 60 * 60, None, 5.0, None)


class Unprintable:
    def __repr__(self) -> str:
        raise OSError("no")


NOT_IDS: list[Any] = [7, None, "", "x" * 257, "x" * 79 + "\n", " ada", "ada ", "a\x00b", "ad\x9fa"]
NOT_IDS += [b"x" * 77, b"x" * 78]  # 80 characters are shown whole.


def test_ids_that_are_none() -> None:
    refused, of_runs = Refusals(), Refusals()
    refused.of(InvalidUserId, check_user_id, NOT_IDS)
    of_runs.of(InvalidIdentifier, functools.partial(check_id, "run_id"), NOT_IDS)
    assert of_runs.texts == [text.replace("user_id", "run_id") for text in refused.texts]
    refused.by(InvalidUserId, lambda: check_user_id(Unprintable()))
    assert refused.texts == snapshot(
        [
            "user_id 7 is an int; pass a str",
            "user_id None is None; pass a str",
            "user_id '' is empty; pass at least one character",
            "user_id 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...(177 more)...xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' has 257 characters; at most 256 are allowed",
            "user_id 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\\n' begins or ends with white space; strip it where the id is made",
            "user_id ' ada' begins or ends with white space; strip it where the id is made",
            "user_id 'ada ' begins or ends with white space; strip it where the id is made",
            "user_id 'a\\x00b' holds '\\x00' at position 1; control characters are not allowed",
            "user_id 'ad\\x9fa' holds '\\x9f' at position 2; control characters are not allowed",
            "user_id b'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' is a bytes; pass a str",
            "user_id b'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' is a bytes; pass a str",
            "user_id <Unprintable whose repr failed> is an Unprintable; pass a str",
        ]
    )


def test_contexts_that_are_none() -> None:
    def make(**options: Any) -> Callable[[], object]:
        return lambda: UserExecutionContext("ada", **options)

    refused = Refusals()
    refused.by(InvalidIdentifier, *(make(**{field: ""}) for field in ("thread_id", "run_id", "request_id")))
    refused.by(ValueError, make(isolation_level="tight"))
    wrong: list[Any] = ["ab", b"ab", frozenset({7}), [""], [None]]
    refused.by(TypeError, *(make(permissions=permissions) for permissions in wrong))
    refused.by(
        TypeError, *(make(agent_context=wrong) for wrong in ([1], "text", 1, [("a", 1)], {1: 2}, {Text("a"): 1}))
    )
    assert refused.texts == snapshot(
        [
            "thread_id '' is empty; pass at least one character",
            "run_id '' is empty; pass at least one character",
            "request_id '' is empty; pass at least one character",
            "isolation_level 'tight' is unknown; use 'standard' or 'strict'",
            "permissions='ab' is a single string; pass a set such as {'ab'}",
            "permissions=b'ab' is a single string; pass a set such as {b'ab'}",
            "permission 7 is not a non-empty str",
            "permission '' is not a non-empty str",
            "permission None is not a non-empty str",
            "agent_context is a list; pass a mapping with str keys",
            "agent_context is a str; pass a mapping with str keys",
            "agent_context is an int; pass a mapping with str keys",
            "agent_context is a list; pass a mapping with str keys",
            "agent_context key 1 is an int; pass str keys",
            "agent_context key 'a' is a Text; pass str keys",
        ]
    )


def test_what_a_context_refuses_to_be() -> None:
    given, refused = context(), Refusals()
    refused.by(AttributeError, lambda: setattr(given, "name", "x"), lambda: delattr(given, "name"))
    refused.by(TypeError, lambda: pickle.dumps(given), lambda: type("Mine", (UserExecutionContext,), {}))
    refused.by(ContextBoundaryError, lambda: given.session_resource("key", list, list.clear))
    refused.by(InvalidIdentifier, lambda: given.create_child_context(""))
    assert refused.texts == snapshot(
        [
            "UserExecutionContext is frozen: 'name' cannot be set; make a child or a new context",
            "UserExecutionContext is frozen: 'name' cannot be deleted",
            "a UserExecutionContext belongs to one process; send its ids and make a new one there",
            "UserExecutionContext is final: the isolation of its data cannot be kept for a subclass",
            "context of user 'ada' belongs to no session; use the context that the registry hands out",
            "name '' is empty; pass at least one character",
        ]
    )


def test_an_error_whose_text_fails_is_told_by_its_type() -> None:
    class Mute(ValueError):
        def __str__(self) -> str:
            raise OSError("no")

    assert describe(Mute("x")) == "Mute: <Mute whose text failed>"
    assert describe(ValueError("\ud800é")) == "ValueError: \\ud800é"
    long = describe(ValueError("a" * 1_000 + "b" * 5_000_000 + "c" * 1_000))
    assert long == f"ValueError: {'a' * 1_000}...(5000000 more)...{'c' * 1_000}"


def test_what_a_registry_is_made_of_and_what_is_registered() -> None:
    make: Any = AgentRegistry
    registry, refused = make(), Refusals()
    refused.by(TypeError, lambda: make(ScriptedLLM()), lambda: make(object()), lambda: make(None, "tools"))
    refused.by(TypeError, lambda: make(limits={"max_users": 1}))
    refused.by(TypeError, lambda: registry.register("helper", None))
    refused.by(TypeError, lambda: registry.register("helper", BaseAgent, requires="admin"))
    for name in ("helper", "triage", "actions"):
        registry.register(name, BaseAgent)
    refused.by(DuplicateAgentType, lambda: registry.register("helper", BaseAgent), registry.register_default_agents)
    refused.by(TypeError, *(functools.partial(f, registry) for f in (copy.copy, copy.deepcopy, pickle.dumps)))
    assert refused.texts == snapshot(
        [
            "llm_manager is a ScriptedLLM without create_handle(user_context); an agent may hold a handle of its own only, so wrap it, for instance as LLMManager(your_llm)",
            "llm_manager is an object without create_handle(user_context); an agent may hold a handle of its own only, so wrap it, for instance as LLMManager(your_llm)",
            "tool_dispatcher_factory 'tools' cannot be called",
            "limits is a dict; pass Limits(...)",
            "factory None of 'helper' cannot be called",
            "requires='admin' is a single string; pass a set such as {'admin'}",
            "agent type 'helper' is registered already; pass replace=True",
            "registered already: actions, triage; pass replace=True to replace them",
            "an AgentRegistry is a live handle; it can be neither copied nor pickled",
            "an AgentRegistry is a live handle; it can be neither copied nor pickled",
            "an AgentRegistry is a live handle; it can be neither copied nor pickled",
        ]
    )
    registry.register_default_agents(replace=True)
    assert {"triage", "actions", "helper"} <= set(registry.list_agents())


def tools_of(tools: Any) -> Callable[..., Any]:
    return lambda user_context, bridge: tools


class Handles(LLMManager):
    """Hands out its constructor's argument."""

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

    refused = Refusals()
    await refused.awaited(TypeError, create(AgentRegistry(None, tools_of(object()))))
    bobs = SimpleNamespace(user_context=context("bob"), execute_tool=print)
    first = await create(AgentRegistry())
    await refused.awaited(
        ContextBoundaryError,
        create(AgentRegistry(None, tools_of(bobs))),
        create(AgentRegistry(Handles(bobs))),
        create(AgentRegistry(None, tools_of(ToolDispatcher(first.context, None)))),
        create(AgentRegistry(Handles(SimpleNamespace(user_context=first.context)))),
    )
    await refused.awaited(
        InvalidAgent,
        create(AgentRegistry(), lambda scope: None),
        create(AgentRegistry(), lambda scope: first),
        create(AgentRegistry(), lambda scope: BaseAgent.__new__(BaseAgent)),  # Made on no scope at all.
    )
    assert refused.texts == snapshot(
        [
            "the tool_dispatcher_factory returned an object without execute_tool(name, parameters)",
            "user 'ada' was given a dispatcher of user 'bob'",
            "user 'ada' was given a LLM handle of user 'bob'",
            "user 'ada' was given a dispatcher that belongs to another agent; make a new one at every call",
            "user 'ada' was given a LLM handle that belongs to another agent; make a new one at every call",
            "the factory of 'helper' returned None; return a BaseAgent made on the scope",
            "the factory of 'helper' returned an agent that was not made on the scope it was given; make a new agent at every call, or two callers share one",
            "the factory of 'helper' returned an agent that was not made on the scope it was given; make a new agent at every call, or two callers share one",
        ]
    )


@pytest.mark.parametrize(
    "part",
    [
        SimpleNamespace(execute_tool=print),  # Says nothing about whose it is.
        SimpleNamespace(execute_tool=print, user_context=None),
        SimpleNamespace(execute_tool=print, user_context=object()),  # Nor does its context.
        SimpleNamespace(execute_tool=print, user_context=SimpleNamespace(user_id="ada")),
        SimpleNamespace(execute_tool=print, user_context=context("ada")),  # Another context of the same user.
    ],
)
async def test_foreign_parts_need_not_say_whose_they_are(part: Any) -> None:
    async with AgentRegistry(Handles(part), tools_of(part)) as registry:
        registry.register("helper", BaseAgent)
        agent = await registry.create_agent_for_user("ada", "helper", context())
        assert (agent.tool_dispatcher, agent.llm) == (part, part)


class CopiedOnce:
    """Can be copied deep; its copies cannot."""

    def __init__(self, copies: int = 1) -> None:
        self.copies = copies

    def __deepcopy__(self, memo: Any) -> CopiedOnce:
        if not self.copies:
            raise ValueError("no more copies")
        return CopiedOnce(self.copies - 1)


async def test_calls_in_the_name_of_another() -> None:
    refused = Refusals()
    async with AgentRegistry(limits=Limits(max_users=1, max_agents_per_user=1)) as registry:
        create: Any = registry.create_agent_for_user
        get: Any = registry.get_or_create_agent
        registry.register("helper", BaseAgent)
        registry.register("vault", BaseAgent, requires={"b", "a"})
        await refused.awaited(TypeError, create("ada", "helper", "ada"), get(None, "helper"))
        await refused.awaited(ContextBoundaryError, create("ada", "helper", context("bob")))
        some = context(permissions={"c", "a"})
        await refused.awaited(PermissionDenied, create("ada", "vault", context()), get(some, "vault"))
        once = context(agent_context={"once": CopiedOnce()})
        await refused.awaited(UncopyableValue, create("ada", "helper", once))
        agent = await create("ada", "helper", context())
        session: Any = await registry.get_user_session("ada")
        more = create("ada", "helper", context(thread_id="t2"))
        bobs = create("bob", "helper", context("bob")), get(context("bob"), "helper")
        await refused.awaited(CapacityExceeded, registry.get_user_session("bob"), *bobs, more)
        adopted = BaseAgent(AgentScope(context(thread_id="t3"), None, None, None))
        refused.by(CapacityExceeded, lambda: session.register_agent("helper", adopted))
        refused.by(InvalidAgent, lambda: session.register_agent("helper", "helper"))
        refused.by(InvalidIdentifier, lambda: registry.register("", BaseAgent))
        refused.by(InvalidIdentifier, lambda: session.register_agent("", object()))
        for user, empty in (("ada", ""), ("ada", Text()), ("bob", ""), ("bob", Text())):
            await refused.awaited(InvalidIdentifier, registry.get_user_agent(user, "x", empty))
        assert refused.texts == snapshot(
            [
                "user_context is a str; pass a UserExecutionContext",
                "user_context is None; pass a UserExecutionContext",
                "context of user 'bob' was offered for user 'ada'; make a UserExecutionContext for that user",
                "agent type 'vault' requires a, b; user 'ada' has none",
                "agent type 'vault' requires b; user 'ada' has a, c",
                "agent_context['once'] is a tests.registry.test_refusals.CopiedOnce, which cannot be copied deep (ValueError: no more copies); pass plain data, or an object with a __deepcopy__",
                "the limit of users with a session, 1, is reached; end one, or raise Limits.max_users",
                "the limit of users with a session, 1, is reached; end one, or raise Limits.max_users",
                "the limit of users with a session, 1, is reached; end one, or raise Limits.max_users",
                "user 'ada' has reached the limit of agents, 1, and none of them is both superseded and idle; remove one, or raise Limits.max_agents_per_user",
                "user 'ada' has reached the limit of agents, 1, and none of them is both superseded and idle; remove one, or raise Limits.max_agents_per_user",
                "'helper' is a str; a session holds BaseAgent objects",
                "agent_type '' is empty; pass at least one character",
                "agent_type '' is empty; pass at least one character",
                "thread_id '' is empty; pass at least one character",
                "thread_id '' is empty; pass at least one character",
                "thread_id '' is empty; pass at least one character",
                "thread_id '' is empty; pass at least one character",
            ]
        )
        with pytest.raises(ContextBoundaryError, match=re.escape(f"{agent!r} belongs to a session already")):
            session.register_agent("helper", agent)


async def test_requests_that_are_none() -> None:
    refused = Refusals()
    async with registry_of(helper=BaseAgent) as registry:
        agent: Any = await registry.create_agent_for_user("ada", "helper", context())
        wrong: Any = []
        await refused.awaited(TypeError, agent.run(7), agent.run(AgentRequest("x", wrong)))
        await refused.awaited(InvalidIdentifier, agent.run(AgentRequest("x", run_id="")))
        await refused.awaited(UncopyableValue, agent.run(AgentRequest("x", {"a": Uncopied()})))
        refused.by(AttributeError, lambda: setattr(agent.scope, "llm", None))
        agent = await registry.create_agent_for_user("ada", "helper", context(isolation_level="strict"))
        await refused.awaited(UncopyableValue, agent.run(AgentRequest("x", {"a": Zone()})))
    assert refused.texts == snapshot(
        [
            "run() takes a str or an AgentRequest, not an int",
            "the request's parameters are a list; pass a mapping",
            "run_id '' is empty; pass at least one character",
            "request.parameters['a'] is a tests.registry.refusing.Uncopied, which cannot be copied deep (OSError: no paper); pass plain data, or an object with a __deepcopy__",
            "AgentScope is frozen: 'llm' cannot be set",
            "request.parameters['a'] is a tests.registry.refusing.Zone; strict isolation takes only plain data (None, bool, numbers, str, bytes, dates and times, lists, tuples, dicts and sets of them)",
        ]
    )


async def test_what_has_ended_says_what_it_was() -> None:
    registry = AgentRegistry()
    registry.register("helper", BaseAgent)
    agent = await registry.create_agent_for_user("ada", "helper", context())
    await registry.remove_user_agent("ada", "helper")
    session = await registry.get_user_session("ada")
    adopted = BaseAgent(AgentScope(context(), None, None, None))
    session.register_agent("adopted", adopted)
    await registry.remove_user_agent("ada", "adopted")
    async with managed_user_context("ada", agent_context={"a": 1}) as managed:
        pass
    refused = Refusals()
    await refused.awaited(AgentClosed, agent.run(), adopted.run())
    refused.by(AgentClosed, lambda: managed.agent_context)
    await registry.aclose()
    await refused.awaited(SessionClosed, session.get_agent("helper"))
    await refused.awaited(RegistryClosed, registry.get_user_session("ada"))
    assert refused.texts == snapshot(
        [
            "agent helper is closed and can no longer be used",
            "agent adopted is closed and can no longer be used",
            "the managed context of user 'ada' is closed and can no longer be used",
            "the session of user 'ada' has ended; nothing of it can be used any more",
            "this registry was closed; make a new AgentRegistry",
        ]
    )


def test_a_registry_of_another_loop_says_which() -> None:
    registry = AgentRegistry()
    running = asyncio.new_event_loop()

    async def call() -> None:
        await registry.get_user_agent("ada", "helper")

    refused = Refusals()
    try:
        running.run_until_complete(call())
        refused.by(WrongEventLoop, lambda: asyncio.run(call()))
    finally:
        running.close()
    refused.by(WrongEventLoop, lambda: asyncio.run(call()))
    assert refused.texts == snapshot(
        [
            "this registry belongs to the event loop of its first call, which is another one; make one registry for each loop, or use asyncio.run_coroutine_threadsafe(call, its_loop)",
            "this registry belongs to the event loop of its first call, which is closed; make one registry for each loop, or use asyncio.run_coroutine_threadsafe(call, its_loop)",
        ]
    )
