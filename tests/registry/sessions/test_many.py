"""Many users at once: work over all of them goes in slices, and nobody is judged by the time that the others took."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from registry import AgentRegistry, BaseAgent, Limits, SessionClosed, WebSocketManager
from registry._sessions import driver
from tests.registry.kit import (
    Clock,
    Closable,
    ForeignManager,
    Gate,
    Raising,
    RaisingLate,
    Waiting,
    busy,
    context,
    freed_at_once,
    hanging,
    registry_of,
    slow,
)
from tests.registry.sessions.virtual import virtually
from tests.running import live_timers, settled, turns

MANY = 100


@pytest.fixture(autouse=True)
def slices_of_sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine so slow that every slice is over after its first items."""
    for name in ("_SLICE", "_LONGEST"):
        monkeypatch.setattr(driver, name, -1.0)


def users(count: int = MANY) -> Iterator[str]:
    return (f"user-{n:03}" for n in range(count))


async def filled(registry: AgentRegistry, kind: type[BaseAgent] = Closable, count: int = MANY) -> list[Any]:
    registry.register("helper", kind, replace=True)
    return [await registry.create_agent_for_user(user, "helper", context(user)) for user in users(count)]


class Meter:
    """Counts the turns that the loop takes while a call is awaited."""

    def __init__(self) -> None:
        self.turns = 0

    async def during(self, call: Any) -> Any:
        async def count() -> None:
            while True:
                await asyncio.sleep(0)
                self.turns += 1

        counting = asyncio.create_task(count())
        try:
            return await call
        finally:
            counting.cancel()
            await settled(counting)


# ------------------------------------------------------------------------------------------------------------- slices


@pytest.mark.parametrize("what", ["monitor", "sweep", "sweep, due", "emergency", "aclose", "awaiting"])
async def test_a_call_over_all_users_lets_the_loop_go_on(what: str) -> None:
    clock = Clock()
    registry = AgentRegistry(limits=Limits(idle_timeout=1e6, max_session_age=None), clock=clock)
    agents = await filled(registry, Waiting if what == "awaiting" else Closable)
    if what == "sweep, due":
        clock.now += 1e7
    calls: dict[str, Any] = {
        "monitor": registry.monitor_all_users,
        "sweep": registry.lifecycle.sweep,
        "sweep, due": registry.lifecycle.sweep,
        "emergency": registry.emergency_cleanup_all,
        "aclose": registry.aclose,
        "awaiting": registry.emergency_cleanup_all,
    }
    meter = Meter()
    answer = await meter.during(calls[what]())
    # 100 users in slices of 16 and fewer.
    assert meter.turns >= 5
    if what == "monitor":
        assert list(answer["users"]) == list(users())
        assert (answer["total_users"], answer["total_agents"]) == (MANY, MANY)
    elif what.startswith("sweep"):
        assert answer == {"ended": list(users()) if "due" in what else [], "errors": []}
    else:
        assert (answer["users_cleaned"], answer["agents_cleaned"], answer["errors"]) == (MANY, MANY, [])
    assert [agent.closed for agent in agents] == [int(what not in ("monitor", "sweep"))] * MANY
    await registry.aclose()


async def test_a_few_users_are_ended_in_one_slice() -> None:
    async with AgentRegistry() as registry:
        await filled(registry, count=15)
        meter = Meter()
        assert (await meter.during(registry.emergency_cleanup_all()))["users_cleaned"] == 15
        assert meter.turns == 0


async def test_who_comes_or_goes_during_monitoring_may_be_missing_and_is_not_kept_alive() -> None:
    async with AgentRegistry() as registry:
        await filled(registry)
        monitoring = asyncio.create_task(registry.monitor_all_users())
        await turns(2)
        with freed_at_once():
            last: Any = await registry.create_agent_for_user("user-099", "helper", context("user-099"))
            known = weakref.ref(last)
            del last
            await registry.cleanup_user_session("user-099")
            assert known() is None
        await registry.create_agent_for_user("new", "helper", context("new"))
        answer = await monitoring
        assert not monitoring.cancelled()
        assert list(answer["users"]) == list(users())[:-1]
        assert answer["total_agents"] == sum(user["total_agents"] for user in answer["users"].values()) == MANY - 1


async def test_users_near_a_limit_are_sorted_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    # Slices of some twenty users each.
    monkeypatch.setattr(driver, "_AT_LEAST", 500)
    async with registry_of(helper=BaseAgent, limits=Limits(max_agents_per_user=1)) as registry:
        names = [f"{n * 37 % 109:03}" for n in range(109)]
        for name in names:
            await registry.create_agent_for_user(name, "helper", context(name))
        assert (await registry.monitor_all_users())["near_limit"] == sorted(names)


@pytest.mark.parametrize("how", ["emergency", "aclose"])
@pytest.mark.parametrize("kind", [Closable, Waiting])
async def test_a_cancelled_caller_does_not_stop_the_end_of_all(how: str, kind: type[BaseAgent]) -> None:
    registry = AgentRegistry()
    agents = await filled(registry, kind)
    ending = asyncio.create_task(registry.aclose() if how == "aclose" else registry.emergency_cleanup_all())
    await turns(2)
    assert 0 < registry.get_registry_health()["total_user_sessions"] < MANY
    ending.cancel()
    await settled(ending)
    assert ending.cancelled()
    await turns(150)
    assert [agent.closed for agent in agents] == [1] * MANY
    assert registry.get_registry_health()["total_user_sessions"] == 0
    await registry.aclose()


async def test_the_end_of_all_takes_the_newest_first_and_tells_every_error_in_that_order() -> None:
    async with AgentRegistry() as registry:
        closed: list[str] = []

        class Notes(BaseAgent):
            async def cleanup(self) -> None:
                closed.append(self.context.user_id)

        kinds = {"note": Notes, "raise": Raising, "late": RaisingLate}
        for kind, recipe in kinds.items():
            registry.register(kind, recipe)
        failing = []
        for n, user in enumerate(users()):
            kind = ("note", "raise", "late")[n % 3]
            failing += [user] * (kind != "note")
            await registry.create_agent_for_user(user, kind, context(user))
        report = await registry.emergency_cleanup_all()
        assert closed == [user for user in reversed(list(users())) if user not in failing]
        assert [error.split("'")[1] for error in report["errors"]] == failing[::-1]
        assert (report["users_cleaned"], report["agents_cleaned"]) == (MANY, MANY)


async def test_a_session_works_until_it_is_its_turn_and_what_is_in_use_then_is_not_swept() -> None:
    clock = Clock()
    gate = Gate()
    async with AgentRegistry(limits=Limits(idle_timeout=10.0), clock=clock) as registry:
        await filled(registry)
        registry.register("busy", busy(gate))
        agent: Any = await registry.create_agent_for_user("last", "busy", context("last"))
        clock.now += 20
        sweeping = asyncio.create_task(registry.lifecycle.sweep())
        await turns(2)
        running = asyncio.create_task(agent.run())
        await gate.reached()
        assert (await sweeping)["ended"] == list(users())
        gate.open()
        await running
        assert agent.closed == 0


@pytest.mark.parametrize("how", ["one", "all"])
async def test_a_large_session_is_weighed_in_slices_and_nothing_of_it_outlives_its_end(how: str) -> None:
    async with registry_of(helper=BaseAgent) as registry:

        class Thing:
            pass

        async def story() -> list[weakref.ref[Any]]:
            data = {"things": [Thing() for _ in range(5_000)]}
            agent = await registry.create_agent_for_user("ada", "helper", context(agent_context=data))
            parts = (agent.context.agent_context["things"][-1], await registry.get_user_session("ada"), agent)
            return [weakref.ref(part) for part in parts]

        async def weigh() -> Any:
            if how == "one":
                return await registry.lifecycle.monitor_memory_usage("ada")
            return (await registry.monitor_all_users())["users"]["ada"]

        parts = await story()
        meter = Meter()
        whole = await meter.during(weigh())
        assert meter.turns >= 4
        assert whole["complete"] is True
        assert whole["approximate_bytes"] > 5_000 * 48
        weighing = asyncio.create_task(weigh())
        await turns(3)
        assert not weighing.done()
        gc.disable()
        try:
            await registry.cleanup_user_session("ada")
            assert [part() for part in parts] == [None] * 3
        finally:
            gc.enable()
        part = await weighing
        assert part["complete"] is False
        assert part["approximate_bytes"] < whole["approximate_bytes"]


async def test_weighings_that_are_cancelled_keep_nothing_and_weigh_no_manager() -> None:
    manager: Any = ForeignManager()
    manager.shared = bytearray(10_000_000)
    gate = Gate()
    async with registry_of(helper=BaseAgent, slow=slow(gate)) as registry:
        # Sessions are swept from the first on.
        await registry.create_agent_for_user("bob", "helper", context("bob"))

        async def story(begun_turns: int) -> None:
            creating = asyncio.create_task(registry.create_agent_for_user("ada", "slow", context(), manager))
            await turns(5)
            manager.made.pop().things = [[n] for n in range(5_000)]
            await registry.get_user_session("ada")
            whole = await registry.lifecycle.monitor_memory_usage("ada")
            assert 5_000 * 64 < whole["approximate_bytes"] < 2_000_000
            weighings = [asyncio.create_task(registry.lifecycle.monitor_memory_usage("ada")) for _ in range(3)]
            await turns(begun_turns)
            for weighing in weighings:
                weighing.cancel()
            await asyncio.wait(weighings)
            await registry.cleanup_user_session("ada")
            assert isinstance(creating.exception(), SessionClosed)

        await story(1)
        for begun_turns in range(3, 15, 3):
            with freed_at_once():
                await story(begun_turns)


async def test_an_object_that_refers_to_very_much_is_counted_and_not_looked_into() -> None:
    async with registry_of(helper=BaseAgent) as registry:
        agent = await registry.create_agent_for_user("ada", "helper", context(agent_context={"figures": []}))
        agent.context.agent_context["figures"].extend([0.5] * 300_000)
        meter = Meter()
        report = await meter.during(registry.lifecycle.monitor_memory_usage("ada"))
        assert report["complete"] is False
        assert report["approximate_bytes"] > 8 * 300_000
        assert meter.turns == 0


async def test_the_manager_closes_many_channels_in_slices() -> None:
    manager = WebSocketManager()
    clients = [manager.connect(f"user-{n}") for n in range(1_600)]
    assert manager.connection_count() == len(manager.users) == 1_600
    meter = Meter()
    await meter.during(manager.aclose())
    assert meter.turns >= 2
    assert {client.closed_reason for client in clients} == {"manager_closed"}
    assert (manager.connection_count(), manager.users) == (0, frozenset())


# ---------------------------------------------------------------------------------------------------------- deadlines


def now() -> float:
    return asyncio.get_running_loop().time()


def hold(seconds: float) -> None:
    """Hold the virtual loop for so long."""
    loop: Any = asyncio.get_running_loop()
    loop._seconds.now += seconds


class Stepwise(BaseAgent):
    """A cleanup of four seconds, in four steps."""

    ended = False

    async def cleanup(self) -> None:
        for _ in range(4):
            await asyncio.sleep(1)
        self.ended = True


@pytest.mark.parametrize("held_at", [0.5, 2.5, 3.75])
@virtually
async def test_the_time_for_which_the_loop_is_held_is_nobody_s_delay(held_at: float) -> None:
    async with AgentRegistry(limits=Limits(close_timeout=8.0)) as registry:
        (agent,) = await filled(registry, Stepwise, 1)
        asyncio.get_running_loop().call_later(held_at, hold, 100.0)
        assert (await registry.cleanup_user_session("user-000"))["errors"] == []
        assert agent.ended


@virtually
async def test_a_cleanup_that_hangs_is_cut_off_also_where_the_loop_is_held() -> None:
    async with AgentRegistry(limits=Limits(close_timeout=8.0)) as registry:
        await filled(registry, hanging(Gate()), 1)
        asyncio.get_running_loop().call_later(2.0, hold, 100.0)
        report = await registry.cleanup_user_session("user-000")
        assert len(report["errors"]) == 1
        # Its own eight seconds, less the time that fell between two looks at the clock.
        assert 107.5 < now() <= 108.0


@virtually
async def test_what_ends_within_some_turns_of_the_deadline_is_not_late() -> None:
    class JustInTime(BaseAgent):
        async def cleanup(self) -> None:
            await asyncio.sleep(8)
            await turns(4)

    async with AgentRegistry(limits=Limits(close_timeout=8.0)) as registry:
        await filled(registry, JustInTime, 1)
        assert (await registry.cleanup_user_session("user-000"))["errors"] == []
        assert now() == 8.0


@virtually
async def test_who_hangs_delays_no_one_and_each_is_cut_off_at_its_own_deadline() -> None:
    async with registry_of(hanging=hanging(Gate()), waiting=Waiting, limits=Limits(close_timeout=8.0)) as registry:
        for n, user in enumerate(users()):
            await registry.create_agent_for_user(user, "hanging" if n % 2 else "waiting", context(user))
        ending = asyncio.create_task(registry.emergency_cleanup_all())
        await asyncio.sleep(0.5)
        assert registry.get_registry_health()["ending_sessions"] == MANY / 2
        report = await ending
        assert len(report["errors"]) == MANY / 2
        assert report["agents_cleaned"] == MANY
        assert now() == 8.0


# ------------------------------------------------------------------------------------------------------- costs


@virtually
async def test_few_tasks_and_one_timer_serve_many_cleanups() -> None:
    most: list[int] = []
    open_at_once: list[int] = []

    class Counts(BaseAgent):
        async def cleanup(self) -> None:
            await asyncio.sleep(0)
            most.append(len(asyncio.all_tasks()))
            open_at_once.append(registry.get_registry_health()["ending_sessions"])

    async with AgentRegistry(limits=Limits(max_session_age=None)) as registry:
        await filled(registry, Counts, 400)
        report = await registry.emergency_cleanup_all()
        assert report["agents_cleaned"] == len(most) == 400
        assert max(most) < 100
        assert max(open_at_once) < 200
        gate = Gate()
        await filled(registry, hanging(gate), 400)
        ending = asyncio.create_task(registry.emergency_cleanup_all())
        while gate.arrived < 400:  # noqa: ASYNC110  # Each turn lets some of them begin.
            await asyncio.sleep(0)
        assert len(live_timers()) == 1
        gate.open()
        assert (await ending)["errors"] == []


async def test_no_one_s_context_variables_reach_another_s_cleanup_or_outlive_it() -> None:
    said: contextvars.ContextVar[Any] = contextvars.ContextVar("said", default=None)
    heard: list[Any] = []

    def set_resource(variable: contextvars.ContextVar[Any]) -> None:
        variable.set("resource")

    class Secret:
        pass

    class Speaks(BaseAgent):
        async def cleanup(self) -> None:
            heard.append(said.get())
            said.set(self.context.user_id)
            self.context.session_resource("on_end", lambda: said, set_resource)
            await asyncio.sleep(0)

    gate = Gate()
    async with AgentRegistry() as registry:
        await filled(registry, Speaks)
        await registry.emergency_cleanup_all()
        assert heard == [None] * MANY
        registry.register("hanging", hanging(gate))

        async def as_eve() -> weakref.ref[Any]:
            secret = Secret()
            said.set(secret)
            await registry.create_agent_for_user("eve", "helper", context("eve"))
            await registry.cleanup_user_session("eve")
            assert heard[-1] is secret
            heard.clear()
            return weakref.ref(secret)

        async def as_ada() -> None:
            await registry.create_agent_for_user("ada", "hanging", context())
            await registry.cleanup_user_session("ada")

        eve = asyncio.create_task(as_eve())
        await turns(2)
        # Begun while eve's closing is driven, and going on long after it.
        ada = asyncio.create_task(as_ada())
        secret = await eve
        del eve
        await turns(3)
        gc.collect()
        assert secret() is None
        gate.open()
        await ada
