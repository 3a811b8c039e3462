"""Requests to a service over HTTP, as its file words them: one caller, one stream."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import jmespath

from lab_utils.service.answers import Answer, StreamEvent
from lab_utils.service.file import Operation, ServiceFile
from lab_utils.service.filling import filled, filled_path
from lab_utils.service.traffic import Traffic, masked_headers, trusted
from lab_utils.values.limits import limited

__all__ = ["Door", "Session", "Stream", "answered"]

_MOST: Final = 4_000_000
_CHUNK: Final = 65_536
_MOST_PAGES: Final = 20
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_BODILESS: Final = re.compile(rb"HTTP/1\.\d (?:204|304) ")


@dataclass(slots=True)
class Session:
    """One session of one user, as the service knows it: `values` holds its id and all that `open` has extracted."""

    user: str
    values: dict[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return self.values.get("session", "")


class Stream:
    """One client that listens. `events` grows as they arrive; `is_open` is False once the connection has ended."""

    def __init__(self, opened: asyncio.Future[Answer], reader: asyncio.Task[None], events: list[StreamEvent]) -> None:
        self._opened, self._reader, self.events = opened, reader, events

    @property
    def is_open(self) -> bool:
        return not self._reader.done()

    async def opened(self) -> Answer:
        """The answer with which it began: a refusal, or that the service streams."""
        return await asyncio.shield(self._opened)

    async def close(self) -> None:
        """Drop the connection, as a client does that goes away."""
        self._reader.cancel()
        with suppress(asyncio.CancelledError):
            await self._reader


class Door:
    """One caller of a service: a connection pool, cookies and credentials of its own.

    `headers` carry the credentials; `query` and the fields of a body, `fields`, are sent with each request, beside the
    operation's own. Subclass it in Python where a service file is not enough: override `do`, and `events` for streams
    that begin in another way. `token` is the one in its headers or its query.
    """

    token = ""

    def __init__(self, service: ServiceFile, base: str, who: str, headers: Mapping[str, str], traffic: Traffic) -> None:
        self.service, self.base, self.who, self.traffic = service, base, who, traffic
        self.headers = dict(headers)
        self.query: dict[str, str] = {}
        self.fields: dict[str, str] = {}
        self._streams: list[Stream] = []
        # Shorter than servers keep an idle connection (5 s is common): a request on one that just ends is no answer.
        limits = httpx.Limits(max_connections=None, keepalive_expiry=2.0)
        self._connections = httpx.AsyncHTTPTransport(verify=trusted(), trust_env=False, limits=limits)
        self._client = self._over(self._connections)

    def _over(self, connections: httpx.AsyncHTTPTransport) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self.base, transport=connections, trust_env=False, follow_redirects=False, timeout=None
        )

    def share(self, other: Door) -> None:
        """Send over the connections of another caller from now on, as a proxy does that pools them. Cookies and
        credentials stay one's own."""
        self._client = self._over(other._connections)

    async def close(self) -> None:
        """Drop all streams and connections."""
        for stream in self._streams:
            await stream.close()
        self._streams.clear()
        # The client may send over another's connections, which are that one's to close.
        await self._connections.aclose()

    async def do(self, word: str, session: Session | None, values: Mapping[str, Any]) -> Answer:
        """Send one word and return its answer, in at most `bounds.deadline_s` in all, pings or not."""
        operation = self.service.operations[word]
        if operation.next:
            return await self._paged(operation, word, session, values)
        return await self._sent(operation, word, self.request(operation, session, values))

    async def garbled(self, word: str, session: Session | None, values: Mapping[str, Any]) -> Answer:
        """Send one word with a body that is cut short by one byte, and so is no JSON."""
        operation = self.service.operations[word]
        whole = self.request(operation, session, values)
        headers = [(name, text) for name, text in whole.headers.raw if name.lower() != b"content-length"]
        request = self._client.build_request(whole.method, whole.url, headers=headers, content=whole.content[:-1])
        return await self._sent(operation, word, request)

    async def _paged(
        self, operation: Operation, word: str, session: Session | None, values: Mapping[str, Any]
    ) -> Answer:
        """All pages as one answer: the texts joined by line breaks, the values in one list."""
        cursor, pages = "", list[Answer]()
        while not pages or (pages[-1].is_done and cursor and len(pages) < _MOST_PAGES):
            request = self.request(operation, session, {**values, "cursor": cursor})
            pages.append(await self._sent(operation, word, request))
            cursor = pages[-1].extracted.get("cursor", "")
        text = "\n".join(page.text for page in pages)
        value = [one for page in pages for one in (page.value if isinstance(page.value, list) else [page.value])]
        return dataclasses.replace(pages[-1], text=text, value=value)

    async def _sent(self, operation: Operation, word: str, request: httpx.Request) -> Answer:
        number = await self.traffic.admit()
        try:
            async with limited(self.service.bounds.deadline_s):
                answer = await self._whole(operation, request)
        except TimeoutError:
            answer = Answer(0, error=f"no whole answer in {self.service.bounds.deadline_s:g} s")
        except httpx.HTTPError as error:
            answer = Answer(0, error=f"{type(error).__name__}: {error}".rstrip(": "))
        self.log(number, word, request, str(answer))
        return answer

    def request(self, operation: Operation, session: Session | None, values: Mapping[str, Any]) -> httpx.Request:
        """The request that an operation is for these values."""
        known = {**self.service.variables, "user": self.who, **(session.values if session else {}), **values}
        headers = {**self.headers, **{name: str(filled(text, known)) for name, text in operation.headers.items()}}
        # A header that is not ASCII goes as UTF-8: its interpretation is the server's own affair.
        sent = [(name.encode(), text.encode()) for name, text in headers.items() if text]
        body, form = filled(operation.body, known), filled(operation.form, known)
        return self._client.build_request(
            operation.method,
            filled_path(operation.path, known),
            params={**self.query, **filled(operation.query, known)} or None,
            headers=sent,
            json={**self.fields, **body} if isinstance(body, dict) else body,
            data={**self.fields, **form} if form else None,
        )

    async def _whole(self, operation: Operation, request: httpx.Request) -> Answer:
        response = await self._client.send(request, stream=True)
        try:
            parts: list[bytes] = []
            async for chunk in response.aiter_bytes():
                parts.append(chunk)
                if sum(map(len, parts)) > _MOST:
                    return Answer(0, error=f"the answer is longer than {_MOST:,} bytes")
                if self.is_whole(request, parts):
                    break
        finally:
            await response.aclose()
        return self.answered(operation, request, response, b"".join(parts).decode("utf-8", "replace"))

    def is_whole(self, request: httpx.Request, parts: list[bytes]) -> bool:
        """Whether these chunks hold the whole answer, though the server has not ended it."""
        return False

    def answered(self, operation: Operation, request: httpx.Request, response: httpx.Response, text: str) -> Answer:
        """The answer as the file reads it."""
        return answered(operation, response, text)

    async def abandon(
        self,
        word: str,
        session: Session | None,
        values: Mapping[str, Any],
        after: int,
        meanwhile: Callable[[], Awaitable[object]] | None = None,
    ) -> bool:
        """Send one word on a connection of its own and drop that: after half of its body (`after` = -1), after all of
        it (0), or after so many chunks of the answer. `meanwhile` is awaited before the connection is dropped. False
        if the answer had ended before."""
        request = self.request(self.service.operations[word], session, values)
        number = await self.traffic.admit()
        sent = _raw(request)
        parts = urlsplit(self.base)
        secure = parts.scheme == "https"
        deadline = self.service.bounds.deadline_s
        is_short = False
        async with limited(deadline):
            reader, writer = await asyncio.open_connection(
                parts.hostname, parts.port or (443 if secure else 80), ssl=secure or None
            )
        try:
            with suppress(TimeoutError, OSError):
                async with limited(deadline):
                    # If it has no body, half of its head.
                    half = len(sent) - (len(request.content) or len(sent)) // 2
                    writer.write(sent if after >= 0 else sent[:half])
                    await writer.drain()
                    if meanwhile is not None:
                        await meanwhile()
                    said = b""
                    for _ in range(after):
                        chunk = await reader.read(_CHUNK)
                        said += chunk
                        if not chunk or _is_whole(said):
                            is_short = True
                            break
        finally:
            # At once, whatever is under way: a reset where some of the answer is unread. Not one always: before its
            # server has read it, a reset would take the request away.
            writer.transport.abort()
        self.log(number, word, request, f"abandoned after {'half the request' if after < 0 else f'{after} chunks'}")
        return not is_short

    def listen(self, session: Session, values: Mapping[str, Any]) -> Stream:
        """Begin to listen to a session's events."""
        events: list[StreamEvent] = []
        opened: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        async def read() -> None:
            try:
                async for event in self.events(session, values, opened):
                    events.append(event)  # noqa: PERF401 - each is to be there as soon as it has come
            except (httpx.HTTPError, OSError) as error:
                if not opened.done():
                    opened.set_result(Answer(0, error=f"{type(error).__name__}: {error}"))
            finally:
                if not opened.done():
                    opened.set_result(Answer(0, error="the stream did not begin"))

        stream = Stream(opened, asyncio.create_task(read()), events)
        self._streams.append(stream)
        return stream

    async def events(
        self, session: Session, values: Mapping[str, Any], opened: asyncio.Future[Answer]
    ) -> AsyncIterator[StreamEvent]:
        """Yield a session's events until the service ends the stream; set `opened` once it has begun or was refused."""
        operation = self.service.operations["stream"]
        request = self.request(operation, session, values)
        number = await self.traffic.admit()
        if operation.events == "websocket":
            async for event in self._over_websocket(request, opened):
                yield event
            return
        response = await self._client.send(request, stream=True)
        try:
            if not _is_ok(operation, response.status_code):
                text = (await response.aread()).decode("utf-8", "replace")
                opened.set_result(answered(operation, response, text))
                self.log(number, "stream", request, str(opened.result()))
                return
            opened.set_result(Answer(response.status_code, "", _headers(response), is_done=True))
            self.log(number, "stream", request, f"{response.status_code}, events follow")
            lines = response.aiter_lines()
            async for event in _sse(lines) if operation.events == "sse" else _lines(lines):
                yield event
        finally:
            await response.aclose()

    async def _over_websocket(
        self, request: httpx.Request, opened: asyncio.Future[Answer]
    ) -> AsyncIterator[StreamEvent]:
        from websockets.asyncio.client import connect
        from websockets.exceptions import InvalidStatus, WebSocketException

        url = str(request.url.copy_with(scheme="wss" if request.url.scheme == "https" else "ws"))
        own = {"host", "accept", "accept-encoding", "connection", "user-agent", "content-length", "content-type"}
        headers = [(name, text) for name, text in request.headers.items() if name.lower() not in own]
        try:
            async with connect(url, additional_headers=headers, proxy=None) as socket:
                opened.set_result(Answer(101, is_done=True))
                async for text in socket:
                    yield StreamEvent(text if isinstance(text, str) else text.decode("utf-8", "replace"))
        except InvalidStatus as refusal:
            response = refusal.response
            text = (response.body or b"").decode("utf-8", "replace")
            opened.set_result(Answer(response.status_code, text, error="the WebSocket was refused"))
        except WebSocketException as error:
            if not opened.done():
                opened.set_result(Answer(0, error=f"{type(error).__name__}: {error}"))

    def log(self, number: int, word: str, request: httpx.Request, answer: str) -> None:
        self.traffic.log(
            number,
            self.who,
            {
                "word": word,
                "request": f"{request.method} {request.url}",
                "headers": masked_headers({**request.headers}),
                "body": _body(request),
            },
            answer,
        )


def answered(operation: Operation, response: httpx.Response, text: str) -> Answer:
    """The answer as the file reads it. If the answer lacks a value that the file extracts, it counts as not done."""
    is_done = _is_ok(operation, response.status_code)
    try:
        data = json.loads(text)
    except ValueError:
        data = None
    extracted: dict[str, str] = {}
    missing = ""
    if operation.next and is_done and (cursor := jmespath.search(operation.next, data)):
        extracted["cursor"] = str(cursor)
    for name, expression in operation.extract.items() if is_done else ():
        if expression.startswith("header:"):
            found = response.headers.get(expression.removeprefix("header:"))
        else:
            found = jmespath.search(expression, data)
        if found is None:
            missing = f"the answer has no {expression}, which operations extract as {name}"
        else:
            extracted[name] = found if isinstance(found, str) else json.dumps(found)
    value = jmespath.search(operation.answer, data) if operation.answer else text
    return Answer(response.status_code, text, _headers(response), is_done and not missing, value, extracted, missing)


def _is_ok(operation: Operation, status: int) -> bool:
    return status in operation.ok if operation.ok else 200 <= status < 300


def _headers(response: httpx.Response) -> tuple[tuple[str, str], ...]:
    return tuple(response.headers.multi_items())


def _raw(request: httpx.Request) -> bytes:
    head = [f"{request.method} {request.url.raw_path.decode('ascii')} HTTP/1.1".encode()]
    head += [name + b": " + value for name, value in request.headers.raw if name.lower() != b"connection"]
    return b"\r\n".join([*head, b"connection: close", b"", request.content])


def _is_whole(said: bytes) -> bool:
    """Whether these bytes are a whole answer, by its length or its last chunk: a server may keep the connection open
    all the same."""
    head, end, body = said.partition(b"\r\n\r\n")
    if not end:
        return False
    if length := _LENGTH.search(head):
        return len(body) >= int(length[1])
    return said.endswith(b"\r\n0\r\n\r\n") or _BODILESS.match(head) is not None


def _body(request: httpx.Request) -> str:
    return request.content.decode("utf-8", "replace")


async def _sse(lines: AsyncIterator[str]) -> AsyncIterator[StreamEvent]:
    """Server-sent events, in each of their dialects: with and without types, ids, and a space after the colon."""
    data: list[str] = []
    fields = {"id": "", "event": ""}
    async for line in lines:
        if not line:
            if data:
                yield StreamEvent("\n".join(data), fields["id"], fields["event"])
            data, fields["event"] = [], ""
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        elif name in fields:
            fields[name] = value
    if data:
        yield StreamEvent("\n".join(data), fields["id"], fields["event"])


async def _lines(lines: AsyncIterator[str]) -> AsyncIterator[StreamEvent]:
    async for line in lines:
        if line.strip():
            yield StreamEvent(line)
