"""register and create_agent_for_user: the made agents, the refusals, and that a refusal leaves nothing behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from registry import (
    AgentRegistry,
    AgentScope,
    BaseAgent,
    CapacityExceeded,
    InvalidAgent,
    Limits,
    SessionClosed,
    ToolDispatcher,
    UnknownAgentType,
    UserExecutionContext,
)
from registry.llm.base import LLMHandle
from tests.registry.kit import (
    Closable,
    Gate,
    context,
    registry_of,
    slow,
)
from tests.running import settled, turns


async def nothing_of(registry: AgentRegistry, users: int = 0) -> None:
    await turns(2)
    assert len(registry._directory) == users
    assert not registry._runtime.tasks.keys() - {registry.lifecycle._sweeper}


def test_recipes() -> None:
    registry = registry_of(helper=BaseAgent)
    registry.register("admin", BaseAgent, requires={"admin"})
    registry.register("helper", Closable, replace=True)
    for wrong in ("", None, 1, b"helper"):
        with pytest.raises((TypeError, ValueError)):
            registry.register(wrong, BaseAgent)  # type: ignore[arg-type]
    registry.list_agents().append("mine")
    assert registry.list_agents() == ["admin", "helper"]


async def test_every_create_is_a_new_agent_with_its_own_things() -> None:
    async with registry_of(helper=BaseAgent) as registry:
        given = context(agent_context={"a": [1]}, run_id="r", permissions={"p"})
        made = [await registry.create_agent_for_user("ada", "helper", given) for _ in range(3)]
        for part in ("context", "tool_dispatcher", "llm", "scope"):
            assert len({id(getattr(agent, part)) for agent in made}) == 3, part
        assert len({id(agent.bridge) for agent in made}) == 1
        assert len({agent.agent_id for agent in made}) == 3
        for agent in made:
            assert agent.context is not given
            assert agent.context.name == agent.agent_type == "helper"
            assert (agent.context.user_id, agent.context.run_id) == ("ada", "r")
            assert agent.context.permissions == {"p"}
            assert isinstance(agent.tool_dispatcher, ToolDispatcher)
            assert isinstance(agent.llm, LLMHandle)
            assert agent.tool_dispatcher.user_context is agent.context
            assert agent.llm.user_context is agent.context
            assert agent.scope.tools is agent.tool_dispatcher
            assert agent.scope.events is agent.bridge
        made[0].context.agent_context["a"].append(0)
        assert made[1].context.agent_context["a"] == [1]
        assert given.agent_context["a"] == [1]
        assert await registry.get_user_agent("ada", "helper") is made[-1]


async def test_the_caller_changing_its_data_during_a_slow_create_changes_nothing() -> None:
    gate = Gate()
    seen: list[Any] = []

    async def dispatcher(user_context: UserExecutionContext, bridge: Any) -> ToolDispatcher:
        await gate.pass_through()
        seen.append(dict(user_context.agent_context))
        return ToolDispatcher(user_context, bridge)

    async with AgentRegistry(None, dispatcher) as registry:
        registry.register("helper", BaseAgent)
        given = context(agent_context={"a": [1]})
        task = asyncio.create_task(registry.create_agent_for_user("ada", "helper", given))
        await gate.reached()
        given.agent_context["a"].append(2)
        gate.open()
        agent = await task
        assert seen == [{"a": [1]}]
        assert agent.context.agent_context["a"] == [1]


async def test_a_factory_may_be_an_object_that_is_called_and_awaited() -> None:
    class Async:
        async def __call__(self, scope: AgentScope) -> BaseAgent:
            return BaseAgent(scope)

    async with AgentRegistry() as registry:
        registry.register("helper", Async())
        assert (await registry.create_agent_for_user("ada", "helper", context())).agent_type == "helper"


async def test_an_unknown_type_is_refused_with_the_nearest_name() -> None:
    async with registry_of(reporting=BaseAgent) as registry:
        with pytest.raises(UnknownAgentType, match="did you mean 'reporting'"):
            await registry.create_agent_for_user("ada", "repotring", context())
        wrongs: list[Any] = [None, 1, [], b"reporting", "zzz"]
        for wrong in wrongs:
            with pytest.raises(UnknownAgentType, match="known: reporting"):
                await registry.create_agent_for_user("ada", wrong, context())
            with pytest.raises(UnknownAgentType):
                await registry.get_or_create_agent(context(), wrong)
        await nothing_of(registry)


async def test_the_context_of_a_failed_create_is_dead() -> None:
    kept: list[AgentScope] = []

    def factory(scope: AgentScope) -> BaseAgent:
        kept.append(scope)
        raise ZeroDivisionError

    async with registry_of(helper=factory) as registry:
        await registry.get_user_session("ada")
        with pytest.raises(ZeroDivisionError):
            await registry.create_agent_for_user("ada", "helper", context())
        with pytest.raises(SessionClosed):
            kept[0].context.agent_context  # noqa: B018
        with pytest.raises(SessionClosed):
            await BaseAgent(kept[0]).run()


async def test_a_cached_agent_is_refused_and_not_harmed() -> None:
    cache: list[BaseAgent] = []

    def cached(scope: AgentScope) -> BaseAgent:
        if not cache:
            cache.append(Closable(scope))
        return cache[0]

    async with registry_of(helper=cached) as registry:
        mine = await registry.create_agent_for_user("ada", "helper", context())
        for user in ("ada", "bob"):
            with pytest.raises(InvalidAgent, match="not made on the scope"):
                await registry.create_agent_for_user(user, "helper", context(user))
            with pytest.raises(InvalidAgent):
                await registry.get_or_create_agent(context(user, "other"), "helper")
        assert isinstance(mine, Closable)
        assert mine.closed == 0
        await mine.run()
        await nothing_of(registry, users=1)


async def test_the_cap_evicts_the_least_recently_used_superseded_idle_agent() -> None:
    async with registry_of(a=Closable, b=Closable, limits=Limits(max_agents_per_user=4)) as registry:

        async def make(kind: str, thread: str = "main") -> Any:
            return await registry.create_agent_for_user("ada", kind, context("ada", thread))

        a1, a2, a3 = [await make("a") for _ in range(3)]
        await make("b")
        await a1.run()
        await registry.get_user_agent("ada", "a")  # A lookup is not a use.
        b2 = await make("b")  # a2 is the least recently used that is superseded.
        assert [agent.closed for agent in (a1, a2, a3)] == [0, 1, 0]
        await make("a", "other")  # The first b, made before a1's run, is next.
        session = await registry.get_user_session("ada")
        assert session.agent_count == 4
        assert a1.closed == 0
        assert b2.closed == 0
        await make("b", "other")
        assert a1.closed == 1
        assert session.agent_count == 4
        with pytest.raises(CapacityExceeded, match="limit"):
            await make("b", "third")
        assert session.agent_count == 4
        fresh = await make("b", "other")  # Supersedes its own predecessor, which goes.
        assert await registry.get_user_agent("ada", "b", "other") is fresh
        assert session.agent_count == 4


async def test_provisional_sessions_are_not_counted_and_go_with_the_last_failing_create() -> None:
    gates = [Gate(), Gate()]
    async with AgentRegistry() as registry:
        registry.register("one", slow(gates[0], made=lambda _: 1 / 0))  # type: ignore[arg-type]
        registry.register("two", slow(gates[1], made=lambda _: 1 / 0))  # type: ignore[arg-type]
        registry.register("helper", BaseAgent)
        tasks = [asyncio.create_task(registry.create_agent_for_user("ada", n, context())) for n in ("one", "two")]
        for gate in gates:
            await gate.reached()
        health = registry.get_registry_health()
        assert (health["total_user_sessions"], health["total_user_agents"]) == (0, 0)
        assert (await registry.monitor_all_users())["total_users"] == 0
        assert (await registry.lifecycle.monitor_memory_usage("ada"))["status"] == "no_session"
        assert (await registry.lifecycle.sweep())["ended"] == []
        gates[0].open()
        await settled(tasks[0])
        await nothing_of(registry, users=1)
        gates[1].open()
        await settled(tasks[1])
        await nothing_of(registry)


async def test_a_session_that_was_asked_for_is_no_longer_provisional() -> None:
    gate = Gate()
    async with AgentRegistry() as registry:
        registry.register("one", slow(gate, made=lambda _: 1 / 0))  # type: ignore[arg-type]
        task = asyncio.create_task(registry.create_agent_for_user("ada", "one", context()))
        await gate.reached()
        session = await registry.get_user_session("ada")
        assert registry.get_registry_health()["total_user_sessions"] == 1
        gate.open()
        await settled(task)
        assert await registry.get_user_session("ada") is session
        assert not session.is_closed
