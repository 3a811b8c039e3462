"""A stand-in model: a real HTTP server on loopback that speaks chat completions and records every prompt."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote_plus

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from lab_utils.standin.script import Asked, Fault, Misbehaviour, Plan, Reply, strings_in
from lab_utils.standin.threaded import ThreadedServer
from lab_utils.values.canaries import cookie_of, cookies_in

__all__ = ["StandInLLM"]

Answer = Callable[[Sequence[tuple[str, str]]], Awaitable[Reply]]
_EVENTS = "text/event-stream"
_CREDENTIALS = frozenset({"authorization", "proxy-authorization", "api-key", "x-api-key", "cookie"})


class StandInLLM:
    """Answers by `answer`, misbehaves by `plan`, records its requests. A context manager, or `start` and `stop`.

    Connections stay open between requests, and each answer sets a cookie that names its user (`cookie_of`).

    `answer(messages)` is awaited in the server's thread; equal messages should give equal replies. `keys`: api key to
    the user it belongs to; any other key is refused with 401. Without it every key is good. Keys are not recorded.
    `sleep` is that of a slow answer's pause. At the end, a connection that is not answered within `grace_s` seconds is
    closed.
    """

    def __init__(
        self,
        answer: Answer,
        *,
        plan: Plan | None = None,
        keys: Mapping[str, str] | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        grace_s: float = 2.0,
    ) -> None:
        self._answer = answer
        self.plan = plan
        self.sleep = sleep
        self._keys = keys
        self._changed = threading.Condition()
        self._asked: list[Asked] = []
        self._held = 0
        self._released = asyncio.Event()
        route = Route("/v1/chat/completions", self._complete, methods=["POST"])
        self._server = ThreadedServer(Starlette(routes=[route]), "stand-in LLM", self._released.set, grace_s=grace_s)

    @property
    def base_url(self) -> str:
        """Where it is, as clients take it."""
        return f"http://127.0.0.1:{self._server.port}/v1"

    @property
    def asked(self) -> tuple[Asked, ...]:
        """Every request so far, each try of a call on its own, in the order of arrival."""
        with self._changed:
            return tuple(self._asked)

    @property
    def held(self) -> int:
        """Requests that wait for `release`."""
        return self._held

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        return self._server.connections

    def release(self) -> None:
        """Let go all requests that are held, and hold none from now on."""
        self._server.call(self._released.set)

    def hold(self) -> None:
        """Hold again those that the plan holds."""
        self._server.call(self._released.clear)

    def wait_until(self, holds: Callable[[], bool], timeout: float = 30.0) -> bool:
        """Block until `holds()`, which is asked whenever a request has come or is held; False if it never does."""
        with self._changed:
            return self._changed.wait_for(holds, timeout)

    def start(self) -> Self:
        """Listen, and accept connections."""
        self._server.start()
        return self

    def stop(self) -> None:
        """End the server, held requests first; the records stay. Blocks. Safe to call again."""
        self._server.stop()

    async def aclose(self) -> None:
        """As `stop`, without blocking the loop."""
        await self._server.aclose()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def wait_for_release(self) -> None:
        """In the server's loop: hold a request."""
        self._count_held(1)
        try:
            await self._released.wait()
        finally:
            self._count_held(-1)

    def close_connection(self, scope: Scope) -> None:
        """In the server's loop: close the connection of a request after everything written to it was sent."""
        self._server.close_connection(scope["client"])

    def _count_held(self, more: int) -> None:
        with self._changed:
            self._held += more
            self._changed.notify_all()

    async def _complete(self, request: Request) -> Response:
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self._keys is not None and key not in self._keys:
            # Repeats the key, as careless servers do: a client must not pass it on.
            return _error(401, f"Incorrect API key provided: {key}", "invalid_api_key")
        try:
            body = json.loads(await request.body())
            messages = tuple((str(message["role"]), str(message["content"])) for message in body["messages"])
        except ClientDisconnect:
            # Left in the middle of its question. Nothing of this answer is sent, but to the server it is one.
            return Response(status_code=400)
        except (ValueError, TypeError, KeyError) as error:
            return _error(400, f"no request for a chat completion: {type(error).__name__}", "invalid_request")
        user = str(body.get("user") or (self._keys or {}).get(key, ""))
        attempt = int(request.headers.get("x-stainless-retry-count", "0"))
        asked, odd = self._record(
            Asked(0, user, attempt, bool(body.get("stream")), messages, strings=_strings(request, body))
        )
        if odd is not None and odd.fault in (Fault.RATE_LIMITED, Fault.SERVER_ERROR):
            status = 429 if odd.fault is Fault.RATE_LIMITED else 500
            return _error(status, f"set to answer {status}", odd.fault, odd.retry_after)
        reply = await self._answer(messages)
        model = str(body.get("model", ""))
        if asked.stream:
            usage = bool((body.get("stream_options") or {}).get("include_usage"))
            pieces = list(_events(model, asked.number, reply, usage=usage))
        else:
            pieces = [json.dumps(_whole(model, asked.number, reply)).encode()]
        answer = _Pieces(self, pieces, asked, odd.pause_s if odd is not None else 0.0)
        if user:
            # As servers with sessions do: a client that sends this back is taken for this user.
            answer.headers["set-cookie"] = f"session={cookie_of(user)}; Path=/"
        return answer

    def _record(self, asked: Asked) -> tuple[Asked, Misbehaviour | None]:
        with self._changed:
            asked = replace(asked, number=len(self._asked) + 1)
            odd = self.plan(asked) if self.plan is not None else None
            asked = replace(asked, fault=None if odd is None else odd.fault)
            self._asked.append(asked)
            self._changed.notify_all()
        return asked, odd


class _Pieces(Response):
    """An answer in pieces, that can go wrong half-way."""

    def __init__(self, server: StandInLLM, pieces: list[bytes], asked: Asked, pause_s: float) -> None:
        super().__init__(media_type=_EVENTS if asked.stream else "application/json")
        self._server = server
        self._fault = asked.fault
        self._pause_s = pause_s
        if len(pieces) == 1:
            half = len(pieces[0]) // 2
            pieces = [pieces[0][:half], pieces[0][half:]]
        self._first, self._rest = pieces[: len(pieces) // 2], pieces[len(pieces) // 2 :]
        if asked.fault is Fault.MALFORMED:
            self._rest = [b'data: {"choices": [{"delta\n\n' if asked.stream else b'"broken": [', *self._rest]
        if not asked.stream and asked.fault is not Fault.UNFINISHED:
            self.headers["content-length"] = str(sum(map(len, self._first + self._rest)))
        elif "content-length" in self.headers:
            del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._fault is Fault.SILENT:
            await self._server.wait_for_release()
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await self._send(self._first, send)
        if self._fault is Fault.CUT_OFF:
            self._server.close_connection(scope)
            while (await receive())["type"] != "http.disconnect":
                pass
            return
        if self._fault is Fault.STALLED:
            await self._server.wait_for_release()
        if self._fault is Fault.SLOW:
            await self._server.sleep(self._pause_s)
        if self._fault is not Fault.UNFINISHED:
            await self._send(self._rest, send)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, pieces: Sequence[bytes], send: Send) -> None:
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            # The server learns here that the client has gone: what is sent then is dropped, and not logged.
            await asyncio.sleep(0)


def _strings(request: Request, body: Any) -> tuple[str, ...]:
    # Whatever a server, or who stands before it, may read and write down: the prompt is only where one looks first.
    lines = [line for line in request.headers.raw if line[0].decode("latin-1").lower() not in _CREDENTIALS]
    told = [part.decode("utf-8", "replace") for line in lines for part in line]
    # Only the server's own cookies, which hold no key.
    own = cookies_in(request.headers.get("cookie", ""))
    return tuple(strings_in([body, unquote_plus(request.url.query), told, own]))


def _error(status: int, message: str, code: str, retry_after: str = "") -> JSONResponse:
    headers = {"retry-after": retry_after} if retry_after else None
    return JSONResponse({"error": {"message": message, "type": "stand_in", "code": code}}, status, headers)


def _whole(model: str, number: int, reply: Reply) -> dict[str, Any]:
    message = {"role": "assistant", "content": reply.text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return _head("chat.completion", model, number) | {"choices": [choice], "usage": _usage(reply)}


def _events(model: str, number: int, reply: Reply, *, usage: bool) -> Iterator[bytes]:
    head = _head("chat.completion.chunk", model, number)
    words = reply.text.split(" ")
    deltas: list[dict[str, str]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": word if place == 0 else f" {word}"} for place, word in enumerate(words)]
    for delta in deltas:
        yield _event(head | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    yield _event(head | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if usage:
        yield _event(head | {"choices": [], "usage": _usage(reply)})
    yield b"data: [DONE]\n\n"


def _event(value: Mapping[str, Any]) -> bytes:
    # Text as it is, not escaped: a client must find the ends of lines and of letters by itself.
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n".encode()


def _head(kind: str, model: str, number: int) -> dict[str, Any]:
    return {"id": f"standin-{number}", "object": kind, "created": 0, "model": model}


def _usage(reply: Reply) -> dict[str, int]:
    total = reply.tokens_in + reply.tokens_out
    return {"prompt_tokens": reply.tokens_in, "completion_tokens": reply.tokens_out, "total_tokens": total}
