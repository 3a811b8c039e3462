"""Ending while something is in flight, and callers that are cancelled: the answer to each, and the leftovers."""

from __future__ import annotations

import asyncio
import contextlib
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
from registry.errors import AgentCreationFailed
from tests.registry.kit import (
    Closable,
    ForeignManager,
    Gate,
    Waiting,
    busy,
    closings,
    context,
    hanging,
    registry_of,
    slow,
)
from tests.running import settled, turns

SHORT = Limits(close_timeout=0.02)


ENDS = ["cleanup", "trigger", "emergency", "aclose"]


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("steps", range(5))
@pytest.mark.parametrize("where", ["factory", "shared factory", "dispatcher", "bridge", "run"])
async def test_an_end_answers_what_is_in_flight(how: str, steps: int, where: str) -> None:
    """However far it has come, its first step included: the caller gets SessionClosed, and its task lives on."""
    gate = Gate()
    seen: list[BaseException] = []

    async def dispatcher(user_context: UserExecutionContext, bridge: Any) -> ToolDispatcher:
        if where == "dispatcher":
            await gate.pass_through()
        return ToolDispatcher(user_context, bridge)

    registry = AgentRegistry(None, dispatcher)
    registry.register("helper", slow(gate) if "factory" in where else busy(gate))
    manager = ForeignManager(gate) if where == "bridge" else None

    async def caller() -> str:
        try:
            if where == "run":
                agent = await registry.create_agent_for_user("ada", "helper", context())
                await agent.run()
            elif where == "shared factory":
                await registry.get_or_create_agent(context(), "helper")
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
    await closings(registry)[how]()
    gate.open()
    assert await task == "alive"
    if steps:
        assert [type(error) for error in seen] == [SessionClosed]
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


@pytest.mark.parametrize("own_first", [True, False])
@pytest.mark.parametrize("between", range(4))
async def test_a_create_cancelled_by_both_is_its_callers_cancellation(between: int, *, own_first: bool) -> None:
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


@pytest.mark.parametrize(
    ("how", "count"), [("remove", None), ("resources", None), ("reset", "agents_reset"), ("session", "cleaned_agents")]
)
async def test_an_agent_closed_while_it_runs_answers_agent_closed(how: str, count: str | None) -> None:
    gate = Gate()
    async with registry_of(helper=busy(gate)) as registry:
        agent = await registry.create_agent_for_user("ada", "helper", context())
        task = asyncio.create_task(agent.run())
        await gate.reached()
        answer = await closings(registry)[how]()
        assert answer is True if count is None else answer[count] == 1
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
    caller = asyncio.create_task(closings(registry)[how]())
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


@pytest.mark.parametrize("how", ["cancels itself", "is ended"])
async def test_a_cancellation_that_a_caller_ignored_long_ago_is_not_taken_for_a_new_one(how: str) -> None:
    gate = Gate()

    async def factory(scope: AgentScope) -> BaseAgent:
        await gate.pass_through()
        raise asyncio.CancelledError

    async with registry_of(helper=factory) as registry:

        async def caller() -> None:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            await registry.create_agent_for_user("ada", "helper", context())

        task = asyncio.create_task(caller())
        await turns(1)
        task.cancel()
        await gate.reached()
        if how == "is ended":
            await registry.cleanup_user_session("ada")
        gate.open()
        [error] = await settled(task)
        assert type(error) is (SessionClosed if how == "is ended" else AgentCreationFailed)
        assert task.cancelling() == 1


async def test_who_waits_for_an_activation_gets_the_very_error_of_its_factory() -> None:
    class Detailed(Exception):
        """Cannot be made anew of its arguments."""

        def __init__(self, place: str, reason: str) -> None:
            super().__init__(f"{place}: {reason}")

    raised: list[Detailed] = []

    async def factory(scope: AgentScope) -> BaseAgent:
        await asyncio.sleep(0)
        raised.append(Detailed("disk", "full"))
        raise raised[-1]

    async with registry_of(helper=factory) as registry:
        answers = await settled(
            *(asyncio.create_task(registry.get_or_create_agent(context(), "helper")) for _ in range(2))
        )
        assert [id(answer) for answer in answers] == [id(raised[0])] * 2
        assert len(raised) == 1
        raised.clear()


@pytest.mark.parametrize("of_the_second", [Waiting, Closable, BaseAgent])
async def test_the_end_of_a_second_session_waits_for_the_first_one_s(of_the_second: type[BaseAgent]) -> None:
    gate = Gate()
    async with registry_of(hanging=hanging(gate), second=of_the_second) as registry:
        await registry.create_agent_for_user("ada", "hanging", context())
        first = asyncio.create_task(registry.cleanup_user_session("ada"))
        await gate.reached()
        await registry.create_agent_for_user("ada", "second", context())
        second = asyncio.create_task(registry.cleanup_user_session("ada"))
        await turns(20)
        assert not second.done()
        gate.open()
        assert (await second)["cleaned_agents"] == 1
        assert first.done()
        await first


async def test_an_end_is_joined_also_when_that_of_the_session_before_is_over() -> None:
    older, newer = Gate(), Gate()
    async with registry_of(older=hanging(older), newer=hanging(newer)) as registry:
        ends = []
        for name, gate in (("older", older), ("newer", newer)):
            await registry.create_agent_for_user("ada", name, context())
            ends.append(asyncio.create_task(registry.cleanup_user_session("ada")))
            await gate.reached()
        older.open()
        await ends[0]
        joining = asyncio.create_task(registry.cleanup_user_session("ada"))
        await turns(20)
        assert not joining.done()
        newer.open()
        assert [(await end)["status"] for end in (ends[1], joining)] == ["cleaned", "cleaned"]
