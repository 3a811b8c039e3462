"""WebSocketManager: clients by user; how they connect, drop, reconnect and are forgotten."""

from __future__ import annotations

import gc
import weakref

import pytest

from registry import AgentWebSocketBridge, BaseAgent, EventType, InvalidUserId, WebSocketManager
from registry.events.bridge import Channel, Connection
from registry.events.types import Origin
from tests.registry.kit import context, registry_of

ORIGIN = Origin("main", "r", "helper", "agent-1")


def test_each_user_receives_its_own_and_nobody_elses() -> None:
    manager = WebSocketManager()
    users = ["ada", "bob", "Ada", "a:b"]
    clients = {user: manager.connect(user) for user in users}
    bridges = {user: manager.create_bridge(context(user)) for user in users}
    for user, bridge in bridges.items():
        for _ in range(users.index(user) + 1):
            bridge.emit(EventType.AGENT_THINKING, {"for": user}, ORIGIN)
    for user, client in clients.items():
        assert client.pending == users.index(user) + 1
        while (event := client.receive_nowait()) is not None:
            assert event.payload == {"for": user}
    assert manager.users == set(users)
    assert manager.connection_count() == 4
    assert manager.connection_count("ada") == 1


def test_only_a_user_id_can_connect() -> None:
    manager = WebSocketManager()
    for wrong in (None, "", " a", 0, b"ada"):
        with pytest.raises(InvalidUserId):
            manager.connect(wrong)  # type: ignore[arg-type]
    assert manager.users == frozenset()


class Claiming(str):
    """Says that it equals "ada", and hashes like it."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return other == "ada"

    def __hash__(self) -> int:
        return hash("ada")


@pytest.mark.parametrize("user_id", ["", 0, False, b"ada", " ada", ["ada"]])
def test_only_the_connections_of_a_user_id_can_be_counted(user_id: object) -> None:
    with pytest.raises(InvalidUserId):
        WebSocketManager().connection_count(user_id)  # type: ignore[arg-type]


def test_a_text_that_claims_to_be_another_has_no_connection_of_theirs() -> None:
    manager = WebSocketManager()
    connection = manager.connect("ada")
    assert manager.connection_count(Claiming("bob")) == 0
    assert manager.connection_count("ada") == 1
    connection.close()


async def test_a_client_may_come_first_and_receives_from_the_first_event() -> None:
    manager = WebSocketManager()
    client = manager.connect("ada")
    async with registry_of(helper=BaseAgent) as registry:
        agent = await registry.create_agent_for_user("ada", "helper", context(), manager)
        await agent.run()
        assert (await client.receive()).seq == 1
        late = manager.connect("ada")
        await agent.think("x")
        assert (await late.receive()).seq == 3


async def test_drop_reconnect_and_end() -> None:
    manager = WebSocketManager()
    async with registry_of(helper=BaseAgent) as registry:
        agent = await registry.create_agent_for_user("ada", "helper", context(), manager)
        first = manager.connect("ada")
        await agent.think("one")
        first.close()
        first.close()
        assert first.closed_reason == "client_closed"
        await agent.think("unheard")
        again = manager.connect("ada")
        await agent.think("three")
        assert (await again.receive()).seq == 3
        assert (await first.receive()).seq == 1
        with pytest.raises(StopAsyncIteration):
            await first.receive()
        await registry.cleanup_user_session("ada")
        assert again.closed_reason == "session_ended"
        with pytest.raises(StopAsyncIteration):
            await again.receive()
        assert manager.connection_count() == 0
        # The next session has a stream of its own.
        client = manager.connect("ada")
        agent = await registry.create_agent_for_user("ada", "helper", context(), manager)
        await agent.think("new")
        assert (await client.receive()).seq == 1
        assert again.pending == 0


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


def test_nothing_that_a_user_holds_leads_to_the_manager() -> None:
    manager = WebSocketManager()
    bridge, client = manager.create_bridge(context()), manager.connect("ada")
    other = manager.connect("bob")
    seen: set[int] = set()
    todo: list[object] = [bridge, client]
    while todo:
        thing = todo.pop()
        if id(thing) in seen or isinstance(thing, type):
            continue
        seen.add(id(thing))
        assert thing is not manager
        assert thing is not other
        todo += gc.get_referents(thing)


async def test_closing_the_manager_ends_every_connection() -> None:
    manager = WebSocketManager()
    async with registry_of(helper=BaseAgent) as registry:
        agent = await registry.create_agent_for_user("ada", "helper", context(), manager)
        clients = [manager.connect(user) for user in ("ada", "ada", "bob")]
        manager.close()
        assert [client.closed_reason for client in clients] == ["manager_closed"] * 3
        await agent.run()
        assert manager.connection_count() == 0
        assert "connections=0" in repr(manager)
