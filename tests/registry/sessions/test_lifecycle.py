"""Age, idleness and deadlines to the second, the one sweeping task, and the reports of monitoring."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from registry import AgentRegistry, AgentRequest, BaseAgent, Limits
from tests.registry.kit import (
    Clock,
    Closable,
    ForeignBridge,
    ForeignManager,
    Gate,
    closings,
    context,
    hanging,
    registry_of,
    slow,
)
from tests.registry.sessions.virtual import virtually
from tests.running import live_timers, settled, turns


def clocked(clock: Clock, **limits: Any) -> AgentRegistry:
    registry = AgentRegistry(limits=Limits(**limits), clock=clock)
    registry.register("helper", Closable)
    return registry


async def test_without_limits_nothing_is_swept_and_no_task_is_owned() -> None:
    clock = Clock()
    async with clocked(clock, max_session_age=None) as registry:
        await registry.get_user_session("ada")
        clock.now += 1e9
        assert (await registry.lifecycle.sweep())["ended"] == []
        assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("how", ["cleanup", "emergency", "sweep", "failed", "cancelled", "aclose"])
async def test_no_task_or_timer_stays_when_the_last_session_went(how: str) -> None:
    clock = Clock()
    registry = clocked(clock, idle_timeout=1_000.0)
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
    async with clocked(Clock(), idle_timeout=1_000.0) as registry:
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
    async with clocked(Clock()) as registry:
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


@virtually
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
    await asyncio.sleep(0.0015)
    assert isinstance(complaints[0]["exception"], OSError)
    broken = False
    await registry.aclose()


def now() -> float:
    return asyncio.get_running_loop().time()


class Clocked(BaseAgent):
    """Notes when its cleanup begins and how it ends, and never ends it by itself."""

    began: float | None = None

    async def cleanup(self) -> None:
        self.began = now()
        await asyncio.Event().wait()


def late(agent: BaseAgent, how: str = "; cancelled", seconds: int = 8) -> str:
    return f"{agent.agent_type} ({agent.agent_id}): cleanup did not end within {seconds} s{how}"


@pytest.mark.parametrize("how", ["remove", "reset", "cleanup", "session", "emergency", "aclose"])
@virtually
async def test_a_cleanup_that_hangs_is_cut_off_at_the_deadline(how: str) -> None:
    registry = AgentRegistry(limits=Limits(close_timeout=8.0))
    registry.register("helper", Clocked)
    agent = await registry.create_agent_for_user("ada", "helper", context())
    report = await closings(registry)[how]()
    assert now() == 8.0
    user = "user 'ada': " if how in ("emergency", "aclose") else ""
    assert report is True if how == "remove" else report["errors"] == [user + late(agent)]
    await registry.aclose()


@pytest.mark.parametrize("ends_with", [None, ValueError("at last"), asyncio.CancelledError()], ids=repr)
@virtually
async def test_what_ignores_its_cancellation_is_abandoned_at_the_deadline_and_counted_until_it_ends(
    ends_with: BaseException | None,
) -> None:
    """Nobody waits for it any more: neither its error nor its cancellation reaches the loop's handler."""
    gate = Gate()

    class Stubborn(BaseAgent):
        async def cleanup(self) -> None:
            await gate.pass_stubbornly()
            if ends_with is not None:
                raise ends_with

    async with registry_of(helper=Stubborn, limits=Limits(close_timeout=8.0)) as registry:
        agent = await registry.create_agent_for_user("ada", "helper", context())
        report = await registry.cleanup_user_session("ada")
        assert (now(), gate.cancelled) == (8.0, 1)
        assert report["errors"] == [late(agent, " and ignores cancellation; abandoned")]
        assert registry.get_registry_health()["abandoned_cleanups"] == 1
        assert registry.get_registry_health()["status"] == "warning"
        gate.open()
        await asyncio.sleep(1)
        assert registry.get_registry_health()["abandoned_cleanups"] == 0
        assert registry.get_registry_health()["status"] == "healthy"


@virtually
async def test_agents_whose_cleanups_hang_share_the_time_newest_first() -> None:
    async with registry_of(helper=Clocked, limits=Limits(close_timeout=8.0)) as registry:
        agents: list[Any] = [await registry.create_agent_for_user("ada", "helper", context()) for _ in range(4)]
        report = await registry.cleanup_user_session("ada")
        # The newest has a fourth of the time for itself; each still has all that is left, beside the others.
        assert [agent.began for agent in agents] == [6.0, 4.0, 2.0, 0.0]
        assert now() == 8.0
        assert report == {
            "status": "cleaned",
            "user_id": "ada",
            "cleaned_agents": 4,
            "errors": [late(agent) for agent in reversed(agents)],
        }


@virtually
async def test_a_run_that_ignores_its_cancellation_leaves_half_of_the_time_to_the_cleanups() -> None:
    gate = Gate()

    class Busy(Clocked):
        async def execute(self, request: AgentRequest) -> Any:
            await gate.pass_stubbornly()

    async with registry_of(busy=Busy, limits=Limits(close_timeout=8.0)) as registry:
        agent: Any = await registry.create_agent_for_user("ada", "busy", context())
        caller = asyncio.create_task(agent.run())
        await gate.reached()
        report = await registry.cleanup_user_session("ada")
        assert (agent.began, now()) == (4.0, 8.0)
        name = f"busy ({agent.agent_id})"
        assert report["errors"] == [late(agent), f"{name}: a run ignores its cancellation; abandoned"]
        [refusal] = await settled(caller)
        assert str(refusal) == (
            "the session of user 'ada' ended while it was running, and its run ignores cancellation (busy)"
        )
        # Cancelled when the session began to end, and once more at the deadline.
        assert gate.cancelled == 2
        assert registry.get_registry_health()["abandoned_cleanups"] == 1
        gate.open()


@pytest.mark.parametrize("shared", [True, False])
@virtually
async def test_what_is_being_made_leaves_half_of_the_time_to_the_agents_and_an_eighth_to_a_foreign_bridge(
    *, shared: bool
) -> None:
    gate = Gate()
    closing: list[float] = []

    class Bridge(ForeignBridge):
        async def close(self) -> None:  # type: ignore[override]
            closing.append(now())
            await asyncio.Event().wait()

    registry = AgentRegistry(limits=Limits(close_timeout=8.0))
    registry.register("helper", Clocked)
    registry.register("slow", slow(gate, stubborn=True))
    agent: Any = await registry.create_agent_for_user("ada", "helper", context(), ForeignManager(make=Bridge))
    making = asyncio.create_task(
        registry.get_or_create_agent(context(), "slow")
        if shared
        else registry.create_agent_for_user("ada", "slow", context())
    )
    await gate.reached()
    report = await registry.cleanup_user_session("ada")
    assert agent.began == 4.0
    assert closing == [7.0]
    assert now() == 8.0
    assert report["errors"][0] == late(agent)
    assert report["errors"][-1] == "something that was being made ignores its cancellation; abandoned"
    assert registry.get_registry_health()["abandoned_cleanups"] == 1
    gate.open()
    [refusal] = await settled(making)
    assert str(refusal) == "the session of user 'ada' ended while this was in flight"
    await turns(2)
    health = registry.get_registry_health()
    assert (health["abandoned_cleanups"], health["total_user_agents"]) == (0, 0)
    await registry.aclose()


@virtually
async def test_an_end_waits_for_every_closing_that_was_begun_before() -> None:
    gates = [Gate(), Gate()]
    async with AgentRegistry() as registry:
        agents: list[Any] = []
        for n, gate in enumerate(gates):
            registry.register(f"helper{n}", hanging(gate))
            agents.append(await registry.create_agent_for_user("ada", f"helper{n}", context()))
        removals = [asyncio.create_task(registry.remove_user_agent("ada", f"helper{n}")) for n in (0, 1)]
        for gate in gates:
            await gate.reached()
        gates[0].open()
        await removals[0]
        end = asyncio.create_task(registry.cleanup_user_session("ada"))
        await asyncio.sleep(1)
        assert not end.done()
        gates[1].open()
        assert (await end)["errors"] == []
        assert await removals[1] is True
        assert now() == 1.0


@virtually
async def test_the_sweeper_looks_four_times_within_the_shortest_limit() -> None:
    loop = asyncio.get_running_loop()
    limits = Limits(idle_timeout=10.0, max_session_age=1_000.0)
    async with registry_of(helper=Closable, limits=limits, clock=loop.time) as registry:
        await registry.get_user_session("first")  # The sweeping begins, every 2.5 s.
        await asyncio.sleep(1)
        agent: Any = await registry.create_agent_for_user("ada", "helper", context())
        await asyncio.sleep(11.4)
        assert agent.closed == 0  # Idle for 10 s and more, but not looked at since.
        await asyncio.sleep(0.2)
        assert agent.closed == 1


@virtually
async def test_a_session_is_due_when_it_is_just_as_old_as_it_may_be() -> None:
    loop = asyncio.get_running_loop()
    for limits in (Limits(max_session_age=240.0), Limits(max_session_age=None, idle_timeout=240.0)):
        async with AgentRegistry(limits=limits, clock=loop.time) as registry:
            begun = now()
            session = await registry.get_user_session("ada")
            await asyncio.sleep(239)
            assert not session.is_closed
            await asyncio.sleep(begun + 240 - now())
            await turns(3)
            assert session.is_closed
