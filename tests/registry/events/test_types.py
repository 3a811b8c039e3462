"""Events: their wire form and the runs they come from; and the refusals, logs and reprs of bridges and connections."""

from __future__ import annotations

import asyncio
import contextvars
import json
import weakref
from functools import partial
from typing import Any

import pytest
from inline_snapshot import snapshot

from registry import (
    EventPayloadError,
    EventType,
    RunFinished,
    SessionClosed,
    WebSocketManager,
)
from registry.events.bridge import SilentBridge
from registry.events.manager import DEFAULT_CAPACITY
from registry.events.replay_log import Resumption
from registry.events.types import Event, Origin, Run, active_run, current_run, encode_payload, send_event
from tests.registry.kit import context
from tests.registry.refusing import Refusals
from tests.running import settled, turns

ORIGIN = Origin("main", "r", "helper", "agent-1")


# --------------------------------------------------------------------------------------------------------------- events


def test_the_wire_form_to_the_byte() -> None:
    payload = encode_payload(EventType.AGENT_THINKING, {"thought": "é語", "n": [1, None, True]})
    event = Event("s-1", 7, EventType.AGENT_THINKING, 'a"b', Origin("t", "r", "é", ""), payload)
    assert event.to_json() == (
        '{"stream": "s-1", "seq": 7, "type": "agent_thinking", "user_id": "a\\"b", "thread_id": "t", "run_id": "r", '
        '"agent_type": "é", "agent_id": "", "payload": {"thought": "é語", "n": [1, null, true]}}'
    )
    assert json.loads(event.to_json())["payload"] == event.payload


def test_a_payload_that_is_none_is_refused_with_the_event_and_the_reason() -> None:
    refused = Refusals()
    wrong: list[Any] = [{"a": {1}}, {"a": float("nan")}, [1], {"a": type("X" * 4_000_000, (), {})()}]
    refused.by(EventPayloadError, *(partial(encode_payload, EventType.TOOL_EXECUTING, payload) for payload in wrong))
    assert all(text.startswith("payload of tool_executing is not JSON data: ") for text in refused.texts)
    assert max(map(len, refused.texts)) < 3_000


def nested(*active: bool) -> Run:
    """Runs of agents 1, 2, ..., each from within the one before; returns the innermost."""
    innermost: Run | None = None
    for key, is_active in enumerate(active, 1):
        innermost = Run(ORIGIN, key, innermost)
        innermost.active = is_active
    assert innermost is not None
    return innermost


def test_a_run_is_within_each_active_run_around_it() -> None:
    innermost = nested(True, True, True)
    assert [innermost.is_within(key) for key in (0, 1, 2, 3, 4)] == [False, True, True, True, False]
    innermost = nested(True, False, False)
    assert [innermost.is_within(key) for key in (1, 2, 3)] == [True, False, False]


@pytest.mark.parametrize(
    ("active", "key"),
    [((True,), 1), ((False,), None), ((True, True), 2), ((True, False, False), 1), ((False, True, False), 2)],
)
def test_the_run_under_way_is_the_innermost_that_is_not_over(active: tuple[bool, ...], key: int | None) -> None:
    def found() -> Run | None:
        current_run.set(nested(*active))
        return active_run()

    innermost = contextvars.copy_context().run(found)
    assert (None if innermost is None else innermost.agent_key) == key


def test_no_run_is_under_way_before_the_first() -> None:
    assert contextvars.Context().run(active_run) is None


async def test_an_event_without_a_run_comes_from_its_context_by_name() -> None:
    bridge = Noting()
    await send_event(bridge, EventType.AGENT_THINKING, {"n": 1}, context("ada", "t", run_id="r"))
    assert bridge.seen == [(EventType.AGENT_THINKING, {"n": 1}, Origin("t", "r", "", ""))]
    await send_event(None, EventType.AGENT_THINKING, {"n": 1}, context())


class Noting:
    """Notes the emitted events."""

    def __init__(self) -> None:
        self.seen: list[tuple[EventType, Any, Origin]] = []

    def emit(self, event_type: EventType, payload: Any, origin: Origin) -> None:
        self.seen.append((event_type, payload, origin))


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


# -------------------------------------------------------------------------------------------------- bridge and manager


async def test_what_is_refused_says_whose_it_was_and_what_was_not_sent() -> None:
    refused, manager, silent = Refusals(), WebSocketManager(), SilentBridge("ada")
    refused.by(ValueError, *(partial(WebSocketManager, capacity=capacity) for capacity in (0, -1)))
    assert WebSocketManager(capacity=1).connect("ada").capacity == 1
    silent.emit(EventType.AGENT_THINKING, {"thought": "heard by nobody"}, ORIGIN)
    for bridge in (manager.create_bridge(context()), silent):
        bridge.close()
        bridge.close()
        refused.by(SessionClosed, partial(bridge.emit, EventType.AGENT_THINKING, {}, ORIGIN))
    client = manager.connect("ada")
    reader = asyncio.create_task(client.receive())
    await turns(2)
    await refused.awaited(RuntimeError, client.receive())
    reader.cancel()
    await settled(reader)
    current_run.set(nested(False))
    await refused.awaited(RunFinished, send_event(None, EventType.AGENT_THINKING, {}, context()))
    assert refused.texts == snapshot(
        [
            "capacity 0 leaves no room for an event; pass at least 1",
            "capacity -1 leaves no room for an event; pass at least 1",
            "the bridge of user 'ada' is closed; agent_thinking was not sent",
            "the bridge of user 'ada' is closed; agent_thinking was not sent",
            "two readers wait on one connection; give each its own connect()",
            "run 'r' has ended; agent_thinking cannot be emitted in its name",
        ]
    )


def test_a_connection_may_fall_a_thousand_events_behind_where_nothing_else_is_said() -> None:
    assert WebSocketManager().connect("ada").capacity == DEFAULT_CAPACITY == 1_000


def test_each_shows_its_user_and_how_much_it_holds() -> None:
    manager = WebSocketManager()
    bridge = manager.create_bridge(context())
    one, two = manager.connect("ada"), manager.connect("ada")
    other = manager.connect("bob")
    bridge.emit(EventType.AGENT_THINKING, {}, ORIGIN)
    assert weakref.ref(manager)() is manager, "an application may hold it weakly"
    shown = [repr(each) for each in (manager, one, other, bridge)]
    two.close()
    shown.append(repr(two))
    bridge.close()
    shown += [repr(each) for each in (bridge, one, SilentBridge("ada"))]
    assert shown == snapshot(
        [
            "<WebSocketManager users=2 connections=3>",
            "<Connection user='ada' pending=1 open>",
            "<Connection user='bob' pending=0 open>",
            "<AgentWebSocketBridge user='ada' last_seq=1 connections=2>",
            "<Connection user='ada' pending=1 client_closed>",
            "<AgentWebSocketBridge user='ada' last_seq=1 closed>",
            "<Connection user='ada' pending=1 session_ended>",
            "<SilentBridge user='ada'>",
        ]
    )


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
