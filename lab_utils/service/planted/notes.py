"""A server of notes for many users, as an ASGI app: it keeps the promises of its service file."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import itertools
import json
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl

__all__ = ["KEY", "Model", "Notes", "Refused", "Request", "Session"]

KEY: Final = b"planted-signing-key"
PAGE: Final = 10
_PARTS: Final = 5

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Refused(Exception):
    """A request that is answered with this status."""

    def __init__(self, status: int, detail: str = "") -> None:
        super().__init__(detail)
        self.status = status


@dataclass(slots=True)
class Session:
    """One session of one user."""

    id: str
    user: str
    notes: list[str] = field(default_factory=list)
    total: int = 0
    log: list[tuple[int, str]] = field(default_factory=list)
    listeners: list[asyncio.Queue[tuple[int, str]]] = field(default_factory=list)


@dataclass(slots=True)
class Request:
    """One request, its body read."""

    method: str
    parts: list[str]
    headers: dict[str, str]
    body: Any
    port: int
    query: dict[str, str] = field(default_factory=dict)
    user: str = ""


class Model:
    """A connection to a model: one reply for each prompt, in order, after `reply_s` seconds."""

    def __init__(self, reply_s: float) -> None:
        self.reply_s = reply_s
        self._replies: asyncio.Queue[list[str]] = asyncio.Queue()

    async def send(self, prompt: str) -> None:
        await self._replies.put(["You said: ", prompt, "."])

    async def reply(self) -> list[str]:
        # In parts: a server that had no processor meanwhile learns first who has left.
        for _ in range(_PARTS):
            await asyncio.sleep(self.reply_s / _PARTS)
        return await self._replies.get()


class Notes:
    """The app. A planted service overrides a method here, and has in `finds` the anomalies that must be found on it."""

    reply_s = 0.005
    finds: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.sessions = self.restored()
        self.locks: dict[str, asyncio.Lock] = {}
        self.note_numbers = itertools.count(1)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = {name.decode().lower(): value.decode("utf-8", "replace") for name, value in scope["headers"]}
        raw = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            raw += message.get("body", b"")
            if not message.get("more_body"):
                break
        parts = [part for part in scope["path"].split("/") if part]
        request = Request(scope["method"], parts, headers, self.parsed(raw), scope["client"][1])
        request.query = dict(parse_qsl(scope.get("query_string", b"").decode()))
        try:
            request.user = self.user_of(request)
            await self.answer(request, receive, send)
        except Refused as refusal:
            await self.respond(send, refusal.status, {"error": self.words(refusal, request)})

    def parsed(self, raw: bytes) -> Any:
        try:
            return json.loads(raw) if raw else {}
        except ValueError:
            return {}

    async def answer(self, request: Request, receive: Receive, send: Send) -> None:
        match request.method, request.parts:
            case "GET", ["health"]:
                await self.respond(send, 200, {})
            case "POST", ["sessions"]:
                session = await self.open(request)
                await self.respond(send, 201, {"id": request.body.get("id") or session.id})
            case "GET", ["sessions"]:
                await self.respond(send, 200, self.page(request, int(request.query.get("cursor") or 0)))
            case "POST", ["sessions", id, "notes"]:
                session = self.find(request, id, "write")
                await self.write(session, str(request.body.get("text", "")))
                # Serial over all users, as a table's key is: it shows how much they write, and no data. The title is
                # the session's first note, so that its first answer alone repeats the request.
                await self.respond(send, 200, {"note": next(self.note_numbers), "title": session.notes[0]})
            case "GET", ["sessions", id, "notes"]:
                session = self.find(request, id, "read")
                await self.respond(send, 200, self.shown(request, session))
            case "POST", ["sessions", id, "counter"]:
                total = await self.add(self.find(request, id, "add"), int(request.body.get("amount", 0)))
                await self.respond(send, 200, {"total": total})
            case "GET", ["sessions", id, "counter"]:
                await self.respond(send, 200, {"total": self.find(request, id, "total").total})
            case "POST", ["sessions", id, "run"]:
                session = self.find(request, id, "run")
                await self.run(session, str(request.body.get("text", "")), receive, send)
            case "GET", ["sessions", id, "events"]:
                await self.stream(self.find(request, id, "stream"), request, receive, send)
            case "DELETE", ["sessions", id]:
                self.end(self.find(request, id, "end"))
                await self.respond(send, 204, None)
            case _:
                raise Refused(404, "no such page")

    # Who it is.

    def user_of(self, request: Request) -> str:
        if request.parts == ["health"]:
            return ""
        return self.verified(request.headers.get("authorization", "").removeprefix("Bearer "))

    def verified(self, token: str) -> str:
        """The user whose token this is. Raises `Refused` for one that is missing, forged or expired."""
        try:
            head, body, signature = token.split(".")
            claims = json.loads(_decoded(body))
        except ValueError:
            raise Refused(401, "no valid token") from None
        if not self.is_signed(json.loads(_decoded(head)), f"{head}.{body}", _decoded(signature)):
            raise Refused(401, "no valid token")
        if not self.is_fresh(claims["exp"]):
            raise Refused(401, "the token has expired")
        return str(claims["sub"])

    def is_signed(self, head: Any, text: str, signature: bytes) -> bool:
        return hmac.compare_digest(hmac.new(KEY, text.encode(), hashlib.sha256).digest(), signature)

    def is_fresh(self, expires_at: float) -> bool:
        return time.time() < expires_at

    # Sessions.

    def new_id(self) -> str:
        return secrets.token_urlsafe(12)

    def key(self, user: str, id: str) -> str:
        return json.dumps([user, id])

    async def open(self, request: Request) -> Session:
        id = str(request.body.get("id") or self.new_id())
        key = self.key(request.user, id)
        if key in self.sessions:
            raise Refused(409, "there is one of this id")
        session = self.sessions[key] = self.made(request.user, id)
        self.keep(session)
        return session

    def made(self, user: str, id: str) -> Session:
        return Session(id, user)

    def find(self, request: Request, id: str, word: str) -> Session:
        """The user's own session of this id. Raises `Refused`."""
        session = self.sessions.get(self.key(request.user, id))
        if session is None:
            raise Refused(404, "no such session")
        return session

    def listed(self, user: str) -> list[str]:
        return [session.id for session in self.sessions.values() if session.user == user]

    def page(self, request: Request, start: int) -> dict[str, Any]:
        sessions, end = self.listed(request.user), start + PAGE
        return {"sessions": sessions[start:end], "next": str(end) if end < len(sessions) else None}

    def end(self, session: Session) -> None:
        self.sessions.pop(self.key(session.user, session.id), None)
        self.forget(session)

    # The data that a restart leaves: a file for each session, in the folder that the server runs in.

    def file_of(self, session: Session) -> Path:
        name = hashlib.sha256(self.key(session.user, session.id).encode()).hexdigest()
        return Path(f"{name}.json")

    def keep(self, session: Session) -> None:
        self.file_of(session).write_text(
            json.dumps([session.id, session.user, session.notes, session.total, session.log])
        )

    def forget(self, session: Session) -> None:
        self.file_of(session).unlink(missing_ok=True)

    def restored(self) -> dict[str, Session]:
        found = [Session(*json.loads(path.read_text())) for path in Path().glob("*.json")]
        return {self.key(session.user, session.id): session for session in found}

    # Their content.

    async def write(self, session: Session, text: str) -> None:
        session.notes.append(text)
        self.publish(session, text)
        self.keep(session)

    def shown(self, request: Request, session: Session) -> dict[str, Any]:
        return {"notes": session.notes}

    async def add(self, session: Session, amount: int) -> int:
        async with self.locks.setdefault(self.key(session.user, session.id), asyncio.Lock()):
            before = session.total
            await asyncio.sleep(0)
            session.total = before + amount
            self.keep(session)
            return session.total

    # Runs, whose answers come in chunks.

    async def run(self, session: Session, text: str, receive: Receive, send: Send) -> None:
        work = asyncio.create_task(self.think(session, text))
        gone = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                return
            await self.begin(send, 200, "text/plain")
            for chunk in work.result():
                if gone.done():
                    return
                await send({"type": "http.response.body", "body": chunk.encode(), "more_body": True})
                await asyncio.sleep(0.001)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)

    async def think(self, session: Session, text: str) -> list[str]:
        model = Model(self.reply_s)
        await model.send(text)
        return await model.reply()

    # Streams.

    def publish(self, session: Session, text: str) -> None:
        event = (len(session.log) + 1, text)
        session.log.append(event)
        for listener in self.listeners_of(session):
            listener.put_nowait(event)

    def listeners_of(self, session: Session) -> list[asyncio.Queue[tuple[int, str]]]:
        return session.listeners

    def missed(self, session: Session, last: int) -> list[tuple[int, str]]:
        return [event for event in session.log if event[0] > last]

    def stream_ends_at(self, request: Request) -> float | None:
        """When the token of the one who listens expires; None for a token that does not say when."""
        try:
            claims = json.loads(_decoded(request.headers.get("authorization", "").split(".")[1]))
            return float(claims["exp"])
        except (IndexError, KeyError, TypeError, ValueError):
            return None

    async def stream(self, session: Session, request: Request, receive: Receive, send: Send) -> None:
        last = request.headers.get("last-event-id", "")
        queue: asyncio.Queue[tuple[int, str]] = asyncio.Queue()
        for event in self.missed(session, int(last)) if last.isdigit() else ():
            queue.put_nowait(event)
        session.listeners.append(queue)
        gone = asyncio.create_task(_gone(receive))
        try:
            await self.begin(send, 200, "text/event-stream")
            await send({"type": "http.response.body", "body": b": hello\n\n", "more_body": True})
            ends_at = self.stream_ends_at(request)
            while not gone.done():
                waiting = asyncio.create_task(queue.get())
                left = None if ends_at is None else max(0.0, ends_at - time.time())
                await asyncio.wait({waiting, gone}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                if not waiting.done():
                    waiting.cancel()
                    break
                number, text = waiting.result()
                data = f"id: {number}\nevent: note\ndata: {json.dumps({'text': text})}\n\n".encode()
                await send({"type": "http.response.body", "body": data, "more_body": True})
        finally:
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
            with contextlib.suppress(ValueError):
                session.listeners.remove(queue)

    # Answers.

    def words(self, refusal: Refused, request: Request) -> str:
        return str(refusal)

    async def begin(self, send: Send, status: int, kind: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        sent = [(b"content-type", kind.encode()), *((name.encode(), value.encode()) for name, value in headers)]
        await send({"type": "http.response.start", "status": status, "headers": sent})

    async def respond(self, send: Send, status: int, body: Any, headers: tuple[tuple[str, str], ...] = ()) -> None:
        await self.begin(send, status, "application/json", headers)
        await send({"type": "http.response.body", "body": b"" if body is None else json.dumps(body).encode()})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
