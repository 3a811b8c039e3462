"""Tools of an MCP server over Streamable HTTP. The official SDK negotiates version and session; calls are then requests
like all others, so that they can overlap, be abandoned, and name another's session."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import httpx
import httpx2
import jmespath
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from lab_utils.service.answers import Answer
from lab_utils.service.door import Door, Session, answered
from lab_utils.service.file import Operation, ServiceFile
from lab_utils.service.filling import filled
from lab_utils.service.traffic import Traffic, trusted
from lab_utils.values.limits import limited

__all__ = ["McpDoor"]

_FIRST_OF_NEW_ERA: Final = "2026"
"""From this version on a request states version and client itself, and there are no sessions."""
_META: Final = "io.modelcontextprotocol/"
_PATH: Final = "/mcp"
_OWN: Final = "mcp_session"
"""The name of the protocol's session among the values of a session that a tool has made."""
_UNKNOWN_SESSION: Final = 404


class McpDoor(Door):
    """One caller of an MCP server. Words of the file with a `tool` are calls of it; `open` is the handshake.

    Where `open` is a tool as well, sessions are what that tool makes. The caller then has one session of the protocol
    for all of them, and shakes hands before the first call, and again where the server no longer knows it.
    """

    def __init__(self, service: ServiceFile, base: str, who: str, headers: Mapping[str, str], traffic: Traffic) -> None:
        super().__init__(service, base, who, headers, traffic)
        self._ids = itertools.count(1)
        self._opening = service.operations["open"]
        self._own: Mapping[str, str] = {}
        self._greeting = asyncio.Lock()

    async def do(self, word: str, session: Session | None, values: Mapping[str, Any]) -> Answer:
        if not self._opening.tool:
            return await (self._open() if word == "open" else super().do(word, session, values))
        used = self._own
        refused = None if used else await self._greet(used)
        # Refused a session of its own, a caller who knows another one's names that.
        if refused is not None and not refused.is_done and _OWN not in (session.values if session else {}):
            return refused
        answer = await super().do(word, session, values)
        if answer.status == _UNKNOWN_SESSION and used and (await self._greet(used)).is_done:
            answer = await super().do(word, session, values)
        if word == "open" and answer.is_done:
            protocol = {_OWN: self._own.get("session", ""), "protocol": self._own.get("protocol", "")}
            return dataclasses.replace(answer, extracted={**protocol, **answer.extracted})
        return answer

    async def _greet(self, known: Mapping[str, str]) -> Answer:
        """Have another session of the protocol than the `known` one: once, however many calls need it."""
        async with self._greeting:
            if self._own is not known:
                return Answer(200, is_done=True)
            answer = await self._open()
            self._own = answer.extracted if answer.is_done else self._own
            return answer

    async def _open(self) -> Answer:
        number = await self.traffic.admit()
        path = self._opening.path or _PATH
        try:
            async with limited(self.service.bounds.deadline_s):
                answer = await self._handshake(path)
        except TimeoutError:
            answer = Answer(0, error=f"no handshake in {self.service.bounds.deadline_s:g} s")
        except BaseExceptionGroup as group:
            first: BaseException = group
            while isinstance(first, BaseExceptionGroup):
                first = first.exceptions[0]
            answer = Answer(400, error=f"the handshake failed: {type(first).__name__}: {first}")
        except Exception as error:
            answer = Answer(400, error=f"the handshake failed: {type(error).__name__}: {error}")
        row = {"word": "open", "request": f"MCP handshake with {self.base}{path}", "headers": {}, "body": ""}
        self.traffic.log(number, self.who, row, str(answer))
        return answer

    async def _handshake(self, path: str) -> Answer:
        """Connect with the SDK: by the handshake that gives a session, else by whatever the server has."""
        try:
            return await self._connect(path, "legacy")
        except Exception:
            return await self._connect(path, "auto")

    async def _connect(self, path: str, mode: Any) -> Answer:
        found: dict[str, str] = {}

        async def note(response: httpx2.Response) -> None:
            if id := response.headers.get("mcp-session-id"):
                found["session"] = id

        hooks = {"response": [note]}
        async with httpx2.AsyncClient(
            headers=self.headers, verify=trusted(), trust_env=False, event_hooks=hooks
        ) as http:
            url = str(httpx.URL(f"{self.base}{path}").copy_merge_params(self.query))
            transport = streamable_http_client(url, http_client=http, terminate_on_close=False)
            async with Client(transport, mode=mode, cache=None) as client:
                found["protocol"] = client.protocol_version
        return Answer(200, json.dumps(found), is_done=True, value=found, extracted=found)

    def request(self, operation: Operation, session: Session | None, values: Mapping[str, Any]) -> httpx.Request:
        known = {**self.service.variables, "user": self.who, **(session.values if session else {}), **values}
        headers = {**self.headers, "accept": "application/json, text/event-stream"}
        own = self._own or {"protocol": known.get("protocol", ""), "session": known.get(_OWN, "")}
        own = own if self._opening.tool else known
        protocol = str(own.get("protocol", ""))
        headers |= {"mcp-protocol-version": protocol, "mcp-session-id": str(own.get("session", ""))}
        body: dict[str, Any] | None = None
        method, path = operation.method, operation.path
        if operation.tool:
            method, path = "POST", self._opening.path or _PATH
            params = {"name": operation.tool, "arguments": filled(operation.arguments, known)}
            body = {"jsonrpc": "2.0", "id": next(self._ids), "method": "tools/call", "params": params}
            if protocol >= _FIRST_OF_NEW_ERA:
                client = {"name": "registry-lab", "version": "1"}
                params["_meta"] = {
                    f"{_META}protocolVersion": protocol,
                    f"{_META}clientInfo": client,
                    f"{_META}clientCapabilities": {},
                }
                headers |= {"mcp-method": "tools/call", "mcp-name": operation.tool}
        sent = [(name.encode(), text.encode()) for name, text in headers.items() if text]
        return self._client.build_request(method, path, params=self.query or None, headers=sent, json=body)

    def is_whole(self, request: httpx.Request, parts: list[bytes]) -> bool:
        # A server may keep the stream of an answer open, and ping: the answer is whole with the message of its id.
        return _message(request, b"".join(parts).decode("utf-8", "replace")) is not None

    def answered(self, operation: Operation, request: httpx.Request, response: httpx.Response, text: str) -> Answer:
        if not operation.tool:
            return answered(operation, response, text)
        message = _message(request, text) or {}
        result = message.get("result")
        headers = tuple(response.headers.multi_items())
        if response.status_code >= 300 or not isinstance(result, dict):
            return Answer(response.status_code, text, headers)
        shown = json.dumps(result, ensure_ascii=False)
        is_done = not result.get("isError", False)
        shape = _with_json(result)
        value = jmespath.search(operation.answer, shape) if operation.answer else shown
        found = {name: jmespath.search(place, shape) for name, place in operation.extract.items()} if is_done else {}
        if missing := [name for name, one in found.items() if one is None]:
            error = f"the result has no {', '.join(operation.extract[name] for name in missing)}"
            return Answer(response.status_code, shown, headers, error=error)
        extracted = {name: str(one) for name, one in found.items()}
        return Answer(response.status_code, shown, headers, is_done, value, extracted)


def _message(request: httpx.Request, text: str) -> dict[str, Any] | None:
    """The answer to this request in a body of JSON, or in one of server-sent events; None if it is not in there."""
    try:
        wanted = json.loads(request.content).get("id")
    except ValueError:
        # A request without a body, or with one that was cut short, has no id.
        return None
    lines = [line.removeprefix("data:").strip() for line in text.splitlines() if line.startswith("data:")]
    for candidate in (text, *lines):
        with suppress(ValueError):
            found = json.loads(candidate)
            if isinstance(found, dict) and found.get("id") == wanted and ("result" in found or "error" in found):
                return found
    return None


def _with_json(result: Mapping[str, Any]) -> dict[str, Any]:
    """The result, and as `json` its first text, where that is JSON."""
    made = dict(result)
    content = result.get("content") or [{}]
    with suppress(ValueError, TypeError, AttributeError):
        made["json"] = json.loads(content[0].get("text", ""))
    return made
