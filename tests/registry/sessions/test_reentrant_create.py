"""A factory that asks for the agent that it is making is refused; it would wait for ever."""

from __future__ import annotations

import asyncio
import contextvars
import gc
from typing import Any

import pytest

from registry import AgentRegistry, AgentRequest, AgentScope, BaseAgent, ReentrantCreate, WebSocketManager
from registry._sessions.attempts import Making
from tests.registry.kit import ForeignBridge, Gate, context, freed_at_once, same
from tests.running import settled, turns


async def test_a_factory_that_asks_for_its_own_agent() -> None:
    async with AgentRegistry() as registry:

        async def factory(scope: AgentScope) -> BaseAgent:
            return await registry.get_or_create_agent(context(), "helper")

        registry.register("helper", factory)
        words = "agent 'helper' of user 'ada' in thread 'main' is being made, and its own factory asked for it"
        with pytest.raises(ReentrantCreate, match=words):
            await registry.get_or_create_agent(context(), "helper")
        assert registry.get_registry_health()["total_user_sessions"] == 0


@pytest.mark.parametrize("through", ["gather", "a run", "a child task", "a manager", "a dispatcher factory"])
async def test_a_factory_that_asks_for_its_own_agent_in_a_roundabout_way(through: str) -> None:
    async def ask() -> BaseAgent:
        if through == "a manager":
            return await registry.get_or_create_agent(context(), "helper", WebSocketManager())
        return await registry.get_or_create_agent(context(), "helper")

    class Asking(BaseAgent):
        async def execute(self, request: AgentRequest) -> Any:
            await ask()

    async def factory(scope: AgentScope) -> BaseAgent:
        if through == "gather":
            await asyncio.gather(asyncio.sleep(0), ask())
        elif through == "a run":
            await Asking(scope).run()
        elif through == "a child task":
            await asyncio.create_task(ask())
        elif through == "a manager":
            await ask()
        return BaseAgent(scope)

    async def dispatcher(*_: Any) -> Any:
        return await ask()

    async with AgentRegistry(None, dispatcher if through == "a dispatcher factory" else None) as registry:
        registry.register("helper", factory)
        with pytest.raises(ReentrantCreate):
            await registry.get_or_create_agent(context(), "helper")


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("at_once", [False, True])
async def test_factories_that_ask_for_each_other_in_a_circle(count: int, *, at_once: bool) -> None:
    gate = Gate(is_open=not at_once)
    async with AgentRegistry() as registry:
        for number in range(count):

            async def factory(scope: AgentScope, number: int = number) -> BaseAgent:
                await gate.pass_through()
                await registry.get_or_create_agent(context("ada"), f"{(number + 1) % count}")
                return BaseAgent(scope)

            registry.register(f"{number}", factory)
        asked = [
            asyncio.ensure_future(registry.get_or_create_agent(context(), f"{number}"))
            for number in range(count if at_once else 1)
        ]
        await turns(4)
        gate.open()
        async with asyncio.timeout(60):
            answers = await settled(*asked)
        # Each has begun, so one must be refused; who waited for it gets its error.
        assert [type(answer) for answer in answers] == [ReentrantCreate] * len(asked)
        assert registry.get_registry_health()["total_user_sessions"] == 0


async def test_a_manager_that_creates_over_itself() -> None:
    class Manager:
        async def create_bridge(self, _: Any) -> Any:
            await registry.create_agent_for_user("ada", "helper", context(), self)
            return ForeignBridge()

    async with AgentRegistry() as registry:
        registry.register("helper", BaseAgent)
        with pytest.raises(ReentrantCreate, match="the bridge of user 'ada'"):
            await registry.create_agent_for_user("ada", "helper", context(), Manager())
        assert registry.get_registry_health()["total_user_sessions"] == 0


async def test_factories_may_ask_for_others() -> None:
    async with AgentRegistry() as registry:
        asked: list[BaseAgent] = []
        later: list[asyncio.Task[BaseAgent]] = []

        async def upper(scope: AgentScope) -> BaseAgent:
            middle, other, stranger = await asyncio.gather(
                registry.get_or_create_agent(context(), "middle"),
                registry.get_or_create_agent(context(thread_id="other"), "lower"),
                registry.get_or_create_agent(context("bob"), "lower"),
            )
            asked.extend((middle, other, stranger))
            return BaseAgent(scope)

        async def middle(scope: AgentScope) -> BaseAgent:
            await registry.get_or_create_agent(context(), "lower")
            later.append(asyncio.create_task(when_made()))
            return BaseAgent(scope)

        async def when_made() -> BaseAgent:
            # Begun within the making, and asks after it.
            await made.wait()
            return await registry.get_or_create_agent(context(), "middle")

        made = asyncio.Event()
        registry.register("upper", upper)
        registry.register("middle", middle)
        registry.register("lower", BaseAgent)
        await registry.get_or_create_agent(context(), "upper")
        made.set()
        assert same(await later[0], asked[0])
        assert registry.get_registry_health()["total_user_agents"] == 5


async def test_a_refused_factory_is_freed_at_once() -> None:
    async with AgentRegistry() as registry:

        async def own(scope: AgentScope) -> BaseAgent:
            return await registry.get_or_create_agent(context(), "own")

        async def story() -> None:
            await settled(asyncio.ensure_future(registry.get_or_create_agent(context(), "own")))
            await turns(3)

        registry.register("own", own)
        await story()
        with freed_at_once():
            await story()


async def test_the_variables_that_a_factory_runs_with_lead_to_no_session() -> None:
    kept: list[contextvars.Context] = []

    def factory(scope: AgentScope) -> BaseAgent:
        kept.append(contextvars.copy_context())
        return BaseAgent(scope)

    async with AgentRegistry() as registry:
        registry.register("helper", factory)
        await registry.get_or_create_agent(context(), "helper")
        ours = [value for value in kept[0].values() if type(value).__module__.startswith("registry.")]
        assert [type(value).__name__ for value in ours] == ["Making"]
        assert gc.get_referents(*ours) == [[], Making], "it holds whom it waits for, and nothing else"
