"""Events, bridges and managers: wire form, each reader's own copy, bounded queues, refusals, logs and reprs."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import weakref
from typing import Any

import pytest

from registry import (
    AgentWebSocketBridge,
    BaseAgent,
    EventPayloadError,
    EventType,
    InvalidUserId,
    SessionClosed,
    WebSocketManager,
)
from registry.events.bridge import Channel, Connection, SilentBridge
from registry.events.replay_log import Resumption
from registry.events.types import Event, Origin, Run, active_run, current_run, encode_payload, send_event
from tests.registry.kit import ForeignManager, context, received, registry_of
from tests.running import settled, turns

ORIGIN = Origin("main", "r", "helper", "agent-1")


def numbers(connection: Any) -> list[int]:
    return [event.seq for event in received(connection)]


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
        assert slow.closed_reason == (None if n < 3 else "slow_consumer")
    assert slow.pending == 0
    assert seen == list(range(1, 11))
    assert bridge.connection_count == 1


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


def test_only_a_user_id_can_connect_or_have_its_connections_counted() -> None:
    manager = WebSocketManager()
    for call in (manager.connect, manager.connection_count):
        for wrong in ("", " a", 0, False, b"ada", ["ada"]):
            with pytest.raises(InvalidUserId):
                call(wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidUserId):
        manager.connect(None)  # type: ignore[arg-type]
    assert manager.users == frozenset()


class Claiming(str):
    """Says that it equals "ada", and hashes like it."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return other == "ada"

    def __hash__(self) -> int:
        return hash("ada")


def test_a_text_that_claims_to_be_another_has_no_connection_of_theirs() -> None:
    manager = WebSocketManager()
    connection = manager.connect("ada")
    assert manager.connection_count(Claiming("bob")) == 0
    assert manager.connection_count("ada") == 1
    connection.close()


async def test_who_left_costs_nothing() -> None:
    manager = WebSocketManager()
    async with registry_of(helper=BaseAgent) as registry:
        gc.collect()
        gc.disable()
        try:
            agent = await registry.create_agent_for_user("ada", "helper", context(), manager)
            client = manager.connect("ada")
            dropped = manager.connect("ada")
            await agent.run()
            assert isinstance(agent.bridge, AgentWebSocketBridge)
            refs = [weakref.ref(thing) for thing in (agent.bridge, agent.bridge._channel, client, dropped)]
            del dropped
            assert refs[3]() is None
            assert agent.bridge.connection_count == 1
            await registry.cleanup_user_session("ada")
            del agent, client
            assert [ref() for ref in refs] == [None] * 4
            assert manager.users == frozenset()
            assert len(manager._channels) == 0
            assert not any(isinstance(thing, (Channel, Connection)) for thing in gc.get_objects())
        finally:
            gc.enable()


def test_the_wire_form_to_the_byte() -> None:
    payload = encode_payload(EventType.AGENT_THINKING, {"thought": "é語", "n": [1, None, True]})
    event = Event("s-1", 7, EventType.AGENT_THINKING, 'a"b', Origin("t", "r", "é", ""), payload)
    assert event.to_json() == (
        '{"stream": "s-1", "seq": 7, "type": "agent_thinking", "user_id": "a\\"b", "thread_id": "t", "run_id": "r", '
        '"agent_type": "é", "agent_id": "", "payload": {"thought": "é語", "n": [1, null, true]}}'
    )
    assert json.loads(event.to_json())["payload"] == event.payload


def nested(*active: bool) -> Run:
    """Runs of agents 1, 2, ..., each from within the one before; returns the innermost."""
    innermost: Run | None = None
    for key, is_active in enumerate(active, 1):
        innermost = Run(ORIGIN, key, innermost)
        innermost.active = is_active
    assert innermost is not None
    return innermost


@pytest.mark.parametrize(
    ("active", "within", "key"),
    [
        ((True,), {1}, 1),
        ((False,), set(), None),
        ((True, True), {1, 2}, 2),
        ((True, True, True), {1, 2, 3}, 3),
        ((True, False, False), {1}, 1),
        ((False, True, False), {2}, 2),
    ],
)
def test_a_run_is_within_each_active_run_around_it_and_the_innermost_is_under_way(
    active: tuple[bool, ...], within: set[int], key: int | None
) -> None:
    def found() -> Run | None:
        current_run.set(nested(*active))
        return active_run()

    assert {key for key in range(5) if nested(*active).is_within(key)} == within
    innermost = contextvars.copy_context().run(found)
    assert (None if innermost is None else innermost.agent_key) == key


async def test_a_bridge_that_fails_is_logged_with_the_user_and_the_event(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def emit(self, *_: Any) -> None:
            raise OSError("broken pipe")

    await send_event(Broken(), EventType.AGENT_ERROR, {}, context())
    (record,) = caplog.records
    assert record.name == "registry.events.types"
    assert (record.levelname, record.getMessage()) == ("ERROR", "bridge of user 'ada' failed to emit agent_error")
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "broken pipe"


def test_a_closed_bridge_says_whose_it_was_and_what_was_not_sent() -> None:
    silent = SilentBridge("ada")
    silent.emit(EventType.AGENT_THINKING, {"thought": "heard by nobody"}, ORIGIN)
    for bridge in (WebSocketManager().create_bridge(context()), silent):
        bridge.close()
        bridge.close()
        with pytest.raises(SessionClosed, match=r"^the bridge of user 'ada' is closed; agent_thinking was not sent$"):
            bridge.emit(EventType.AGENT_THINKING, {}, ORIGIN)


@pytest.mark.parametrize("capacity", [0, -1])
def test_there_must_be_room_for_an_event(capacity: int) -> None:
    with pytest.raises(ValueError, match=f"^capacity {capacity} leaves no room for an event; pass at least 1$"):
        WebSocketManager(capacity=capacity)
    assert WebSocketManager(capacity=1).connect("ada").capacity == 1
    assert WebSocketManager().connect("ada").capacity == 1_000


def test_the_connections_of_a_session_end_with_its_last_bridge() -> None:
    manager = WebSocketManager()
    client = manager.connect("ada")
    first, second = (manager.create_bridge(context()) for _ in range(2))
    first.close()
    first.close()
    reasons = [client.closed_reason]
    second.emit(EventType.AGENT_THINKING, {}, ORIGIN)
    assert (second.last_seq, client.pending, second.connection_count) == (1, 1, 1)
    second.close()
    assert [*reasons, client.closed_reason] == [None, "session_ended"]
    assert manager.users == frozenset()


def test_a_stream_is_resumed_from_its_beginning_where_no_number_is_given() -> None:
    manager = WebSocketManager()
    bridge = manager.create_bridge(context())
    keeper, _ = manager.subscribe("ada")
    bridge.emit(EventType.AGENT_THINKING, {"n": 1}, ORIGIN)
    again, how = manager.subscribe("ada", keeper.log.stream)
    assert (how, again.next, again.log is keeper.log) == (Resumption.RESUMED, 1, True)
    assert manager.connection_count("ada") == 2
