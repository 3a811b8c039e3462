"""UserAgentSession: its report, its adopted agents, and its one bridge."""

from __future__ import annotations

import asyncio
from types import MappingProxyType
from typing import Any

import pytest

from registry import (
    AgentRegistry,
    AgentScope,
    BaseAgent,
    CapacityExceeded,
    ContextBoundaryError,
    EventType,
    InvalidAgent,
    InvalidIdentifier,
    Limits,
    LLMManager,
    Origin,
    SessionClosed,
    ToolDispatcher,
    WebSocketManager,
)
from registry.events.bridge import AgentWebSocketBridge, SilentBridge
from tests.registry.kit import (
    Clock,
    Closable,
    ForeignBridge,
    ForeignManager,
    Gate,
    Waiting,
    busy,
    context,
    registry_of,
    same,
)
from tests.running import settled, turns


def made_by_hand(user_id: str = "ada", made: type[BaseAgent] = Closable, thread_id: str = "main") -> Any:
    own = context(user_id, thread_id, agent_context={"a": [1]})
    return made(AgentScope(own, ToolDispatcher(own, None), SilentBridge(user_id), LLMManager().create_handle(own)))


async def test_a_session_is_single_and_asked_for_by_user() -> None:
    async with AgentRegistry() as registry:
        sessions = await asyncio.gather(*(registry.get_user_session(user) for user in ["ada", "bob"] * 5))
        assert len(set(sessions)) == 2
        assert sessions[0].user_id == "ada"
        assert registry.get_registry_health()["total_user_sessions"] == 2
        assert dict(sessions[0].agents) == {}


async def test_agents_is_a_read_only_view_of_the_newest_of_each_type() -> None:
    async with AgentRegistry() as registry:
        for name in ("a", "b"):
            registry.register(name, BaseAgent)
        session = await registry.get_user_session("ada")
        a1 = await registry.create_agent_for_user("ada", "a", context("ada", "one"))
        a2 = await registry.create_agent_for_user("ada", "a", context("ada", "two"))
        b1 = await registry.create_agent_for_user("ada", "b", context())
        assert session.agents == {"a": a2, "b": b1}
        assert isinstance(session.agents, MappingProxyType)
        with pytest.raises(TypeError):
            session.agents["a"] = a1  # type: ignore[index]
        assert await session.get_agent("a") is a2
        assert await session.get_agent("a", "one") is a1
        assert await session.get_agent("c") is None
        assert session.agent_count == 3


async def test_adoption() -> None:
    async with AgentRegistry() as registry:
        session = await registry.get_user_session("ada")
        agent = made_by_hand()
        await session.register_agent("mine", agent)
        assert same(await registry.get_user_agent("ada", "mine"), agent)
        assert agent.agent_type == "mine"
        other = made_by_hand()
        session.register_agent("mine", other)  # Takes effect without being awaited.
        assert same(session.agents["mine"], other)
        assert registry.get_registry_health()["total_user_agents"] == 2
        assert (await agent.run("x")).agent_type == "mine"
        report = await registry.cleanup_user_session("ada")
        assert report["cleaned_agents"] == 2
        assert (agent.closed, other.closed) == (1, 1)


async def test_what_is_adopted_shares_the_sessions_life() -> None:
    async with AgentRegistry() as registry:
        session = await registry.get_user_session("ada")
        agent = made_by_hand()
        dispatcher, handle, its_context = agent.tool_dispatcher, agent.llm, agent.context
        await session.register_agent("mine", agent)
        connection = (manager := WebSocketManager()).connect("ada")
        await session.set_websocket_manager(manager)
        await agent.run()
        assert [event.type for event in (connection.receive_nowait(), connection.receive_nowait()) if event] == [
            "agent_started",
            "agent_completed",
        ]
        assert agent.bridge is session.bridge
        bridge = agent.bridge
        await registry.cleanup_user_session("ada")
        with pytest.raises(SessionClosed):
            await agent.run()
        with pytest.raises(SessionClosed):
            its_context.agent_context  # noqa: B018
        with pytest.raises(SessionClosed):
            await dispatcher.execute_tool("x", {})
        with pytest.raises(SessionClosed):
            await handle.complete(None)
        with pytest.raises(SessionClosed):
            bridge.emit(EventType.AGENT_THINKING, {}, Origin("main", "run", "helper", ""))


async def test_a_session_adopts_no_agent_of_another_user() -> None:
    class Poses(BaseAgent):
        @property
        def context(self) -> Any:
            return context("ada")

    async with registry_of(helper=Closable) as registry:
        session = await registry.get_user_session("ada")
        bobs = await registry.create_agent_for_user("bob", "helper", context("bob"))
        for foreign in (made_by_hand("bob"), bobs, made_by_hand("bob", Poses), made_by_hand("Ada")):
            with pytest.raises(ContextBoundaryError):
                session.register_agent("helper", foreign)
        assert bobs.closed == 0  # type: ignore[attr-defined]
        assert same(await registry.get_user_agent("bob", "helper"), bobs)
        own = await registry.create_agent_for_user("ada", "helper", context())
        with pytest.raises(ContextBoundaryError, match="one owner"):
            session.register_agent("helper", own)
        await registry.remove_user_agent("ada", "helper")
        with pytest.raises(ContextBoundaryError):
            session.register_agent("helper", own)
        for wrong in (None, object(), BaseAgent):
            with pytest.raises(InvalidAgent):
                session.register_agent("helper", wrong)  # type: ignore[arg-type]
        for name in (None, "", 1):
            with pytest.raises(InvalidIdentifier):
                session.register_agent(name, made_by_hand())  # type: ignore[arg-type]
        assert session.agent_count == 0


async def test_two_sessions_cannot_adopt_one_agent() -> None:
    async with AgentRegistry() as one, AgentRegistry() as two:
        agent = made_by_hand()
        (await one.get_user_session("ada")).register_agent("x", agent)
        with pytest.raises(ContextBoundaryError):
            (await two.get_user_session("ada")).register_agent("x", agent)


async def test_adoption_keeps_the_cap() -> None:
    async with AgentRegistry(limits=Limits(max_agents_per_user=2)) as registry:
        session = await registry.get_user_session("ada")
        first, second = made_by_hand(made=Waiting), made_by_hand()
        for agent in (first, second, made_by_hand()):
            session.register_agent("x", agent)
        assert session.agent_count == 2
        assert first.is_closed
        refused = made_by_hand()
        session.register_agent("y", refused)
        assert second.closed == 1
        with pytest.raises(CapacityExceeded):
            session.register_agent("z", made_by_hand())
        await turns(3)
        assert first.closed == 1


async def test_agents_that_equal_each_other_or_are_falsy_are_told_apart() -> None:
    class Same(Closable):
        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 1

        def __bool__(self) -> bool:
            return False

        def __len__(self) -> int:
            return 0

    async with registry_of(same=Same, limits=Limits(max_agents_per_user=3)) as registry:
        made: list[Any] = [
            await registry.create_agent_for_user("ada", "same", context("ada", f"{n}")) for n in range(3)
        ]
        assert await registry.get_or_create_agent(context("ada", "1"), "same") is made[1]
        assert await registry.remove_user_agent("ada", "same") is True
        assert [agent.closed for agent in made] == [0, 0, 1]
        assert await registry.get_user_agent("ada", "same") is made[1]
        assert await registry.lifecycle.cleanup_agent_resources("ada", made[1].agent_id) is True
        assert [agent.closed for agent in made] == [0, 1, 1]
        newer: Any = [await registry.create_agent_for_user("ada", "same", context("ada", "9")) for _ in range(3)]
        assert [agent.closed for agent in (*made, *newer)] == [0, 1, 1, 1, 0, 0]
        await registry.cleanup_user_session("ada")
        assert [agent.closed for agent in (*made, *newer)] == [1] * 6


async def test_cleanup_all_agents_keeps_the_session_and_its_bridge() -> None:
    async with registry_of(helper=Waiting) as registry:
        agents = [await registry.create_agent_for_user("ada", "helper", context(), WebSocketManager()) for _ in "ab"]
        session = await registry.get_user_session("ada")
        bridge = session.bridge
        assert isinstance(bridge, AgentWebSocketBridge)
        assert await session.cleanup_all_agents() == {"user_id": "ada", "cleaned_agents": 2, "errors": []}
        assert [agent.closed for agent in agents] == [1, 1]  # type: ignore[attr-defined]
        assert await registry.get_user_session("ada") is session
        again = await registry.create_agent_for_user("ada", "helper", context())
        assert again.bridge is bridge is session.bridge
        assert not bridge.closed


async def test_metrics() -> None:
    clock = Clock()
    gate = Gate()
    async with registry_of(helper=BaseAgent, busy=busy(gate), clock=clock) as registry:
        session = await registry.get_user_session("ada")
        clock.now += 5
        await registry.create_agent_for_user("ada", "helper", context())
        agent = await registry.create_agent_for_user("ada", "busy", context(), WebSocketManager())
        task = asyncio.create_task(agent.run())
        await gate.reached()
        clock.now += 2
        assert session.get_metrics() == {
            "user_id": "ada",
            "total_agents": 2,
            "running_agents": 1,
            "agent_types": ["busy", "helper"],
            "has_websocket_bridge": True,
            "in_flight": 0,
            "uptime_seconds": 7.0,
            "idle_seconds": 2.0,
        }
        gate.open()
        await task
        assert session.get_metrics()["idle_seconds"] == 0.0
        assert session.get_metrics()["running_agents"] == 0


async def test_a_stale_session_refuses_everything_and_reaches_nothing_new() -> None:
    async with registry_of(helper=Closable) as registry:
        old = await registry.get_user_session("ada")
        await registry.cleanup_user_session("ada")
        new = await registry.get_user_session("ada")
        agent = await registry.create_agent_for_user("ada", "helper", context())
        assert new is not old
        for call in (
            lambda: old.get_agent("helper"),
            lambda: old.set_websocket_manager(WebSocketManager()),
            lambda: old.set_websocket_manager(None),
            old.cleanup_all_agents,
        ):
            with pytest.raises(SessionClosed, match="session of user 'ada' has ended"):
                await call()
        with pytest.raises(SessionClosed):
            old.register_agent("helper", made_by_hand())
        assert dict(old.agents) == {}
        assert old.get_metrics()["total_agents"] == 0
        assert same(await registry.get_user_agent("ada", "helper"), agent)
        assert not agent.is_closed
        assert old.is_closed
        assert "closed" in repr(old)


# ---------------------------------------------------------------------------------------------------------- the bridge


async def test_without_a_manager_events_go_nowhere_and_nothing_fails() -> None:
    async with registry_of(helper=BaseAgent) as registry:
        agent = await registry.create_agent_for_user("ada", "helper", context())
        assert (await agent.run("x")).output["text"] == "x"
        await agent.think("hm")
        assert (await registry.get_user_session("ada")).get_metrics()["has_websocket_bridge"] is False


@pytest.mark.parametrize("is_async", [True, False])
async def test_the_bridge_is_made_once_at_the_first_create_that_brings_a_manager(*, is_async: bool) -> None:
    asked: list[str] = []

    class Manager:
        def create_bridge(self, user_context: Any) -> Any:
            asked.append(user_context.user_id)
            bridge = ForeignBridge()

            async def later() -> Any:
                await asyncio.sleep(0)
                return bridge

            return later() if is_async else bridge

    async with registry_of(helper=BaseAgent) as registry:
        before = await registry.create_agent_for_user("ada", "helper", context())
        silent = before.bridge
        manager = Manager()
        agents = await asyncio.gather(
            *(registry.create_agent_for_user("ada", "helper", context(), manager) for _ in range(5))
        )
        await registry.create_agent_for_user("ada", "helper", context(), manager)
        assert asked == ["ada"]
        assert {agent.bridge for agent in [*agents, before]} == {agents[0].bridge}
        assert agents[0].bridge is not silent
        assert isinstance(silent, SilentBridge)
        assert silent.closed


async def test_racing_creates_wait_for_one_slow_bridge() -> None:
    gate = Gate()
    manager = ForeignManager(gate)
    async with registry_of(helper=BaseAgent) as registry:
        tasks = [
            asyncio.create_task(registry.create_agent_for_user("ada", "helper", context(), manager)) for _ in range(5)
        ]
        await gate.reached()
        tasks[0].cancel()
        await turns(3)
        plain = await registry.create_agent_for_user("ada", "helper", context())
        gate.open()
        answers = await settled(*tasks)
        assert isinstance(answers[0], asyncio.CancelledError)
        assert gate.arrived == 1
        assert len(manager.made) == 1
        assert {id(agent.bridge) for agent in [*answers[1:], plain]} == {id(manager.made[0])}


async def test_a_bridge_that_cannot_be_made_is_tried_again() -> None:
    class Flaky(ForeignManager):
        calls = 0

        async def create_bridge(self, user_context: Any) -> Any:
            self.calls += 1
            await asyncio.sleep(0)
            if self.calls == 1:
                raise OSError("no route")
            return await super().create_bridge(user_context)

    async with registry_of(helper=BaseAgent) as registry:
        manager = Flaky()
        with pytest.raises(OSError, match="no route"):
            await registry.create_agent_for_user("ada", "helper", context(), manager)
        assert len(registry._directory) == 0
        agent = await registry.create_agent_for_user("ada", "helper", context(), manager)
        assert agent.bridge is manager.made[0]


def closed_bridge() -> Any:
    bridge = WebSocketManager().create_bridge(context())
    bridge.close()
    return bridge


@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize("how", ["create", "set"])
@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: WebSocketManager().create_bridge(context("bob")), ContextBoundaryError),
        (lambda: ForeignBridge("bob"), ContextBoundaryError),
        (lambda: None, TypeError),
        (object, TypeError),
        (closed_bridge, SessionClosed),
    ],
    ids=["bob's", "bob's foreign", "none", "object", "closed"],
)
async def test_what_is_no_bridge_of_this_user_is_refused(make: Any, error: Any, how: str, *, is_async: bool) -> None:
    made = make()

    class Manager:
        def create_bridge(self, _: Any) -> Any:
            async def later() -> Any:
                return made

            return later() if is_async else made

    async with registry_of(helper=BaseAgent) as registry:
        if how == "create":
            with pytest.raises(error):
                await registry.create_agent_for_user("ada", "helper", context(), Manager())
            assert len(registry._directory) == 0
        else:
            session = await registry.get_user_session("ada")
            old = session.bridge
            with pytest.raises(error):
                await session.set_websocket_manager(Manager())
            assert session.bridge is old
        # Somebody else's is not ours to close.
        if isinstance(made, ForeignBridge):
            assert made.closed == 0


async def test_what_is_no_manager_is_refused() -> None:
    async with registry_of(helper=BaseAgent) as registry:
        with pytest.raises(TypeError, match="create_bridge"):
            await registry.create_agent_for_user("ada", "helper", context(), object())  # type: ignore[arg-type]
        session = await registry.get_user_session("bob")
        with pytest.raises(TypeError, match="create_bridge"):
            await session.set_websocket_manager(object())  # type: ignore[arg-type]


async def test_setting_a_manager_moves_live_agents_to_the_new_bridge() -> None:
    one, two = WebSocketManager(), WebSocketManager()
    async with registry_of(helper=BaseAgent) as registry:
        first, second = one.connect("ada"), two.connect("ada")
        agent = await registry.create_agent_for_user("ada", "helper", context(), one)
        session = await registry.get_user_session("ada")
        await agent.think("to one")
        old = agent.bridge
        await session.set_websocket_manager(two)
        await agent.think("to two")
        assert agent.bridge is session.bridge is not old
        assert [event.payload["thought"] for event in (first.receive_nowait(), second.receive_nowait()) if event] == [
            "to one",
            "to two",
        ]
        assert first.receive_nowait() is None
        with pytest.raises(SessionClosed):
            old.emit(EventType.AGENT_THINKING, {}, Origin("main", "run", "helper", ""))
        assert first.closed_reason == "session_ended"
        await session.set_websocket_manager(None)
        await agent.think("to nobody")
        assert second.receive_nowait() is None
        assert session.get_metrics()["has_websocket_bridge"] is False


async def test_setting_the_same_manager_again_keeps_the_clients_and_the_numbers() -> None:
    manager = WebSocketManager()
    async with registry_of(helper=BaseAgent) as registry:
        client = manager.connect("ada")
        agent = await registry.create_agent_for_user("ada", "helper", context(), manager)
        session = await registry.get_user_session("ada")
        for n in range(3):
            await agent.think(f"{n}")
            await session.set_websocket_manager(manager)
        assert client.closed_reason is None
        assert [(await client.receive()).seq for _ in range(3)] == [1, 2, 3]


async def test_setting_a_manager_that_fails_keeps_the_old_bridge() -> None:
    class Broken:
        async def create_bridge(self, _: Any) -> Any:
            raise OSError("no route")

    manager = WebSocketManager()
    async with registry_of(helper=BaseAgent) as registry:
        client = manager.connect("ada")
        agent = await registry.create_agent_for_user("ada", "helper", context(), manager)
        session = await registry.get_user_session("ada")
        with pytest.raises(OSError, match="no route"):
            await session.set_websocket_manager(Broken())
        with pytest.raises(ContextBoundaryError):
            await session.set_websocket_manager(manager, context("bob"))
        await agent.think("still here")
        assert client.pending == 1


async def test_setting_does_not_wait_for_a_bridge_that_is_being_made_and_stays() -> None:
    gate = Gate()
    slow_one, quick = ForeignManager(gate), ForeignManager()
    async with registry_of(helper=BaseAgent) as registry:
        session = await registry.get_user_session("ada")
        create = asyncio.create_task(registry.create_agent_for_user("ada", "helper", context(), slow_one))
        await gate.reached()
        await session.set_websocket_manager(quick, context(run_id="mine"))
        assert session.bridge is quick.made[0]
        gate.open()
        agent = await create
        await turns(4)
        assert agent.bridge is quick.made[0]
        assert slow_one.made[0].closed == 1


async def test_a_set_bridge_stays_when_the_create_that_waited_fails() -> None:
    gate = Gate()
    first, second = ForeignManager(), ForeignManager()

    async def broken(_: AgentScope) -> BaseAgent:
        await gate.pass_through()
        raise ZeroDivisionError

    async with registry_of(broken=broken) as registry:
        session = await registry.get_user_session("ada")
        create = asyncio.create_task(registry.create_agent_for_user("ada", "broken", context(), first))
        await gate.reached()
        await session.set_websocket_manager(second)
        gate.open()
        await settled(create)
        await turns(4)
        assert session.bridge is second.made[0]
        assert [bridge.closed for bridge in (*first.made, *second.made)] == [1, 0]


async def test_a_bridge_stays_for_the_create_that_succeeds_beside_the_one_that_made_it() -> None:
    gate = Gate()
    manager = ForeignManager()

    async def broken(_: AgentScope) -> BaseAgent:
        await gate.pass_through()
        raise ZeroDivisionError

    for good_first in (True, False):
        async with registry_of(broken=broken, slow=BaseAgent) as registry:
            session = await registry.get_user_session("ada")
            create = asyncio.create_task(registry.create_agent_for_user("ada", "broken", context(), manager))
            await turns(4)
            if good_first:
                agent = await registry.create_agent_for_user("ada", "slow", context(), manager)
            gate.open()
            await settled(create)
            if not good_first:
                agent = await registry.create_agent_for_user("ada", "slow", context(), manager)
            await turns(4)
            assert [agent.bridge, session.bridge] == [manager.made[-1]] * 2
            assert manager.made[-1].closed == 0
            assert len(manager.made) == (1 if good_first else 3)


class AsyncClose(ForeignBridge):
    async def close(self) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        self.closed += 1


class Aclose(ForeignBridge):
    close = None  # type: ignore[assignment]

    async def aclose(self) -> None:
        self.closed += 1


class CloseFails(ForeignBridge):
    def close(self) -> None:
        super().close()
        raise OSError("broken pipe")


class NoClose(ForeignBridge):
    close = None  # type: ignore[assignment]


@pytest.mark.parametrize("kind", [ForeignBridge, AsyncClose, Aclose, CloseFails, NoClose])
async def test_a_foreign_bridge_is_closed_once_with_its_session(kind: type[ForeignBridge]) -> None:
    manager = ForeignManager(make=kind)
    async with registry_of(helper=Closable) as registry:
        agent = await registry.create_agent_for_user("ada", "helper", context(), manager)
        await agent.run()
        assert [name for name, _ in manager.made[0].sent] == ["agent_started", "agent_completed"]
        report = await registry.cleanup_user_session("ada")
        assert manager.made[0].closed == (kind is not NoClose)
        assert len(report["errors"]) == (kind is CloseFails)
        assert all("broken pipe" in error for error in report["errors"])
        with pytest.raises(SessionClosed):
            await agent.think("too late")
        assert len(manager.made[0].sent) == 2


async def test_a_foreign_bridge_is_closed_after_the_agents_and_even_when_they_used_up_the_time() -> None:
    order: list[str] = []

    class Bridge(AsyncClose):
        async def close(self) -> None:  # type: ignore[override]
            await super().close()
            order.append("bridge")

    class Slow(BaseAgent):
        async def cleanup(self) -> None:
            await self.think("goodbye")
            order.append("agent")
            await asyncio.Event().wait()

    manager = ForeignManager(make=Bridge)
    async with registry_of(helper=Slow, limits=Limits(close_timeout=0.2)) as registry:
        await registry.create_agent_for_user("ada", "helper", context(), manager)
        report = await registry.cleanup_user_session("ada")
        assert order == ["agent", "bridge"]
        assert manager.made[0].sent == [("agent_thinking", {"thought": "goodbye"})]
        assert len(report["errors"]) == 1
        assert manager.made[0].closed == 1


async def test_a_foreign_bridge_whose_close_hangs_is_cut_off() -> None:
    gate = Gate()

    class Hangs(ForeignBridge):
        async def close(self) -> None:  # type: ignore[override]
            await gate.pass_through()

    class Stubborn(ForeignBridge):
        async def close(self) -> None:  # type: ignore[override]
            await gate.pass_stubbornly()

    for kind in (Hangs, Stubborn):
        async with registry_of(helper=Closable, limits=Limits(close_timeout=0.02)) as registry:
            await registry.create_agent_for_user("ada", "helper", context(), ForeignManager(make=kind))
            report = await registry.cleanup_user_session("ada")
            assert ["close() did not end in time" in error for error in report["errors"]] == [True]
            assert registry.get_registry_health()["abandoned_cleanups"] == (kind is Stubborn)
    gate.open()
    await turns(5)


async def test_a_falsy_bridge_is_a_bridge() -> None:
    class Empty(ForeignBridge):
        def __len__(self) -> int:
            return 0

    manager = ForeignManager(make=Empty)
    async with registry_of(helper=BaseAgent) as registry:
        agent = await registry.create_agent_for_user("ada", "helper", context(), manager)
        await agent.run()
        assert len(manager.made[0].sent) == 2
        assert type(agent.bridge) is not AgentWebSocketBridge
