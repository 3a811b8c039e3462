"""A client of an ASGI app without a server between them: only the app's own memory is measured."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from types import TracebackType
from typing import Any, Self

__all__ = ["Connection", "CutShort", "Device", "NotGreeted"]

Message = MutableMapping[str, Any]

_SUBPROTOCOL = "agent-registry.v1"


class Device:
    """State of a user's device from one connection to the next: its token, and its position in each stream."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.stream: str | None = None
        self.seq = 0


class NotGreeted(ConnectionError):
    """The app did not let a client in who had a good token."""


class CutShort(Exception):
    """A client was not let in, which is a finding: the cycles of work end here."""


class Connection:
    """One connection over WebSocket for as long as the block lasts, as an ASGI server would hand it to the app.

    Entering returns when the app has answered the device's `start`, which resumes its stream; leaving, when the app has
    received the acknowledgement and ended the connection. `until` is asked to let the loop run until something holds.
    Raises `NotGreeted`, and on leaving the app's own error.
    """

    def __init__(self, app: Any, device: Device, until: Callable[[Callable[[], bool]], Awaitable[bool]]) -> None:
        self._app = app
        self._device = device
        self._until = until
        self._said: asyncio.Queue[Message] = asyncio.Queue()
        self._texts: list[str] = []
        self._code: int | None = None
        self._scope = {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "ws",
            "path": "/",
            "raw_path": b"/",
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"127.0.0.1"), (b"authorization", f"Bearer {device.token}".encode())],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "subprotocols": [_SUBPROTOCOL],
            "state": {},
            "extensions": {},
        }

    async def __aenter__(self) -> Self:
        self._said.put_nowait({"type": "websocket.connect"})
        device = self._device
        here = {} if device.stream is None else {"stream": device.stream, "seq": device.seq}
        self._say({"type": "start"} | here)
        self._serving = asyncio.ensure_future(self._app(self._scope, self._said.get, self._send))
        await self._until(lambda: bool(self._texts) or self._serving.done())
        if not self._texts:
            await self._leave()
            raise NotGreeted(f"the app did not greet a client with a good token: {self!r}")
        greeting = json.loads(self._texts[0])
        device.stream, device.seq = greeting["stream"], greeting["seq"]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._leave()

    async def ends(self) -> bool:
        """Wait until the app ends the connection; return whether it did."""
        return await self._until(self._serving.done)

    def heard(self, part: str) -> bool:
        """Whether the client was sent a text that holds this."""
        return any(part in text for text in self._texts)

    def _say(self, message: Mapping[str, object]) -> None:
        self._said.put_nowait({"type": "websocket.receive", "text": json.dumps(message)})

    async def _leave(self) -> None:
        heard = [line for text in self._texts for line in text.split("\n")][1:]
        for message in map(json.loads, heard):
            self._device.seq = message.get("seq", self._device.seq)
        if heard and self._code is None:
            self._say({"type": "ack", "seq": self._device.seq})
        self._said.put_nowait({"type": "websocket.disconnect", "code": 1001})
        try:
            await self._serving
        finally:
            # An error's traceback holds this frame, and the task holds the error: a cycle, if it stayed here.
            del self._serving

    async def _send(self, message: Message) -> None:
        if message["type"] == "websocket.send":
            self._texts.append(message.get("text") or "")
        elif message["type"] == "websocket.close":
            self._code = message.get("code")

    def __repr__(self) -> str:
        return f"<Connection texts={len(self._texts)} code={self._code}>"
