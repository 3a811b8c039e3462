"""A manager that a later call brings: its clients get the events from then on, and no event is lost or sent twice."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from registry import (
    AgentRegistry,
    AgentScope,
    BaseAgent,
    Connection,
    EventType,
    Origin,
    SessionClosed,
    WebSocketManager,
)
from registry.events.bridge import SilentBridge
from tests.registry.kit import ForeignManager, Gate, context, received, registry_of, same
from tests.running import settled, turns

CALLS = ("create", "get_or_create", "set")


async def bring(registry: AgentRegistry, how: str, manager: Any, agent_type: str = "helper") -> None:
    if how == "create":
        await registry.create_agent_for_user("ada", agent_type, context(), manager)
    elif how == "get_or_create":
        await registry.get_or_create_agent(context(), agent_type, manager)
    else:
        await (await registry.get_user_session("ada")).set_websocket_manager(manager)


def thoughts(client: Connection) -> list[str]:
    return [event.payload["thought"] for event in received(client)]


@pytest.mark.parametrize("how", CALLS)
async def test_events_go_to_the_later_manager_s_clients(how: str) -> None:
    one, two = WebSocketManager(), WebSocketManager()
    async with registry_of(helper=BaseAgent) as registry:
        first, second = one.connect("ada"), two.connect("ada")
        agent = await registry.create_agent_for_user("ada", "helper", context(), one)
        old = agent.bridge
        await agent.think("before")
        await bring(registry, how, two)
        await agent.think("after")
        with pytest.raises(SessionClosed):
            old.emit(EventType.AGENT_THINKING, {}, Origin("main", "run", "helper", ""))
        assert (thoughts(first), thoughts(second)) == (["before"], ["after"])
        assert first.closed_reason == "session_ended"
        assert second.closed_reason is None
        assert one.users == frozenset()
        session = await registry.get_user_session("ada")
        await session.set_websocket_manager(None)
        await agent.think("to nobody")
        assert thoughts(second) == []
        assert session.get_metrics()["has_websocket_bridge"] is False


@pytest.mark.parametrize("how", CALLS)
async def test_the_same_manager_again_keeps_clients_and_numbers_and_only_setting_makes_a_new_bridge(how: str) -> None:
    ours, foreign = WebSocketManager(), ForeignManager()
    for manager in (ours, foreign):
        async with registry_of(helper=BaseAgent) as registry:
            client = ours.connect("ada")
            agent = await registry.create_agent_for_user("ada", "helper", context(), manager)
            bridge = agent.bridge
            for n in range(3):
                await agent.think(f"{n}")
                await bring(registry, how, manager)
            assert same(agent.bridge, bridge) == (how != "set")
            if manager is ours:
                assert [event.seq for event in received(client)] == [1, 2, 3]
            assert client.closed_reason is None
    assert len(foreign.made) == (4 if how == "set" else 1)


async def test_the_bridge_of_a_manager_s_first_get_or_create_hears_the_factory() -> None:
    manager = WebSocketManager()
    client = manager.connect("ada")

    async def factory(scope: AgentScope) -> BaseAgent:
        agent = BaseAgent(scope)
        await agent.think("made")
        return agent

    async with registry_of(helper=factory) as registry:
        agents = await asyncio.gather(*(registry.get_or_create_agent(context(), "helper", manager) for _ in range(3)))
        assert len({id(agent) for agent in agents}) == 1
        assert thoughts(client) == ["made"]


async def test_a_client_that_comes_back_after_each_close_hears_every_event_once() -> None:
    managers = [WebSocketManager() for _ in range(3)]
    heard: list[str] = []
    told: list[str] = []

    async def client(manager: WebSocketManager) -> None:
        """One that knows this manager only and comes back to it for ever."""
        while True:
            connection = manager.connect("ada")
            with suppress(StopAsyncIteration):
                while True:
                    heard.append((await connection.receive()).payload["thought"])

    async with registry_of(helper=BaseAgent, speaker=BaseAgent) as registry:
        clients = [asyncio.ensure_future(client(manager)) for manager in managers]
        await turns(2)
        agent = await registry.create_agent_for_user("ada", "speaker", context(), managers[0])

        async def speak() -> None:
            for number in range(300):
                told.append(f"{number}")
                await agent.think(told[-1])
                await asyncio.sleep(0)

        speaking = asyncio.ensure_future(speak())
        for number in itertools.count():
            # Clients that were closed have come back by then; so long an event waits for them in no channel.
            await turns(4)
            if speaking.done():
                break
            await bring(registry, CALLS[number % 3], managers[number % 3])
            await bring(registry, CALLS[(number + 1) % 3], managers[(number + 1) % 3])
            await registry.remove_user_agent("ada", "helper")
        await speaking
        await turns(4)
        assert heard == told == [f"{number}" for number in range(300)]
        for task in clients:
            task.cancel()
        await settled(*clients)


@asynccontextmanager
async def racing(
    registry: AgentRegistry, managers: list[Any], how: list[str], fails: set[int]
) -> AsyncIterator[tuple[list[asyncio.Task[None]], list[Gate]]]:
    """Calls in this order, each of which ends when its gate opens."""
    gates = [Gate() for _ in managers]
    for number, gate in enumerate(gates):

        async def factory(scope: AgentScope, gate: Gate = gate, number: int = number) -> BaseAgent:
            await gate.pass_through()
            if number in fails:
                raise ZeroDivisionError
            return BaseAgent(scope)

        registry.register(f"{number}", factory)
    tasks = []
    for number, manager in enumerate(managers):
        tasks.append(asyncio.ensure_future(bring(registry, how[number], manager, f"{number}")))
        await gates[number].reached()
    yield tasks, gates
    await settled(*tasks)


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("brought", ["ab", "aba", "abc", "aab", "baa"])
async def test_of_calls_at_the_same_time_the_last_that_succeeds_decides(brought: str, *, is_first: bool) -> None:
    """Whatever the order in which they end, and whichever of them fail."""

    async def one(order: tuple[int, ...], fails: set[int], how: list[str]) -> None:
        managers = {name: ForeignManager() for name in "abc"}
        async with registry_of(speaker=BaseAgent) as registry:
            speaker = await registry.create_agent_for_user("ada", "speaker", context())
            if not is_first:
                await bring(registry, "set", managers["a"])
            emitted = 0
            async with racing(registry, [managers[name] for name in brought], how, fails) as (tasks, gates):
                for number in order:
                    gates[number].open()
                    await settled(tasks[number])
                    await speaker.think(f"{emitted}")
                    emitted += 1
            good = [name for number, name in enumerate(brought) if number not in fails]
            expected = managers[good[-1]] if good else None if is_first else managers["a"]
            await turns(6)
            story = (brought, order, fails, how)
            bridges = [bridge for manager in managers.values() for bridge in manager.made]
            if expected is None:
                assert type(speaker.bridge) is SilentBridge, story
            else:
                assert any(same(bridge, speaker.bridge) for bridge in expected.made), story
            for bridge in bridges:
                assert bridge.closed == (0 if same(bridge, speaker.bridge) else 1), story
            heard = [sent["thought"] for bridge in bridges for _, sent in bridge.sent]
            assert len(heard) == len(set(heard)), story
            # Where no bridge is set, nobody hears: that is so until the first that is to stay.
            assert is_first or len(heard) == emitted, story
            session = await registry.get_user_session("ada")
            assert session._offers is None
            await registry.cleanup_user_session("ada")
            assert [bridge.closed for bridge in bridges] == [1] * len(bridges), story

    calls = itertools.cycle((["create"] * 3, ["get_or_create", "create", "get_or_create"]))
    numbers = range(len(brought))
    for order in itertools.permutations(numbers):
        for count in range(len(brought) + 1):
            for fails in itertools.combinations(numbers, count):
                await one(order, set(fails), next(calls))


async def test_a_cancelled_call_leaves_the_bridge_that_was_there() -> None:
    gate = Gate()
    one, slow = WebSocketManager(), ForeignManager(gate)
    async with registry_of(helper=BaseAgent) as registry:
        agent = await registry.create_agent_for_user("ada", "helper", context(), one)
        bridge = agent.bridge
        for how in CALLS:
            task = asyncio.ensure_future(bring(registry, how, slow))
            await turns(3)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            assert same(agent.bridge, bridge)
        assert gate.cancelled == 3
        assert (await registry.get_user_session("ada"))._offers is None
