"""Age and idleness by an injected clock, the one sweeping task, and the reports of monitoring."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from registry import AgentRegistry, Limits
from tests.registry.kit import Clock, Closable, Gate, Raising, busy, context, hanging, slow
from tests.running import live_timers, settled, turns


def registry_of(clock: Clock, **limits: Any) -> AgentRegistry:
    registry = AgentRegistry(limits=Limits(**limits), clock=clock)
    registry.register("helper", Closable)
    return registry


async def test_idle_sessions_are_ended_by_a_sweep() -> None:
    clock = Clock()
    async with registry_of(clock, idle_timeout=10.0) as registry:
        agents: list[Any] = [await registry.create_agent_for_user(u, "helper", context(u)) for u in ("ada", "bob")]
        clock.now += 9.9
        assert await registry.lifecycle.sweep() == {"ended": [], "errors": []}
        await agents[1].run()
        clock.now += 0.1
        await registry.get_user_agent("ada", "helper")  # A lookup is not a use.
        assert (await registry.lifecycle.sweep())["ended"] == ["ada"]
        assert [agent.closed for agent in agents] == [1, 0]
        clock.now += 9.8
        await registry.create_agent_for_user("bob", "helper", context("bob"))
        clock.now += 9.9
        assert (await registry.lifecycle.sweep())["ended"] == []
        clock.now += 0.1
        assert (await registry.lifecycle.sweep())["ended"] == ["bob"]


async def test_a_hit_is_a_use_and_a_run_is_one_until_its_end() -> None:
    clock = Clock()
    gate = Gate()
    async with registry_of(clock, idle_timeout=10.0) as registry:
        registry.register("busy", busy(gate))
        agent = await registry.get_or_create_agent(context(), "busy")
        task = asyncio.create_task(agent.run())
        await gate.reached()
        clock.now += 1_000
        assert (await registry.lifecycle.sweep())["ended"] == []
        gate.open()
        await task
        clock.now += 9.9
        assert await registry.get_or_create_agent(context(), "busy") is agent
        clock.now += 9.9
        assert (await registry.lifecycle.sweep())["ended"] == []
        clock.now += 0.1
        assert (await registry.lifecycle.sweep())["ended"] == ["ada"]


async def test_over_age_sessions_are_ended_but_never_under_a_running_agent() -> None:
    clock = Clock()
    gate = Gate()
    async with registry_of(clock, max_session_age=100.0) as registry:
        registry.register("busy", busy(gate))
        registry.register("slow", slow(gate))
        agent = await registry.create_agent_for_user("ada", "busy", context())
        await registry.get_user_session("empty")
        await registry.get_user_session("making")
        making = asyncio.create_task(registry.create_agent_for_user("making", "slow", context("making")))
        task = asyncio.create_task(agent.run())
        queued = asyncio.create_task(agent.run())
        await turns(3)
        clock.now += 99.9
        assert (await registry.lifecycle.sweep())["ended"] == []
        clock.now += 0.1
        assert (await registry.lifecycle.sweep())["ended"] == ["empty"]
        gate.open()
        await settled(task, queued, making)
        # Used a moment ago, but old.
        assert (await registry.lifecycle.sweep())["ended"] == ["ada", "making"]


async def test_without_limits_nothing_is_swept_and_no_task_is_owned() -> None:
    clock = Clock()
    async with registry_of(clock, max_session_age=None) as registry:
        await registry.get_user_session("ada")
        clock.now += 1e9
        assert (await registry.lifecycle.sweep())["ended"] == []
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_sweep_reports_errors_and_ends_all_that_are_due() -> None:
    clock = Clock()
    gate = Gate()
    async with registry_of(clock, idle_timeout=1.0, close_timeout=0.02) as registry:
        registry.register("raising", Raising)
        registry.register("hanging", hanging(gate))
        for user, kind in (("ada", "raising"), ("bob", "hanging"), ("eve", "helper")):
            await registry.create_agent_for_user(user, kind, context(user))
        clock.now += 2
        report = await registry.lifecycle.sweep()
        assert report["ended"] == ["ada", "bob", "eve"]
        assert len(report["errors"]) == 2
        assert registry.get_registry_health()["total_user_sessions"] == 0


async def test_the_owned_task_sweeps_and_ends_with_its_sessions() -> None:
    clock = Clock()
    async with registry_of(clock, idle_timeout=0.004) as registry:
        assert asyncio.all_tasks() == {asyncio.current_task()}
        agent: Any = await registry.create_agent_for_user("ada", "helper", context())
        assert len(asyncio.all_tasks()) == 2
        clock.now += 1
        # The task's own pace is the loop's: a quarter of the shortest limit.
        async with asyncio.timeout(60):
            while not agent.closed:  # noqa: ASYNC110  # The sweeping task keeps its own pace.
                await asyncio.sleep(0.001)
        assert agent.closed == 1
        await turns(3)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert live_timers() == []


@pytest.mark.parametrize("how", ["cleanup", "emergency", "sweep", "failed", "cancelled", "aclose"])
async def test_no_task_or_timer_stays_when_the_last_session_went(how: str) -> None:
    clock = Clock()
    registry = registry_of(clock, idle_timeout=1_000.0)
    gate = Gate()
    registry.register("broken", lambda _: 1 / 0)  # type: ignore[arg-type,return-value]
    registry.register("slow", slow(gate))
    for _ in range(2):
        if how == "failed":
            with pytest.raises(ZeroDivisionError):
                await registry.create_agent_for_user("ada", "broken", context())
        elif how == "cancelled":
            task = asyncio.create_task(registry.get_or_create_agent(context(), "slow"))
            await turns(3)
            task.cancel()
            await settled(task)
        else:
            await registry.create_agent_for_user("ada", "helper", context())
            await turns(2)
            assert len(asyncio.all_tasks()) == 2
            clock.now += 2_000
            if how == "cleanup":
                await registry.cleanup_user_session("ada")
            elif how == "emergency":
                await registry.emergency_cleanup_all()
            elif how == "sweep":
                await registry.lifecycle.sweep()
            else:
                await registry.aclose()
                break
        await turns(2)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert live_timers() == []
    await registry.aclose()


@pytest.mark.parametrize("turns_between", range(4))
async def test_a_session_that_comes_as_the_last_one_goes_is_watched(turns_between: int) -> None:
    async with registry_of(Clock(), idle_timeout=1_000.0) as registry:
        for _ in range(3):
            await registry.create_agent_for_user("ada", "helper", context())
            await turns(turns_between)
            await registry.cleanup_user_session("ada")
            await turns(turns_between)
        await registry.create_agent_for_user("ada", "helper", context())
        await turns(5)
        assert len(asyncio.all_tasks()) == 2
        assert len(live_timers()) == 1


async def test_cleanup_agent_resources_by_id_or_type() -> None:
    async with registry_of(Clock()) as registry:
        agents: list[Any] = [await registry.create_agent_for_user("ada", "helper", context()) for _ in range(3)]
        life = registry.lifecycle
        assert await life.cleanup_agent_resources("ada", agents[0].agent_id) is True
        assert [agent.closed for agent in agents] == [1, 0, 0]
        assert await life.cleanup_agent_resources("ada", agents[0].agent_id) is False
        assert await life.cleanup_agent_resources("ada", "helper") is True
        assert [agent.closed for agent in agents] == [1, 0, 1]
        assert await life.cleanup_agent_resources("ada", "nothing") is False
        assert await life.cleanup_agent_resources("bob", agents[1].agent_id) is False
        assert (await life.trigger_cleanup("ada"))["cleaned_agents"] == 1


async def test_monitoring_counts_a_users_own_and_no_more() -> None:
    gate = Gate()
    async with registry_of(Clock(), max_agents_per_user=5) as registry:
        registry.register("busy", busy(gate))
        registry.register("slow", slow(gate))
        for user, data in (("ada", "x" * 100_000), ("bob", "")):
            await registry.create_agent_for_user(user, "helper", context(user, agent_context={"data": [data]}))
        agent = await registry.create_agent_for_user("bob", "busy", context("bob"))
        task = asyncio.create_task(agent.run())
        creating = asyncio.create_task(registry.get_or_create_agent(context("bob", "other"), "slow"))
        await gate.reached()
        ada = await registry.lifecycle.monitor_memory_usage("ada")
        bob = await registry.lifecycle.monitor_memory_usage("bob")
        assert ada["status"] == "healthy"
        assert 100_000 < ada["approximate_bytes"] < 110_000
        # Neither the loop nor the other user is reached through tasks.
        assert 500 < bob["approximate_bytes"] < 20_000
        assert bob["status"] == "healthy"
        assert ada["complete"] is bob["complete"] is True
        everyone = await registry.monitor_all_users()
        assert everyone["total_users"] == 2
        assert everyone["total_agents"] == 3
        assert set(everyone["users"]) == {"ada", "bob"}
        assert everyone["near_limit"] == []
        gate.open()
        await settled(task, creating)
        for n in range(2):
            await registry.create_agent_for_user("bob", "helper", context("bob", f"{n}"))
        assert (await registry.monitor_all_users())["near_limit"] == ["bob"]


async def test_a_sweep_that_cannot_tell_the_time_is_not_silent() -> None:
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))
    broken = False

    def clock() -> float:
        if broken:
            raise OSError("no clock")
        return 0.0

    registry = AgentRegistry(limits=Limits(idle_timeout=0.004), clock=clock)
    await registry.get_user_session("ada")
    broken = True
    async with asyncio.timeout(60):
        while not complaints:  # noqa: ASYNC110  # The sweeping task keeps its own pace.
            await asyncio.sleep(0.001)
    assert isinstance(complaints[0]["exception"], OSError)
    broken = False
    await registry.aclose()
