"""get_or_create_agent: one agent for (user, type, thread), whoever races or fails; factories that ask for agents."""

from __future__ import annotations

import asyncio
import contextvars
import gc
from typing import Any

import pytest

from registry import (
    AgentRegistry,
    AgentRequest,
    AgentScope,
    BaseAgent,
    PermissionDenied,
    ReentrantCreate,
    WebSocketManager,
)
from registry._sessions.attempts import Making
from tests.registry.kit import Closable, ForeignBridge, Gate, context, keeping, registry_of, same, slow
from tests.running import settled, turns


async def test_permission_is_checked_for_every_caller() -> None:
    gate = Gate()
    async with AgentRegistry() as registry:
        registry.register("admin", slow(gate), requires={"admin"})
        allowed = context(permissions={"admin"})
        task = asyncio.create_task(registry.get_or_create_agent(allowed, "admin"))
        await gate.reached()
        with pytest.raises(PermissionDenied):
            await registry.get_or_create_agent(context(), "admin")
        gate.open()
        agent = await task
        with pytest.raises(PermissionDenied):
            await registry.get_or_create_agent(context(), "admin")
        assert await registry.get_or_create_agent(allowed, "admin") is agent


async def test_an_activation_that_comes_after_a_create_gives_that_agent() -> None:
    """Else two callers of get_or_create_agent, one before and one after the create, would hold two agents."""
    gate = Gate()
    made: list[Closable] = []
    async with registry_of(helper=slow(gate, keeping(made))) as registry:
        early = asyncio.create_task(registry.get_or_create_agent(context(), "helper"))
        await gate.reached()
        registry.register("helper", Closable, replace=True)
        created = await registry.create_agent_for_user("ada", "helper", context())
        late = await registry.get_or_create_agent(context(), "helper")
        gate.open()
        assert await early is created is late
        assert [agent.closed for agent in made] == [1]
        assert registry.get_registry_health()["total_user_agents"] == 1


async def test_a_doomed_activation_that_ignores_its_cancellation_is_no_second_agent() -> None:
    gate = Gate()
    made: list[Closable] = []
    async with registry_of(helper=slow(gate, keeping(made), stubborn=True)) as registry:
        first = asyncio.create_task(registry.get_or_create_agent(context(), "helper"))
        await gate.reached()
        first.cancel()
        await settled(first)
        assert registry.get_registry_health()["total_user_sessions"] == 0
        registry.register("helper", Closable, replace=True)
        second = await registry.get_or_create_agent(context(), "helper")
        gate.open()
        await turns(5)
        assert [agent.closed for agent in made] == [1]
        assert made[0].is_closed
        assert await registry.get_user_agent("ada", "helper") is second
        assert registry.get_registry_health()["total_user_agents"] == 1


async def test_a_caller_may_try_again_in_the_turn_in_which_it_failed() -> None:
    calls = 0

    async def flaky(scope: AgentScope) -> BaseAgent:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0)
        if calls < 3:
            raise ValueError
        return BaseAgent(scope)

    async def persistent(registry: AgentRegistry) -> BaseAgent:
        while True:
            try:
                return await registry.get_or_create_agent(context(), "helper")
            except ValueError:
                continue

    async with registry_of(helper=flaky) as registry:
        agents = await asyncio.gather(*(persistent(registry) for _ in range(5)))
        assert len(set(agents)) == 1
        assert calls == 3


@pytest.mark.parametrize("through", ["nothing", "gather", "a run", "a child task", "a manager", "a dispatcher factory"])
async def test_a_factory_that_asks_for_its_own_agent(through: str) -> None:
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
        elif through in ("nothing", "a manager"):
            await ask()
        return BaseAgent(scope)

    async def dispatcher(*_: Any) -> Any:
        return await ask()

    async with AgentRegistry(None, dispatcher if through == "a dispatcher factory" else None) as registry:
        registry.register("helper", factory)
        words = "agent 'helper' of user 'ada' in thread 'main' is being made, and its own factory asked for it"
        with pytest.raises(ReentrantCreate, match=words if through == "nothing" else None):
            await registry.get_or_create_agent(context(), "helper")
        assert registry.get_registry_health()["total_user_sessions"] == 0


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

    async with registry_of(helper=BaseAgent) as registry:
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


async def test_the_variables_that_a_factory_runs_with_lead_to_no_session() -> None:
    kept: list[contextvars.Context] = []

    def factory(scope: AgentScope) -> BaseAgent:
        kept.append(contextvars.copy_context())
        return BaseAgent(scope)

    async with registry_of(helper=factory) as registry:
        await registry.get_or_create_agent(context(), "helper")
        ours = [value for value in kept[0].values() if type(value).__module__.startswith("registry.")]
        assert [type(value).__name__ for value in ours] == ["Making"]
        assert gc.get_referents(*ours) == [[], Making], "it holds whom it waits for, and nothing else"
