"""Events over real sockets: each event reaches its receivers exactly once; refusals, cut-offs, resumption; and nothing
is left."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

pytest.importorskip("uvicorn")

from starlette.applications import Starlette
from starlette.routing import Mount
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from lab_utils.sockets.device import EventClient
from lab_utils.sockets.fleet import ClientFleet
from lab_utils.sockets.loopback import LoopbackServer, serving
from registry import AgentRequest, BaseAgent, EventType, WebSocketManager
from registry.events.app import EventsApp
from registry.events.tokens import Grant, TokenSigner
from registry.events.types import Origin
from registry.events.wire import CloseCode, SocketLimits
from tests.registry.kit import context, received, registry_of

SECRET = "a secret that is long enough"
ORIGIN = Origin("main", "r", "helper", "agent-1")


@dataclass
class Stage:
    """A manager behind a server, and clients on a loop of their own."""

    manager: WebSocketManager
    events: EventsApp
    server: LoopbackServer
    fleet: ClientFleet
    signer: TokenSigner

    @property
    def url(self) -> str:
        return self.server.url("/events/")

    def client(self, user: str | None = "ada", token: str | None = None, **options: Any) -> EventClient:
        if user is not None and token is None:
            token = self.signer.issue(user)
        return self.fleet.add(EventClient(self.url, token, retry_s=0.01, **options))

    async def ready(self, *users: str, **options: Any) -> list[EventClient]:
        clients = [self.client(user, **options) for user in users]
        await self.fleet.until(lambda one: one.is_ready, clients)
        return clients

    async def has(self, client: EventClient, seq: int) -> None:
        await self.fleet.until(lambda one: one.seq >= seq, [client])

    async def closed(self, client: EventClient) -> int | None:
        await self.fleet.until(lambda one: one.close_code is not None, [client])
        return client.close_code

    def bridge(self, user: str = "ada") -> Any:
        return self.manager.create_bridge(context(user))

    @asynccontextmanager
    async def raw(self, user: str = "ada", start: bool = True) -> AsyncIterator[ClientConnection]:
        """A connection that sends only the test's messages."""
        headers = {"Authorization": f"Bearer {self.signer.issue(user)}"}
        async with connect(
            self.url, additional_headers=headers, compression=None, ping_interval=None, proxy=None
        ) as peer:
            if start:
                await peer.send('{"type": "start"}')
                assert json.loads(await peer.recv())["type"] == "hello"
            yield peer


@asynccontextmanager
async def on_stage(*, origins: Any = None, authenticate: Any = None, **limits: Any) -> AsyncIterator[Stage]:
    """A stage for one play, which must leave nothing of itself."""
    manager = WebSocketManager(limits=SocketLimits(**limits))
    signer = TokenSigner(SECRET)
    events = manager.asgi_app(authenticate or signer, origins=origins)
    async with serving(Starlette(routes=[Mount("/events", events)])) as server, ClientFleet() as fleet:
        yield Stage(manager, events, server, fleet, signer)
    assert manager.admissions.total == 0
    assert not manager.admissions.by_user
    gc.collect()
    assert manager.connection_count() == 0


def emit(bridge: Any, *thoughts: str) -> None:
    for thought in thoughts:
        bridge.emit(EventType.AGENT_THINKING, {"thought": thought}, ORIGIN)


def thoughts(client: EventClient) -> list[str]:
    return [event["payload"]["thought"] for event in client.events]


async def test_what_agents_emit_arrives_byte_for_byte() -> None:
    async with on_stage() as stage:

        class Talks(BaseAgent):
            async def execute(self, request: AgentRequest) -> Any:
                for n in range(5):
                    await self.think(f"{n}: é語 \n\r\u2028 </script>")
                    await asyncio.sleep(0)

        async with registry_of(talks=Talks) as registry:
            users = ["ada", "bob", "Ada", "a:b", "é"]
            clients = await stage.ready(*users)
            inside = {user: stage.manager.connect(user) for user in users}
            agents = [
                await registry.create_agent_for_user(user, "talks", context(user), stage.manager) for user in users
            ]
            await asyncio.gather(*(agent.run() for agent in agents for _ in range(3)))
            await stage.fleet.until(lambda one: one.seq >= 21)
            for user, client in zip(users, clients, strict=True):
                emitted = [event.to_json() for event in received(inside[user])]
                assert client.texts == emitted
                assert len(emitted) == 21
                assert {event["user_id"] for event in client.events} == {user}
                assert (client.tally.gaps, client.tally.duplicates) == (0, 0)


async def test_limits_on_connections_of_a_user_and_of_all() -> None:
    async with on_stage(max_connections_per_user=2, max_connections=4) as stage:
        await stage.ready("ada", "ada", "bob")
        of_user = stage.client("ada", reconnect=False)
        assert await stage.closed(of_user) == CloseCode.TOO_MANY_OF_USER
        await stage.ready("bob")
        of_all = stage.client("eve", reconnect=False)
        assert await stage.closed(of_all) == CloseCode.TOO_MANY
        await stage.fleet.call(stage.fleet.clients[0].close())
        await stage.ready("ada")


WRONG: dict[str, tuple[str | bytes, CloseCode]] = {
    "binary": (b'{"type": "pong"}', CloseCode.BINARY),
    "too large for the server": (" " * 100_000, CloseCode(1011)),
}


@pytest.mark.parametrize("case", WRONG)
async def test_a_wrong_frame_ends_its_own_connection_only(case: str, caplog: pytest.LogCaptureFixture) -> None:
    message, code = WRONG[case]

    caplog.set_level(logging.INFO, "registry")
    async with on_stage() as stage:
        (innocent,) = await stage.ready("ada")
        async with stage.raw() as peer:
            await peer.send(message)
            with pytest.raises(ConnectionClosed) as closed:
                await peer.recv()
            # A message above the server's own limit never reaches the app, and has the protocol's own code.
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == (1009 if "server" in case else code)
            assert "Traceback" not in closed.value.rcvd.reason
        emit(stage.bridge(), "still here")
        await stage.has(innocent, 1)
        assert innocent.tally.connects == 1
    assert not [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR]
    if "server" not in case:
        assert f"with {int(code)}" in caplog.text


async def test_a_small_event_does_not_wait_for_the_last_one_s_receipt() -> None:
    async with on_stage() as stage:
        await stage.ready("ada")
        (protocol,) = stage.server._server.server_state.connections
        connection = protocol.transport.get_extra_info("socket")
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_a_token_that_expires_ends_its_connection() -> None:
    now = 0.0
    async with on_stage(authenticate=lambda _: Grant("ada", 10.0)) as stage:
        stage.events.heartbeat.clock = lambda: now
        (client,) = await stage.ready("ada", reconnect=False)
        now = 10.0
        stage.events.heartbeat.beat_now()
        assert await stage.closed(client) == CloseCode.EXPIRED_TOKEN
