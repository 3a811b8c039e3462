"""The far side of an ASGI app, played by hand: a server with one client, and a loop whose clock a test moves."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

from registry.events.wire import PING

Message = MutableMapping[str, Any]


class Peer:
    """A server with one client, as far as ASGI distinguishes them from a list of messages."""

    def __init__(self, *said: Message) -> None:
        self.said = list(said)
        self.sent: list[Message] = []

    async def receive(self) -> Message:
        if not self.said:
            await asyncio.Event().wait()
        return self.said.pop(0)

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def code(self) -> int | None:
        return next((message["code"] for message in self.sent if message["type"] == "websocket.close"), None)


def connection(*headers: tuple[str, str], subprotocols: tuple[str, ...] = (), query: bytes = b"") -> dict[str, Any]:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    return {"type": "websocket", "headers": raw, "subprotocols": list(subprotocols), "query_string": query}


CONNECT: Message = {"type": "websocket.connect"}
START: Message = {"type": "websocket.receive", "text": '{"type": "start"}'}
GONE: Message = {"type": "websocket.disconnect", "code": 1001}
GOOD = ("authorization", "Bearer ada")


class ByHand(asyncio.SelectorEventLoop):
    """A loop whose clock stands until a test moves it."""

    def __init__(self) -> None:
        self.now = 1_000.0
        super().__init__()

    def time(self) -> float:
        return self.now


class Silent(Peer):
    """A client that sends only the messages that a test puts in."""

    def __init__(self) -> None:
        super().__init__(CONNECT, START)
        self.heard: asyncio.Queue[Message] = asyncio.Queue()

    async def receive(self) -> Message:
        return self.said.pop(0) if self.said else await self.heard.get()

    @property
    def pings(self) -> int:
        return self.sent.count({"type": "websocket.send", "text": PING})
