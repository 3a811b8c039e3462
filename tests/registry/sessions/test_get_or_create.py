"""get_or_create_agent: one live agent for (user, type, thread), however many callers race, fail or are cancelled."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from registry import AgentRegistry, AgentScope, BaseAgent, PermissionDenied, SessionClosed
from tests.registry.kit import Closable, Gate, context, freed_at_once, keeping, registry_of, slow
from tests.running import settled, turns


async def test_one_agent_for_user_type_and_thread() -> None:
    async with AgentRegistry() as registry:
        for name in ("a", "b"):
            registry.register(name, BaseAgent)
        keys = [(user, name, thread) for user in ("ada", "bob") for name in ("a", "b") for thread in ("s", "t")]
        made = {key: await registry.get_or_create_agent(context(key[0], key[2]), key[1]) for key in keys}
        assert len(set(made.values())) == 8
        for (user, name, thread), agent in made.items():
            assert await registry.get_or_create_agent(context(user, thread), name) is agent
        assert registry.get_registry_health()["total_user_agents"] == 8


@pytest.mark.parametrize("callers", [2, 50])
async def test_racing_callers_share_one_activation(callers: int) -> None:
    gate = Gate()
    async with registry_of(helper=slow(gate)) as registry:
        tasks = [asyncio.create_task(registry.get_or_create_agent(context(), "helper")) for _ in range(callers)]
        await gate.reached()
        await turns(3)
        tasks.append(asyncio.create_task(registry.get_or_create_agent(context(), "helper")))
        await turns(3)
        gate.open()
        agents = set(await settled(*tasks))
        assert len(agents) == 1
        assert gate.arrived == 1
        assert registry.get_registry_health()["total_user_agents"] == 1


async def test_the_first_callers_context_stays_with_the_agent() -> None:
    async with registry_of(helper=BaseAgent) as registry:
        first = await registry.get_or_create_agent(context(run_id="one", agent_context={"a": 1}), "helper")
        again = await registry.get_or_create_agent(context(run_id="two", agent_context={"a": 2}), "helper")
        assert again is first
        assert first.context.run_id == "one"
        assert first.context.agent_context == {"a": 1}


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


async def test_a_hit_is_what_create_made() -> None:
    async with registry_of(helper=BaseAgent) as registry:
        await registry.create_agent_for_user("ada", "helper", context())
        newest = await registry.create_agent_for_user("ada", "helper", context())
        assert await registry.get_or_create_agent(context(), "helper") is newest
        await registry.remove_user_agent("ada", "helper")
        older = await registry.get_or_create_agent(context(), "helper")
        assert older is not newest
        assert registry.get_registry_health()["total_user_agents"] == 1


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


async def test_a_cancelled_caller_does_not_cancel_the_others() -> None:
    gate = Gate()
    async with registry_of(helper=slow(gate)) as registry:
        tasks = [asyncio.create_task(registry.get_or_create_agent(context(), "helper")) for _ in range(4)]
        await gate.reached()
        tasks[0].cancel()
        tasks[2].cancel()
        await turns(3)
        assert gate.cancelled == 0
        gate.open()
        answers = await settled(*tasks)
        assert isinstance(answers[0], asyncio.CancelledError)
        assert isinstance(answers[2], asyncio.CancelledError)
        assert answers[1] is answers[3]
        assert isinstance(answers[1], Closable)


@pytest.mark.parametrize("before_first_step", [True, False])
async def test_when_the_last_waiter_is_cancelled_nothing_is_left_one_turn_later(*, before_first_step: bool) -> None:
    gate = Gate()
    async with registry_of(helper=slow(gate)) as registry:
        # Both sessions' tasks: the sweeping one must go as well.
        tasks = [asyncio.create_task(registry.get_or_create_agent(context(), "helper")) for _ in range(2)]
        if before_first_step:
            # The callers wait; the activation's task has not begun.
            await turns(1)
            assert gate.arrived == 0
        else:
            await gate.reached()
        for task in tasks:
            task.cancel()
        answers = await settled(*tasks)
        assert all(isinstance(answer, asyncio.CancelledError) for answer in answers)
        await turns(1)
        assert len(registry._directory) == 0
        await turns(1)
        assert not registry._runtime.tasks
        assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("later", range(6))
async def test_a_new_caller_that_comes_meanwhile_starts_anew(later: int) -> None:
    gate = Gate()
    async with registry_of(helper=slow(gate)) as registry:
        first = asyncio.create_task(registry.get_or_create_agent(context(), "helper"))
        await gate.reached()
        first.cancel()
        await turns(later)
        second = asyncio.create_task(registry.get_or_create_agent(context(), "helper"))
        await turns(5)
        gate.open()
        answers = await settled(first, second)
        # Who comes before the cancellation has been delivered joins the first; nobody gets its CancelledError.
        assert isinstance(answers[0], asyncio.CancelledError)
        assert isinstance(answers[1], Closable)
        assert await registry.get_user_agent("ada", "helper") is answers[1]
        assert registry.get_registry_health()["total_user_agents"] == 1
        assert registry.get_registry_health()["total_user_sessions"] == 1


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


async def test_a_failed_activation_reaches_every_caller_and_is_forgotten() -> None:
    gate = Gate()
    calls = 0

    async def flaky(scope: AgentScope) -> BaseAgent:
        nonlocal calls
        calls += 1
        await gate.pass_through()
        if calls == 1:
            raise ValueError("the first time")
        return BaseAgent(scope)

    async with registry_of(helper=flaky) as registry:
        tasks = [asyncio.create_task(registry.get_or_create_agent(context(), "helper")) for _ in range(3)]
        await gate.reached()
        gate.open()
        assert [str(answer) for answer in await settled(*tasks)] == ["the first time"] * 3
        assert len(registry._directory) == 0
        agent = await registry.get_or_create_agent(context(), "helper")
        assert calls == 2
        assert await registry.get_user_agent("ada", "helper") is agent


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


async def test_a_factory_that_cancels_itself_is_an_error_not_a_cancellation() -> None:
    from registry import AgentCreationFailed

    async def factory(_: AgentScope) -> BaseAgent:
        raise asyncio.CancelledError

    async with registry_of(helper=factory) as registry:
        with pytest.raises(AgentCreationFailed, match="cancelled from within"):
            await registry.get_or_create_agent(context(), "helper")
        with pytest.raises(AgentCreationFailed, match="cancelled from within"):
            await registry.create_agent_for_user("ada", "helper", context())
        assert len(registry._directory) == 0


@pytest.mark.parametrize("how", ["cleanup", "emergency", "aclose", "sweep"])
async def test_a_session_that_ends_answers_the_waiters(how: str) -> None:
    gate = Gate()
    registry = AgentRegistry()
    registry.register("helper", slow(gate))
    tasks = [asyncio.create_task(registry.get_or_create_agent(context(), "helper")) for _ in range(3)]
    await gate.reached()
    if how == "sweep":
        # A create in flight keeps its session.
        await registry.lifecycle.sweep()
        assert gate.cancelled == 0
    if how == "cleanup":
        await registry.cleanup_user_session("ada")
    elif how == "emergency":
        await registry.emergency_cleanup_all()
    else:
        await registry.aclose()
    assert gate.cancelled == 1
    assert [type(answer) for answer in await settled(*tasks)] == [SessionClosed] * 3
    await registry.aclose()


async def test_activations_are_freed_at_once() -> None:
    async with AgentRegistry() as registry:
        gates: list[Gate] = []

        def factory(scope: AgentScope) -> Any:
            return slow(gates[-1])(scope)

        registry.register("helper", factory)

        async def story(how: str) -> None:
            gate = Gate()
            gates.append(gate)
            tasks = [asyncio.create_task(registry.get_or_create_agent(context(), "helper")) for _ in range(2)]
            await gate.reached()
            if how == "cancelled":
                for task in tasks:
                    task.cancel()
            elif how == "ended":
                await registry.cleanup_user_session("ada")
            else:
                gate.open()
            await asyncio.wait(tasks)
            for task in tasks:
                if not task.cancelled():
                    task.exception()
            await registry.cleanup_user_session("ada")
            await turns(3)
            gates.clear()

        for how in ("cancelled", "ended", "made"):
            await story(how)
            with freed_at_once():
                await story(how)
