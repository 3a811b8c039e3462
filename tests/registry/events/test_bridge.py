"""Events: numbered without a gap, each reader's own copy, nobody else's; the bridge's bounded queues."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from registry import (
    AgentRequest,
    AgentWebSocketBridge,
    BaseAgent,
    EventPayloadError,
    EventType,
    SessionClosed,
    WebSocketManager,
)
from registry.events.types import EventBridge, Origin, send_event
from tests.registry.kit import ForeignBridge, ForeignManager, Gate, context, registry_of
from tests.running import settled, turns

ORIGIN = Origin("main", "r", "helper", "agent-1")


def numbers(connection: Any) -> list[int]:
    found = []
    while (event := connection.receive_nowait()) is not None:
        found.append(event.seq)
    return found


def test_the_event_types() -> None:
    assert {kind.value for kind in EventType} == {
        "agent_started", "agent_thinking", "tool_executing", "tool_completed", "agent_completed", "agent_error",
    }  # fmt: skip


async def test_numbers_have_no_gap_over_all_agents_of_a_user() -> None:
    class Talks(BaseAgent):
        async def execute(self, request: AgentRequest) -> Any:
            for n in range(3):
                await self.think(f"{n}")
                await asyncio.sleep(0)
                with pytest.raises(EventPayloadError):
                    await self.emit(EventType.AGENT_THINKING, {"no": object()})

    manager = WebSocketManager()
    clients = {user: manager.connect(user) for user in ("ada", "bob")}
    async with registry_of(talks=Talks) as registry:
        agents = [
            await registry.create_agent_for_user(user, "talks", context(user, f"{n}"), manager)
            for user in clients
            for n in range(3)
        ]
        await asyncio.gather(*(agent.run() for agent in agents for _ in range(2)))
        for user, client in clients.items():
            events = []
            while client.pending:
                events.append(await client.receive())
            assert [event.seq for event in events] == list(range(1, 6 * 5 + 1))
            assert {event.user_id for event in events} == {user}
            assert len({event.stream for event in events}) == 1
            assert {event.origin.thread_id for event in events} == {"0", "1", "2"}
            assert {event.origin.agent_id for event in events} == {
                agent.agent_id for agent in agents if agent.context.user_id == user
            }


def test_payloads_are_copied_in_and_out() -> None:
    bridge = (manager := WebSocketManager()).create_bridge(context())
    one, two = manager.connect("ada"), manager.connect("ada")
    payload = {"list": [1]}
    bridge.emit(EventType.AGENT_THINKING, payload, ORIGIN)
    payload["list"].append(2)
    first, second = one.receive_nowait(), two.receive_nowait()
    assert first is not None
    assert second is not None
    first.payload["list"].append(3)
    assert first.payload == second.payload == {"list": [1]}
    with pytest.raises(AttributeError):
        first.seq = 9  # type: ignore[misc]


@pytest.mark.parametrize(
    "payload",
    [
        {"a": object()},
        {"a": float("nan")},
        {"a": float("inf")},
        {"a": {1, 2}},
        {"a": b"x"},
        {"a": "\ud800"},
        {"\ud800": 1},
    ],
    # Not its repr: that of an object names its address, which is another in each worker.
    ids=["object", "nan", "infinity", "set", "bytes", "lone-surrogate", "lone-surrogate-as-key"],
)
async def test_what_json_cannot_hold_is_refused_with_and_without_clients(payload: Any) -> None:
    for manager in (None, WebSocketManager()):
        async with registry_of(helper=BaseAgent) as registry:
            agent = await registry.create_agent_for_user("ada", "helper", context(), manager)
            with pytest.raises(EventPayloadError, match="agent_thinking"):
                await agent.emit(EventType.AGENT_THINKING, payload)
            if manager:
                assert isinstance(agent.bridge, AgentWebSocketBridge)
                assert agent.bridge.last_seq == 0


def test_the_wire_form() -> None:
    bridge = (manager := WebSocketManager()).create_bridge(context())
    client = manager.connect("ada")
    bridge.emit(EventType.TOOL_EXECUTING, {"tool": "é", "n": 1}, ORIGIN)
    event = client.receive_nowait()
    assert event is not None
    assert json.loads(event.to_json()) == {
        "stream": event.stream, "seq": 1, "type": "tool_executing", "user_id": "ada", "thread_id": "main",
        "run_id": "r", "agent_type": "helper", "agent_id": "agent-1", "payload": {"tool": "é", "n": 1},
    }  # fmt: skip
    assert event.to_json() == event.to_json()


async def test_outside_a_run_an_event_comes_from_the_context() -> None:
    manager = WebSocketManager()
    client = manager.connect("ada")
    async with registry_of(helper=BaseAgent) as registry:
        given = context("ada", "t", run_id="r")
        agent = await registry.create_agent_for_user("ada", "helper", given, manager)
        await agent.think("x")
        event = await client.receive()
        assert event.origin == Origin("t", "r", "helper", "")


async def test_a_bridge_that_fails_does_not_stop_the_work(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(ForeignBridge):
        def emit(self, *_: Any) -> None:
            raise OSError("broken pipe")

    class BrokenLate(ForeignBridge):
        async def emit(self, *_: Any) -> None:  # type: ignore[override]
            await asyncio.sleep(0)
            raise OSError("broken pipe")

    for kind in (Broken, BrokenLate):
        caplog.clear()
        async with registry_of(helper=BaseAgent) as registry:
            agent = await registry.create_agent_for_user("ada", "helper", context(), ForeignManager(make=kind))
            assert (await agent.run("x")).output["text"] == "x"
        assert caplog.text.count("broken pipe") >= 2


async def test_an_emit_may_be_async() -> None:
    class Late(ForeignBridge):
        async def emit(self, event_type: EventType, payload: Any, origin: Any) -> None:  # type: ignore[override]
            await asyncio.sleep(0)
            super().emit(event_type, payload, origin)

    manager = ForeignManager(make=Late)
    async with registry_of(helper=BaseAgent) as registry:
        agent = await registry.create_agent_for_user("ada", "helper", context(), manager)
        await agent.run()
        made = manager.made[0]
        assert [name for name, _ in made.sent] == ["agent_started", "agent_completed"]
        assert isinstance(made, EventBridge)


async def test_nothing_is_sent_over_a_foreign_bridge_after_the_end() -> None:
    manager = ForeignManager()
    async with registry_of(helper=BaseAgent) as registry:
        agent = await registry.create_agent_for_user("ada", "helper", context(), manager)
        bridge = agent.bridge
        await registry.cleanup_user_session("ada")
        # As a tool does that comes back after the deadline.
        with pytest.raises(SessionClosed):
            await send_event(bridge, EventType.TOOL_COMPLETED, {}, agent.context)
        assert manager.made[0].sent == []


def test_a_slow_reader_is_disconnected_and_costs_a_bounded_amount() -> None:
    manager = WebSocketManager(capacity=3)
    bridge = manager.create_bridge(context())
    slow, quick = manager.connect("ada"), manager.connect("ada")
    seen = []
    for n in range(10):
        bridge.emit(EventType.AGENT_THINKING, {"n": n}, ORIGIN)
        seen += numbers(quick)
    assert slow.closed_reason == "slow_consumer"
    assert slow.pending == 0
    assert seen == list(range(1, 11))
    assert bridge.connection_count == 1
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="capacity"):
            WebSocketManager(capacity=wrong)


def test_a_reader_exactly_at_capacity_stays() -> None:
    manager = WebSocketManager(capacity=3)
    bridge = manager.create_bridge(context())
    client = manager.connect("ada")
    for _ in range(3):
        bridge.emit(EventType.AGENT_THINKING, {}, ORIGIN)
    assert client.closed_reason is None
    assert numbers(client) == [1, 2, 3]


async def test_reading_waits_and_a_cancelled_reader_loses_nothing() -> None:
    manager = WebSocketManager()
    bridge = manager.create_bridge(context())
    client = manager.connect("ada")
    reader = asyncio.create_task(client.receive())
    await turns(2)
    with pytest.raises(RuntimeError, match="two readers"):
        await client.receive()
    bridge.emit(EventType.AGENT_THINKING, {}, ORIGIN)
    reader.cancel()
    await settled(reader)
    assert (await client.receive()).seq == 1
    reader = asyncio.create_task(client.receive())
    await turns(2)
    bridge.emit(EventType.AGENT_THINKING, {}, ORIGIN)
    assert (await reader).seq == 2
    collected = []

    async def read_all() -> None:
        async for event in client:
            collected.append(event.seq)  # noqa: PERF401  # What was read before the end must be seen.

    readers = asyncio.create_task(read_all())
    await turns(2)
    bridge.emit(EventType.AGENT_THINKING, {}, ORIGIN)
    bridge.emit(EventType.AGENT_THINKING, {}, ORIGIN)
    bridge.close()
    await readers
    assert collected == [3, 4]


def test_a_withdrawn_bridge_refuses_and_leaves_the_clients() -> None:
    manager = WebSocketManager()
    client = manager.connect("ada")
    bridge = manager.create_bridge(context())
    bridge.withdraw()
    bridge.close()
    with pytest.raises(SessionClosed):
        bridge.emit(EventType.AGENT_THINKING, {}, ORIGIN)
    assert client.closed_reason is None
    manager.create_bridge(context()).emit(EventType.AGENT_THINKING, {}, ORIGIN)
    assert numbers(client) == [1]


async def test_a_leftover_task_cannot_emit_in_the_name_of_its_run() -> None:
    from registry import RunFinished

    gate = Gate()
    left: list[asyncio.Task[None]] = []

    class Leaves(BaseAgent):
        async def execute(self, request: AgentRequest) -> Any:
            async def later() -> None:
                await gate.pass_through()
                await self.think("late")

            left.append(asyncio.create_task(later()))
            await self.think("in time")

    manager = WebSocketManager()
    client = manager.connect("ada")
    async with registry_of(leaves=Leaves) as registry:
        agent = await registry.create_agent_for_user("ada", "leaves", context(), manager)
        await agent.run()
        gate.open()
        assert [type(answer) for answer in await settled(*left)] == [RunFinished]
        assert numbers(client) == [1, 2, 3]
