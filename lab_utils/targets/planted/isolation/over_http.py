"""Defects of one HTTP connection to the model that all users share."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any, ClassVar
from urllib.parse import urlsplit

from lab_utils.targets.agent_registry import AgentRegistryTarget
from lab_utils.targets.planted.base import Planted
from registry import Completion, Prompt

__all__ = ["PLANTED"]


class _Connection:
    """A client of one connection, which stays open; requests take turns on it."""

    keeps_cookies = False
    closes_when_left = False

    def __init__(self, base_url: str, key: str) -> None:
        self.address, self.key = urlsplit(base_url), key
        self.turn = asyncio.Lock()
        self.writer: asyncio.StreamWriter | None = None
        self.answers: asyncio.Queue[bytes] = asyncio.Queue()
        self.reading: asyncio.Future[None]
        self.cookie = ""

    def for_user(self, user_id: str) -> _OneUser:
        return _OneUser(self, user_id)

    async def ask(self, user: str, prompt: Prompt) -> Completion:
        """Send the prompt and read one answer, which is taken for its own."""
        messages = [{"role": one.role, "content": one.content} for one in prompt.messages]
        body = json.dumps({"model": "scripted", "messages": messages, "user": user}).encode()
        async with self.turn:
            try:
                answer = json.loads(await self._exchange(body))
            except BaseException:
                if self.closes_when_left:
                    self.close()
                raise
        return Completion(answer["choices"][0]["message"]["content"])

    async def _exchange(self, body: bytes) -> bytes:
        if self.writer is None:
            reader, self.writer = await asyncio.open_connection(self.address.hostname, self.address.port)
            self.answers = asyncio.Queue()
            self.reading = asyncio.ensure_future(self._read(reader, self.answers))
        cookie = f"cookie: {self.cookie}\r\n" if self.cookie else ""
        head = (
            f"POST {self.address.path}/chat/completions HTTP/1.1\r\nhost: {self.address.netloc}\r\n{cookie}"
            f"authorization: Bearer {self.key}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self.writer.write(head.encode() + body)
        await self.writer.drain()
        return await self.answers.get()

    async def _read(self, reader: asyncio.StreamReader, answers: asyncio.Queue[bytes]) -> None:
        """Read whole answers, one after another, for whoever asks for the next."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                if self.keeps_cookies and "set-cookie" in headers:
                    self.cookie = headers["set-cookie"].partition(";")[0]
                answers.put_nowait(await reader.readexactly(int(headers["content-length"])))

    def close(self) -> None:
        """Close the connection; what is still to come on it is read by nobody."""
        if self.writer is not None:
            self.reading.cancel()
            self.writer.close()
            self.writer = None


class _OneUser:
    def __init__(self, connection: _Connection, user: str) -> None:
        self.connection, self.user = connection, user

    async def complete(self, prompt: Prompt) -> Completion:
        return await self.connection.ask(self.user, prompt)


class _WithCookies(_Connection):
    keeps_cookies = closes_when_left = True


class _Careful(_Connection):
    closes_when_left = True


class _OverOneConnection(AgentRegistryTarget):
    connection: ClassVar[type[_Connection]]

    def make_llm(self) -> Any:
        if self._http is None:
            return super().make_llm()
        return self.connection(self._http.server.base_url, self._http.key)

    async def stop(self) -> None:
        if isinstance(self.llm, _Connection):
            self.llm.close()
        await super().stop()


class AnswerLeftOnTheConnection(_OverOneConnection):
    """One HTTP connection for all: who leaves it in the middle of an answer leaves that to the next."""

    connection = _Connection


class CookiesOfAll(_OverOneConnection):
    """One HTTP client for all keeps the cookies that the server sets, and sends them with everybody's requests."""

    connection = _WithCookies


class ConnectionClosedWhenLeft(_OverOneConnection):
    """The same connection, which is closed by who leaves it, and without cookies."""

    connection = _Careful


def _planted(make: type[AgentRegistryTarget], anomaly: str) -> Planted:
    twin = f"{ConnectionClosedWhenLeft.__module__}:{ConnectionClosedWhenLeft.__name__}"
    return Planted(make.__name__, (make.__doc__ or "").strip(), frozenset({anomaly}), make, twin)


PLANTED = (
    _planted(AnswerLeftOnTheConnection, "cross-user-data"),
    _planted(CookiesOfAll, "foreign-cookie"),
)
