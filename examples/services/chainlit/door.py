"""chainlit over socket.io: a word is one visit of a page, which connects, sends a message and waits for its answer."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from lab_utils.service.answers import Answer
from lab_utils.service.door import Door, Session
from lab_utils.service.filling import filled


class ChainlitDoor(Door):
    """`body` of an operation is the message; `open` connects and sends none."""

    _turns: dict[str, asyncio.Lock] | None = None

    async def do(self, word: str, session: Session | None, values: Mapping[str, Any]) -> Answer:
        assert session is not None
        operation = self.service.operations[word]
        # A session has one socket: a second page of it would take the first one's answers.
        self._turns = self._turns or {}
        number = await self.traffic.admit()
        try:
            async with (
                self._turns.setdefault(session.id, asyncio.Lock()),
                asyncio.timeout(self.service.bounds.deadline_s),
            ):
                answer = await self._visit(session, str(filled(operation.body or "", {**session.values, **values})))
        except (TimeoutError, OSError, WebSocketException) as error:
            answer = Answer(0, error=f"{type(error).__name__}: {error}")
        self.log(number, word, self.request(operation, session, values), str(answer))
        return answer

    async def abandon(
        self,
        word: str,
        session: Session | None,
        values: Mapping[str, Any],
        after: int,
        meanwhile: Callable[[], Awaitable[object]] | None = None,
    ) -> bool:
        assert session is not None
        body = str(filled(self.service.operations[word].body or "", {**session.values, **values}))
        async with self._socket() as socket:
            if not await self._enter(socket, session) and after >= 0:
                await _say(socket, body)
            if meanwhile is not None:
                await meanwhile()
            socket.transport.abort()
        return after < 1

    def _socket(self) -> connect:
        url = f"{self.base.replace('http', 'ws', 1)}/ws/socket.io/?EIO=4&transport=websocket"
        return connect(url, additional_headers=self.headers, proxy=None)

    async def _enter(self, socket: ClientConnection, session: Session) -> str:
        """Connect as a page of this session; the refusal, or ""."""
        await socket.recv()
        auth = {"sessionId": session.id, "clientType": "webapp", "userEnv": None, "chatProfile": "", "threadId": None}
        await socket.send(f"40{json.dumps(auth)}")
        entered = str(await socket.recv())
        return "" if entered.startswith("40") else entered

    async def _visit(self, session: Session, text: str) -> Answer:
        async with self._socket() as socket:
            if refusal := await self._enter(socket, session):
                return Answer(403, refusal, error="the connection was refused")
            if not text:
                return Answer(200, "connected", is_done=True)
            await _say(socket, text)
            heard = []
            async for packet in socket:
                packet = str(packet)
                if packet == "2":
                    await socket.send("3")
                elif packet.startswith("42"):
                    heard.append(packet[2:])
                    event, *data = json.loads(packet[2:])
                    if event == "new_message" and data[0]["type"] == "assistant_message":
                        # All that was sent to this page is the answer; the last message is its value.
                        return Answer(200, "\n".join(heard), is_done=True, value=data[0]["output"])
        return Answer(0, "\n".join(heard), error="the socket ended without the answer")


async def _say(socket: ClientConnection, text: str) -> None:
    message = {"id": str(uuid.uuid4()), "name": "user", "type": "user_message", "output": text, "createdAt": ""}
    await socket.send('42["connection_successful"]')
    await socket.send(f"42{json.dumps(['client_message', {'message': message, 'fileReferences': []}])}")
