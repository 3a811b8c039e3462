"""The work that one user may have under way: bounded, refused in words, and nobody else notices."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from registry import AgentRegistry, BaseAgent, CapacityExceeded, Limits
from tests.registry.kit import Closable, ForeignBridge, ForeignManager, Gate, busy, context, hanging, registry_of, slow
from tests.running import settled, turns

NO_LIMITS = Limits(max_runs_per_agent=None, max_creates_per_user=None, max_abandoned_per_user=None)


async def bob_is_well(registry: AgentRegistry) -> None:
    registry.register("plain", BaseAgent, replace=True)
    agent = await registry.create_agent_for_user("bob", "plain", context("bob"))
    assert (await agent.run("x")).output["text"] == "x"
    assert (await registry.cleanup_user_session("bob"))["cleaned_agents"] == 1


async def test_runs_of_one_agent_are_bounded() -> None:
    gate = Gate()
    async with registry_of(busy=busy(gate), limits=Limits(max_runs_per_agent=3)) as registry:
        agent, other = [await registry.create_agent_for_user("ada", "busy", context()) for _ in range(2)]
        runs = [asyncio.ensure_future(agent.run(f"{number}")) for number in range(3)]
        await turns(3)
        for _ in range(3):
            with pytest.raises(CapacityExceeded, match=r"has 3 runs .*Limits.max_runs_per_agent.*; await some"):
                await agent.run("one more")
        # Another agent of the same user has runs of its own.
        runs.append(asyncio.ensure_future(other.run("3")))
        await bob_is_well(registry)
        runs[2].cancel()
        await settled(runs[2])
        runs[2] = asyncio.ensure_future(agent.run("2"))
        await turns(3)
        gate.open()
        assert [result.output for result in await asyncio.gather(*runs)] == ["0", "1", "2", "3"]
        assert (await agent.run("again")).output == "again"


@pytest.mark.parametrize("is_shared", [False, True])
async def test_what_is_being_made_for_one_user_is_bounded(*, is_shared: bool) -> None:
    gate = Gate()
    async with AgentRegistry(limits=Limits(max_creates_per_user=4)) as registry:
        for number in range(5):
            registry.register(f"slow-{number}", slow(gate))

        def ask(number: int) -> asyncio.Future[BaseAgent]:
            return asyncio.ensure_future(
                registry.get_or_create_agent(context(), f"slow-{number}")
                if is_shared
                else registry.create_agent_for_user("ada", f"slow-{number}", context())
            )

        asked = [ask(number) for number in range(4)]
        await turns(3)
        for _ in range(3):
            with pytest.raises(
                CapacityExceeded, match=r"of user 'ada' 4 agents .*Limits.max_creates_per_user.*; await"
            ):
                await ask(4)
        if is_shared:
            # A joining caller makes nothing.
            asked += [ask(number) for number in range(4)]
        await bob_is_well(registry)
        assert gate.arrived == 4
        # All who ask for the first leave.
        for task in asked[::4]:
            task.cancel()
        await turns(3)
        asked.append(ask(4))
        await turns(3)
        gate.open()
        answers = await settled(*asked)
        assert all(isinstance(answer, asyncio.CancelledError) for answer in answers[:-1:4])
        assert all(isinstance(answer, BaseAgent) for number, answer in enumerate(answers) if number % 4)
        assert isinstance(answers[-1], BaseAgent)
        assert registry.get_registry_health()["total_user_agents"] == 4


async def test_bridges_that_are_being_made_are_bounded() -> None:
    gate = Gate()
    async with AgentRegistry(limits=Limits(max_creates_per_user=2)) as registry:
        session = await registry.get_user_session("ada")
        setting = [asyncio.ensure_future(session.set_websocket_manager(ForeignManager(gate))) for _ in range(2)]
        await turns(3)
        with pytest.raises(CapacityExceeded, match="max_creates_per_user"):
            await session.set_websocket_manager(ForeignManager())
        gate.open()
        await asyncio.gather(*setting)
        await session.set_websocket_manager(ForeignManager())


async def stubborn_cleanups(registry: AgentRegistry, gate: Gate) -> Callable[[], Awaitable[Any]]:
    registry.register("stubborn", hanging(gate, stubborn=True))

    async def one() -> None:
        await registry.create_agent_for_user("ada", "stubborn", context())
        await registry.remove_user_agent("ada", "stubborn")

    return one


async def stubborn_runs(registry: AgentRegistry, gate: Gate) -> Callable[[], Awaitable[Any]]:
    registry.register("stubborn", busy(gate, stubborn=True))

    async def one() -> None:
        agent = await registry.create_agent_for_user("ada", "stubborn", context())
        running = asyncio.ensure_future(agent.run())
        await turns(3)
        await registry.remove_user_agent("ada", "stubborn")
        await settled(running)

    return one


async def stubborn_factories(registry: AgentRegistry, gate: Gate) -> Callable[[], Awaitable[Any]]:
    registry.register("stubborn", slow(gate, stubborn=True))

    async def one() -> None:
        asked = asyncio.ensure_future(registry.get_or_create_agent(context(), "stubborn"))
        await turns(3)
        await registry.cleanup_user_session("ada")
        (answer,) = await settled(asked)
        if isinstance(answer, CapacityExceeded):
            raise answer

    return one


async def stubborn_bridges(registry: AgentRegistry, gate: Gate) -> Callable[[], Awaitable[Any]]:
    class Stubborn(ForeignBridge):
        async def close(self) -> None:  # type: ignore[override]
            await gate.pass_stubbornly()

    manager = ForeignManager(make=Stubborn)

    async def one() -> None:
        session = await registry.get_user_session("ada")
        await session.set_websocket_manager(manager)
        await registry.cleanup_user_session("ada")

    return one


@pytest.mark.parametrize("kind", [stubborn_cleanups, stubborn_runs, stubborn_factories, stubborn_bridges])
async def test_what_was_abandoned_of_one_user_is_bounded(kind: Any) -> None:
    gate = Gate()
    limits = Limits(max_abandoned_per_user=3, close_timeout=0.005)
    async with registry_of(helper=Closable, limits=limits) as registry:
        one = await kind(registry, gate)
        for _ in range(3):
            await one()
        assert registry.get_registry_health()["abandoned_cleanups"] == 3
        words = (
            r"of user 'ada' 3 cleanups, runs or factories ignore .*Limits.max_abandoned_per_user.*; let such code end"
        )
        for _ in range(2):
            with pytest.raises(CapacityExceeded, match=words):
                await one()
        with pytest.raises(CapacityExceeded, match=words):
            await registry.create_agent_for_user("ada", "helper", context())
        with pytest.raises(CapacityExceeded, match=words):
            await registry.get_or_create_agent(context(), "helper")
        assert registry.get_registry_health()["abandoned_cleanups"] == 3
        await registry.cleanup_user_session("ada")
        await bob_is_well(registry)
        gate.open()
        await turns(5)
        assert registry.get_registry_health()["abandoned_cleanups"] == 0
        assert not registry._runtime.abandoned_of
        await registry.create_agent_for_user("ada", "helper", context())


async def test_none_is_no_limit() -> None:
    gate = Gate()
    async with registry_of(busy=busy(gate), limits=NO_LIMITS) as registry:
        agent = await registry.create_agent_for_user("ada", "busy", context())
        runs = [asyncio.ensure_future(agent.run(f"{number}")) for number in range(1_100)]
        await turns(3)
        gate.open()
        assert len(await asyncio.gather(*runs)) == 1_100
