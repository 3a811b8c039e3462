"""Ending while something is in flight, and callers that are cancelled: the answer to each, and the leftovers."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from registry import (
    AgentClosed,
    AgentRegistry,
    AgentRequest,
    AgentScope,
    BaseAgent,
    CleanupReport,
    Limits,
    SessionClosed,
    ToolDispatcher,
    UserExecutionContext,
)
from tests.registry.kit import (
    Closable,
    ForeignManager,
    Gate,
    busy,
    context,
    freed_at_once,
    hanging,
    keeping,
    registry_of,
    slow,
)
from tests.running import settled, turns

SHORT = Limits(close_timeout=0.02)


def end(registry: AgentRegistry, how: str) -> Coroutine[Any, Any, Any]:
    return {
        "cleanup": lambda: registry.cleanup_user_session("ada"),
        "trigger": lambda: registry.lifecycle.trigger_cleanup("ada"),
        "emergency": registry.emergency_cleanup_all,
        "aclose": registry.aclose,
    }[how]()


ENDS = ["cleanup", "trigger", "emergency", "aclose"]


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("steps", range(5))
@pytest.mark.parametrize("where", ["factory", "dispatcher", "bridge", "run"])
async def test_an_end_answers_what_is_in_flight(how: str, steps: int, where: str) -> None:
    """However far it has come, its first step included: the caller gets SessionClosed, and its task lives on."""
    gate = Gate()
    seen: list[BaseException] = []

    async def dispatcher(user_context: UserExecutionContext, bridge: Any) -> ToolDispatcher:
        if where == "dispatcher":
            await gate.pass_through()
        return ToolDispatcher(user_context, bridge)

    registry = AgentRegistry(None, dispatcher)
    registry.register("helper", slow(gate) if where == "factory" else busy(gate))
    manager = ForeignManager(gate) if where == "bridge" else None

    async def caller() -> str:
        try:
            if where == "run":
                agent = await registry.create_agent_for_user("ada", "helper", context())
                await agent.run()
            else:
                await registry.create_agent_for_user("ada", "helper", context(), manager)
        except BaseException as error:
            seen.append(error)
        await asyncio.sleep(0)  # Not cancelled any more.
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        return "alive"

    task = asyncio.create_task(caller())
    await turns(steps)
    if steps == 0:
        # Nothing had begun: with the registry open again afterwards it is an ordinary create.
        gate.open()
    elif not gate.arrived and where != "run":
        await gate.reached()
    await end(registry, how)
    gate.open()
    assert await task == "alive"
    if steps:
        assert [type(error) for error in seen] == [SessionClosed]
    await registry.aclose()


@pytest.mark.parametrize("how", ENDS)
async def test_a_run_that_was_asked_for_in_the_same_turn(how: str) -> None:
    """The run's task has not had its first step when the session ends."""
    gate = Gate(is_open=True)
    registry = AgentRegistry()
    registry.register("helper", busy(gate))
    agent = await registry.create_agent_for_user("ada", "helper", context())
    caller = asyncio.create_task(agent.run("x"))
    queued = asyncio.create_task(agent.run("y"))
    await turns(1)
    assert gate.arrived == 0
    await end(registry, how)
    assert [type(answer) for answer in await settled(caller, queued)] == [SessionClosed] * 2
    assert gate.arrived == 0
    assert agent.closed == 1  # type: ignore[attr-defined]
    await registry.aclose()


@pytest.mark.parametrize("what", ["returns", "raises"])
async def test_a_factory_that_swallows_its_cancellation(what: str) -> None:
    """The end waits for it within the deadline; the late agent is closed; the caller gets SessionClosed."""
    made: list[Closable] = []

    async def factory(scope: AgentScope) -> BaseAgent:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
        if what == "raises":
            raise ValueError("something else")
        made.append(Closable(scope))
        return made[-1]

    for shared in (False, True):
        registry = AgentRegistry()
        registry.register("helper", factory)
        create: Coroutine[Any, Any, BaseAgent]
        if shared:
            create = registry.get_or_create_agent(context(), "helper")
        else:
            create = registry.create_agent_for_user("ada", "helper", context())
        task = asyncio.create_task(create)
        await turns(4)
        report = await registry.cleanup_user_session("ada")
        assert report["errors"] == []
        assert [type(answer) for answer in await settled(task)] == [SessionClosed]
        assert all(agent.closed == 1 and agent.is_closed for agent in made)
        assert len(made) == (0 if what == "raises" else 1 + shared)
        await registry.aclose()


async def test_an_activation_that_ignores_its_cancellation_is_abandoned_and_its_callers_answered() -> None:
    gate = Gate()
    made: list[Closable] = []
    async with registry_of(helper=slow(gate, keeping(made), stubborn=True), limits=SHORT) as registry:
        task = asyncio.create_task(registry.get_or_create_agent(context(), "helper"))
        await gate.reached()
        report = await registry.cleanup_user_session("ada")
        assert any("ignores its cancellation" in error for error in report["errors"])
        assert [type(answer) for answer in await settled(task)] == [SessionClosed]
        health = registry.get_registry_health()
        assert (health["abandoned_cleanups"], health["status"]) == (1, "warning")
        gate.open()
        await turns(5)
        assert [agent.closed for agent in made] == [1]
        assert registry.get_registry_health()["abandoned_cleanups"] == 0


async def test_a_create_that_ignores_its_cancellation_is_counted_until_it_ends() -> None:
    """It runs in its caller's task, which is answered when its own factory lets it."""
    gate = Gate()
    async with registry_of(helper=slow(gate, stubborn=True), limits=SHORT) as registry:
        task = asyncio.create_task(registry.create_agent_for_user("ada", "helper", context()))
        await gate.reached()
        report = await registry.cleanup_user_session("ada")
        assert any("ignores its cancellation" in error for error in report["errors"])
        assert registry.get_registry_health()["abandoned_cleanups"] == 1
        gate.open()
        assert [type(answer) for answer in await settled(task)] == [SessionClosed]
        await turns(2)
        assert registry.get_registry_health()["abandoned_cleanups"] == 0
        assert registry.get_registry_health()["total_user_agents"] == 0


async def test_a_create_cancelled_by_its_caller_leaves_nothing() -> None:
    gate = Gate()
    async with registry_of(helper=slow(gate)) as registry:
        for where in ("factory", "bridge"):
            manager = ForeignManager(gate) if where == "bridge" else None
            task = asyncio.create_task(registry.create_agent_for_user("ada", "helper", context(), manager))
            await turns(4)
            task.cancel()
            assert isinstance((await settled(task))[0], asyncio.CancelledError)
            await turns(2)
            assert len(registry._directory) == 0
            assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("own_first", [True, False])
@pytest.mark.parametrize("between", range(4))
async def test_a_create_cancelled_by_both_is_its_callers_cancellation(between: int, *, own_first: bool) -> None:
    async def main() -> None:
        gate = Gate()
        async with registry_of(helper=slow(gate)) as registry:
            task = asyncio.create_task(registry.create_agent_for_user("ada", "helper", context()))
            await gate.reached()
            if own_first:
                task.cancel()
                await turns(between)
                await registry.cleanup_user_session("ada")
            else:
                ending = asyncio.create_task(registry.cleanup_user_session("ada"))
                await turns(2)
                cancelled = task.cancel()
                await ending
                if not cancelled:
                    return
            answer = (await settled(task))[0]
            # Only one that had been answered already may have escaped the caller's own cancellation.
            assert isinstance(answer, asyncio.CancelledError if own_first else (asyncio.CancelledError, SessionClosed))
            assert len(registry._directory) == 0

    await main()


async def test_a_time_limit_around_a_create_is_still_a_timeout() -> None:
    gate = Gate()
    async with registry_of(helper=slow(gate)) as registry:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await registry.create_agent_for_user("ada", "helper", context())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await registry.get_or_create_agent(context(), "helper")
        gate.open()
        agent = await registry.create_agent_for_user("ada", "helper", context())
        registry.register("busy", busy(Gate()))
        running = await registry.create_agent_for_user("ada", "busy", context())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await running.run()
        assert not running.is_running
        assert not agent.is_closed


async def test_a_create_in_a_task_group_does_not_cancel_its_siblings() -> None:
    gate = Gate()
    sibling = Gate()
    async with registry_of(helper=slow(gate)) as registry:

        async def creates() -> None:
            with pytest.raises(SessionClosed):
                await registry.create_agent_for_user("ada", "helper", context())

        async with asyncio.TaskGroup() as group:
            group.create_task(creates())
            group.create_task(sibling.pass_through())
            await gate.reached()
            await registry.cleanup_user_session("ada")
            sibling.open()
        assert sibling.cancelled == 0


async def test_runs_that_swallow_their_cancellation_still_answer_session_closed() -> None:
    reached = asyncio.Event()

    class Swallows(BaseAgent):
        async def execute(self, request: AgentRequest) -> Any:
            reached.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if request.text == "raises":
                    raise ValueError("something else") from None
            return "as if nothing had happened"

    async with registry_of(helper=Swallows) as registry:
        for text in ("returns", "raises"):
            agent = await registry.create_agent_for_user("ada", "helper", context())
            task = asyncio.create_task(agent.run(text))
            await reached.wait()
            reached.clear()
            await registry.cleanup_user_session("ada")
            assert [type(answer) for answer in await settled(task)] == [SessionClosed]


@pytest.mark.parametrize("steps", range(1, 5))
async def test_what_is_made_when_all_who_waited_were_cancelled_is_thrown_away(steps: int) -> None:
    """Also where the agent was made before any of them had its answer: then nobody would ever get it."""
    made: list[BaseAgent] = []

    async def factory(scope: AgentScope) -> BaseAgent:
        await turns(2)
        made.append(Closable(scope))
        return made[-1]

    async with registry_of(helper=factory) as registry:
        callers = [asyncio.create_task(registry.get_or_create_agent(context(), "helper")) for _ in range(2)]
        await turns(steps)
        # With 4 turns the agent has been made, and is not yet where it would be found.
        assert len(made) == (steps == 4)
        for caller in callers:
            caller.cancel()
        assert [type(answer) for answer in await settled(*callers)] == [asyncio.CancelledError] * 2
        await turns(10)
        assert await registry.get_user_agent("ada", "helper") is None
        assert registry.get_registry_health()["total_user_sessions"] == 0
        assert [agent.closed for agent in made] == [1] * len(made)  # type: ignore[attr-defined]


@pytest.mark.parametrize("waits", range(3))
@pytest.mark.parametrize("steps", range(6))
async def test_an_activation_that_obeys_is_not_reported_as_abandoned(steps: int, waits: int) -> None:
    """Whether it is cancelled before its first step, in its factory or when it has just ended."""

    async def later(registry: AgentRegistry, steps: int) -> CleanupReport:
        await turns(steps)
        return await registry.cleanup_user_session("ada")

    made: list[BaseAgent] = []

    async def factory(scope: AgentScope) -> BaseAgent:
        await turns(waits)
        made.append(Closable(scope))
        return made[-1]

    async with registry_of(helper=factory) as registry:
        task = asyncio.create_task(registry.get_or_create_agent(context(), "helper"))
        end = asyncio.create_task(later(registry, steps))
        report = await end
        assert report["errors"] == []
        assert registry.get_registry_health()["abandoned_cleanups"] == 0
        assert [agent.closed for agent in made] == [1] * len(made)  # type: ignore[attr-defined]
        await settled(task)


async def test_a_run_that_ignores_its_cancellation_is_abandoned_and_its_caller_answered() -> None:
    gate = Gate()
    async with registry_of(helper=busy(gate, stubborn=True), limits=SHORT) as registry:
        agent = await registry.create_agent_for_user("ada", "helper", context())
        task = asyncio.create_task(agent.run())
        left = asyncio.create_task(agent.run())
        await gate.reached()
        report = await registry.cleanup_user_session("ada")
        assert any("ignores its cancellation" in error for error in report["errors"])
        assert [type(answer) for answer in await settled(task, left)] == [SessionClosed] * 2
        assert agent.closed == 1  # type: ignore[attr-defined]
        assert registry.get_registry_health()["abandoned_cleanups"] == 1
        gate.open()
        await turns(10)
        assert registry.get_registry_health()["abandoned_cleanups"] == 0


async def test_a_cancelled_caller_is_let_go_when_its_run_is_abandoned() -> None:
    gate = Gate()
    async with registry_of(helper=busy(gate, stubborn=True), limits=SHORT) as registry:
        agent = await registry.create_agent_for_user("ada", "helper", context())
        task = asyncio.create_task(agent.run())
        await gate.reached()
        task.cancel()
        await turns(3)
        assert not task.done()  # It waits for its run, as a task group would.
        await registry.cleanup_user_session("ada")
        await turns(2)
        assert task.cancelled()
        gate.open()
        await turns(10)


async def test_a_cancelled_caller_cancels_its_own_run_only() -> None:
    gate = Gate()
    async with registry_of(helper=busy(gate)) as registry:
        agent = await registry.create_agent_for_user("ada", "helper", context())
        tasks = [asyncio.create_task(agent.run(f"{n}")) for n in range(3)]
        await gate.reached()
        tasks[0].cancel()
        tasks[1].cancel()
        await settled(*tasks[:2])
        assert [task.cancelled() for task in tasks[:2]] == [True, True]
        assert agent.is_running
        gate.open()
        assert (await tasks[2]).output == "2"
        assert not agent.is_running


@pytest.mark.parametrize("how", ["remove", "reset", "session", "resources"])
async def test_an_agent_closed_while_it_runs_answers_agent_closed(how: str) -> None:
    gate = Gate()
    async with registry_of(helper=busy(gate)) as registry:
        agent = await registry.create_agent_for_user("ada", "helper", context())
        task = asyncio.create_task(agent.run())
        await gate.reached()
        if how == "remove":
            assert await registry.remove_user_agent("ada", "helper") is True
        elif how == "reset":
            assert (await registry.reset_user_agents("ada"))["agents_reset"] == 1
        elif how == "session":
            session = await registry.get_user_session("ada")
            assert (await session.cleanup_all_agents())["cleaned_agents"] == 1
        else:
            assert await registry.lifecycle.cleanup_agent_resources("ada", agent.agent_id) is True
        assert [type(answer) for answer in await settled(task)] == [AgentClosed]
        assert agent.closed == 1  # type: ignore[attr-defined]
        with pytest.raises(AgentClosed):
            await agent.run()
        assert registry.get_registry_health()["total_user_sessions"] == 1


@pytest.mark.parametrize("how", ["cleanup", "reset", "remove", "aclose"])
async def test_cancelling_who_closes_does_not_stop_the_closing(how: str) -> None:
    gate = Gate()
    registry = AgentRegistry()
    registry.register("helper", hanging(gate))
    agents: list[Any] = [await registry.create_agent_for_user("ada", "helper", context()) for _ in range(2)]
    calls = {
        "cleanup": lambda: registry.cleanup_user_session("ada"),
        "reset": lambda: registry.reset_user_agents("ada"),
        "remove": lambda: registry.remove_user_agent("ada", "helper"),
        "aclose": registry.aclose,
    }
    caller = asyncio.create_task(calls[how]())
    await gate.reached()
    caller.cancel()
    await settled(caller)
    assert caller.cancelled()
    assert gate.cancelled == 0
    gate.open()
    await turns(10)
    await registry.aclose()
    assert [agent.closed for agent in agents] == [1, 1]
    assert registry.get_registry_health()["abandoned_cleanups"] == 0


async def test_a_run_that_ends_its_own_session_is_cancelled_not_stuck() -> None:
    async with AgentRegistry() as registry:

        class Leaves(BaseAgent):
            async def execute(self, request: AgentRequest) -> Any:
                await registry.cleanup_user_session("ada")

        class Closes(BaseAgent):
            async def execute(self, request: AgentRequest) -> Any:
                await registry.remove_user_agent("ada", "closes")

        async def factory(_: AgentScope) -> BaseAgent:
            await registry.cleanup_user_session("ada")
            raise AssertionError("unreachable")

        registry.register("leaves", Leaves)
        registry.register("closes", Closes)
        registry.register("factory", factory)
        agent = await registry.create_agent_for_user("ada", "closes", context())
        with pytest.raises(AgentClosed):
            await agent.run()
        agent = await registry.create_agent_for_user("ada", "leaves", context())
        with pytest.raises(SessionClosed):
            await agent.run()
        with pytest.raises(SessionClosed):
            await registry.create_agent_for_user("ada", "factory", context())
        with pytest.raises(SessionClosed):
            await registry.get_or_create_agent(context(), "factory")
        await turns(5)
        assert len(registry._directory) == 0


async def test_what_was_cancelled_is_freed_at_once() -> None:
    async with AgentRegistry() as registry:
        gate = Gate()
        registry.register("slow", slow(gate))
        registry.register("busy", busy(gate))

        async def story() -> None:
            for ended in (False, True):
                agent = await registry.create_agent_for_user("ada", "busy", context())
                tasks: list[asyncio.Task[Any]] = [
                    asyncio.create_task(agent.run()),
                    asyncio.create_task(agent.run()),
                    asyncio.create_task(registry.create_agent_for_user("ada", "slow", context())),
                    asyncio.create_task(registry.get_or_create_agent(context(), "slow")),
                    asyncio.create_task(registry.create_agent_for_user("ada", "slow", context(), ForeignManager(gate))),
                ]
                await turns(4)
                if not ended:
                    for task in tasks:
                        task.cancel()
                    await asyncio.wait(tasks)
                await registry.cleanup_user_session("ada")
                await asyncio.wait(tasks)
                for task in tasks:
                    if not task.cancelled():
                        assert type(task.exception()) is SessionClosed
                await turns(3)

        await story()
        with freed_at_once():
            await story()


async def test_a_swallowed_cancellation_is_freed_at_once() -> None:
    async def factory(scope: AgentScope) -> BaseAgent:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return Closable(scope)
        raise AssertionError("unreachable")

    async with registry_of(helper=factory) as registry:

        async def story() -> None:
            tasks: list[asyncio.Task[Any]] = [
                asyncio.create_task(registry.create_agent_for_user("ada", "helper", context())),
                asyncio.create_task(registry.get_or_create_agent(context(), "helper")),
            ]
            await turns(4)
            await registry.cleanup_user_session("ada")
            await asyncio.wait(tasks)
            assert [type(task.exception()) for task in tasks] == [SessionClosed] * 2

        await story()
        await turns(3)
        with freed_at_once():
            await story()
            await turns(3)
