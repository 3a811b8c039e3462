"""The planted services: each is the right one with one thing done in another way."""

from __future__ import annotations

import asyncio
import base64
import fnmatch
import itertools
import json
import os
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, MutableMapping
from contextvars import ContextVar
from typing import Any

from lab_utils.service.planted.notes import Message, Model, Notes, Receive, Refused, Request, Send, Session

__all__ = ["DEFECTS"]

_closes: ContextVar[bool] = ContextVar("_closes", default=False)
"""Whether the client of a request has said that it closes its connection."""
_key: ContextVar[str] = ContextVar("_key", default="")
"""The key that a client sent with the request, so that it is done once."""
_LATE_S = 10.0


class _SlowToLeavers(Notes):
    """Runs of a client that will close its connection take until it has left: on a busy machine, too, no run that is
    dropped is answered first."""

    async def answer(self, request: Request, receive: Receive, send: Send) -> None:
        _closes.set(request.headers.get("connection") == "close")
        await super().answer(request, receive, send)

    async def think(self, session: Session, text: str) -> list[str]:
        await self.leaving()
        return await super().think(session, text)

    async def leaving(self) -> None:
        """Wait until the client has left, if it will."""
        if _closes.get():
            await asyncio.sleep(_LATE_S)


# The content of answers.


class CookieOfTheSecond(Notes):
    """The visit's cookie is the second in which it began: two users who come in one second share it."""

    finds = ("cross-user-data",)

    def __init__(self) -> None:
        super().__init__()
        self.visits: dict[str, Session] = {}

    async def answer(self, request: Request, receive: Receive, send: Send) -> None:
        if (request.method, len(request.parts)) != ("POST", 1):
            await super().answer(request, receive, send)
            return
        session = await self.open(request)
        visit = str(int(time.time()))
        self.visits[visit] = session
        await self.respond(send, 201, {"id": session.id}, (("set-cookie", f"visit={visit}"),))

    def find(self, request: Request, id: str, word: str) -> Session:
        own = super().find(request, id, word)
        visit = request.headers.get("cookie", "").partition("=")[2]
        return self.visits.get(visit, own) if word == "read" else own


class ListCacheWithoutUser(Notes):
    """Lists of sessions are cached until one is opened or ended, by their path, without the user."""

    finds = ("foreign-session-listed",)

    def __init__(self) -> None:
        super().__init__()
        self.cached: tuple[int, list[str]] = (0, [])

    def listed(self, user: str) -> list[str]:
        if self.cached[0] != len(self.sessions):
            self.cached = (len(self.sessions), super().listed(user))
        return self.cached[1]


class ErrorPageOfAnother(Notes):
    """An error page shows the last note to the support, and it is the last one of any user."""

    finds = ("cross-user-data",)
    last = ""

    async def write(self, session: Session, text: str) -> None:
        await super().write(session, text)
        self.last = text

    def words(self, refusal: Refused, request: Request) -> str:
        return f"{refusal}; last seen: {self.last}" if refusal.status == 404 else str(refusal)


class HeaderOfAnother(Notes):
    """A header for debugging names the last note that the process has handled."""

    finds = ("cross-user-data",)
    last = ""

    async def write(self, session: Session, text: str) -> None:
        await super().write(session, text)
        self.last = text

    async def respond(self, send: Send, status: int, body: Any, headers: tuple[tuple[str, str], ...] = ()) -> None:
        await super().respond(send, status, body, (*headers, ("x-debug-last", self.last)))


class BadRequestQuotesLast(Notes):
    """The page for a body that is no JSON shows the last one that was, of any user."""

    finds = ("cross-user-data",)
    last = ""

    def parsed(self, raw: bytes) -> Any:
        try:
            found = json.loads(raw or b"{}")
        except ValueError:
            return {"unread": True}
        self.last = raw.decode() or self.last
        return found

    def find(self, request: Request, id: str, word: str) -> Session:
        if "unread" in request.body:
            raise Refused(400, f"no JSON; write it as in {self.last}")
        return super().find(request, id, word)


class BadRequestRollsBack(Notes):
    """Writes of all users become one transaction, which a request whose body is no JSON rolls back."""

    finds = ("lost-write",)

    def __init__(self) -> None:
        super().__init__()
        self.pending: list[tuple[Session, str]] = []

    def parsed(self, raw: bytes) -> Any:
        try:
            return json.loads(raw or b"{}")
        except ValueError:
            self.pending.clear()
            return {}

    async def write(self, session: Session, text: str) -> None:
        self.pending.append((session, text))
        # The transaction lasts until it is rolled back, if it is.
        await _until(lambda: (session, text) not in self.pending, 0.1)
        for one, noted in self.pending:
            await super().write(one, noted)
        self.pending.clear()
        if not session.notes:
            raise Refused(500, "nothing is written")


class AnswersKeptByKey(Notes):
    """An answer is kept by the key that the client sent, and answers every later request with that key, of any user."""

    finds = ("cross-user-data", "lost-write")

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, tuple[int, Any]] = {}

    async def answer(self, request: Request, receive: Receive, send: Send) -> None:
        key = request.headers.get("idempotency-key", "")
        if key in self.kept:
            await super().respond(send, *self.kept[key])
            return
        _key.set(key)
        await super().answer(request, receive, send)

    async def respond(self, send: Send, status: int, body: Any, headers: tuple[tuple[str, str], ...] = ()) -> None:
        if key := _key.get():
            self.kept[key] = (status, body)
        await super().respond(send, status, body, headers)


class BufferNotCleared(Notes):
    """Runs answer from one buffer: after a shorter text stands the end of a longer one before it."""

    finds = ("cross-user-data",)
    buffer = ""

    async def think(self, session: Session, text: str) -> list[str]:
        self.buffer = text + self.buffer[len(text) :]
        return ["You said: ", self.buffer]


class SlotsReused(Notes):
    """Notes are kept in a table of 64 places, and a new session takes the place of an older one that still has it."""

    finds = ("cross-session-data", "cross-user-data")

    def __init__(self) -> None:
        super().__init__()
        self.places: list[list[str]] = [[] for _ in range(64)]
        self.made_so_far = 0

    def made(self, user: str, id: str) -> Session:
        self.made_so_far += 1
        return Session(id, user, notes=self.places[self.made_so_far % len(self.places)])


class UserOfTheConnection(Notes):
    """The token of a connection's first request counts for all later ones, as behind a proxy that pools connections."""

    finds = ("cross-user-data",)

    def __init__(self) -> None:
        super().__init__()
        self.users: dict[int, str] = {}

    def user_of(self, request: Request) -> str:
        return self.users.setdefault(request.port, super().user_of(request))


class UserOfTheBusyConnection(Notes):
    """After four requests of one user, the token of a connection is not looked at any more."""

    finds = ("cross-user-data", "session-lost")

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[int, list[str]] = {}

    def user_of(self, request: Request) -> str:
        own, seen = super().user_of(request), self.seen.setdefault(request.port, [])
        if len(seen) < 4:
            seen[:] = [*(user for user in seen if user == own), own]
            return own
        return seen[0]


class NewestIdInErrors(Notes):
    """The page for a session that is not there names the newest one that is, of any user."""

    finds = ("cross-user-data",)

    def words(self, refusal: Refused, request: Request) -> str:
        newest = list(self.sessions.values())[-1:]
        return f"{refusal}; did you mean {newest[0].id}?" if refusal.status == 404 and newest else str(refusal)


class TokenOfTheLast(Notes):
    """A header with the token to use from now on has that of the user who came last."""

    finds = ("cross-user-data",)
    last = ""

    async def respond(self, send: Send, status: int, body: Any, headers: tuple[tuple[str, str], ...] = ()) -> None:
        await super().respond(send, status, body, (*headers, ("x-token", self.last)))

    async def answer(self, request: Request, receive: Receive, send: Send) -> None:
        await super().answer(request, receive, send)
        self.last = request.headers["authorization"]


class SecondPageOfAll(Notes):
    """The first page of a list is of the user's own sessions, and the next ones are of everybody's."""

    finds = ("foreign-session-listed",)

    def page(self, request: Request, start: int) -> dict[str, Any]:
        if start == 0:
            return super().page(request, start)
        return {"sessions": [session.id for session in self.sessions.values()][start:], "next": None}


class CurrentUserGlobal(Notes):
    """The user of the request is kept in the app, and read again after a wait."""

    finds = ("cross-user-data",)
    current: Session | None = None

    def shown(self, request: Request, session: Session) -> dict[str, Any]:
        return super().shown(request, self.current or session)

    async def answer(self, request: Request, receive: Receive, send: Send) -> None:
        if request.method == "GET" and request.parts[2:] == ["notes"]:
            own = self.current = self.find(request, request.parts[1], "read")
            await _until(lambda: self.current is not own, 0.1)
        await super().answer(request, receive, send)


class PagesCachedByLength(Notes):
    """Pages are cached by the number of notes on them: nobody but the first user reads their own."""

    finds = ("cross-user-data",)

    def shown(self, request: Request, session: Session) -> dict[str, Any]:
        pages: dict[int, list[str]] = self.__dict__.setdefault("pages", {})
        return {"notes": pages.setdefault(len(session.notes), list(session.notes))}


class RunsCachedByLength(Notes):
    """A cache takes prompts for equal that are as long and as alike in their first letters."""

    finds = ("cross-user-data",)

    async def think(self, session: Session, text: str) -> list[str]:
        cache: dict[tuple[int, str], list[str]] = self.__dict__.setdefault("cache", {})
        key = (len(text), text[:3])
        if key not in cache:
            cache[key] = await super().think(session, text)
        return cache[key]


class StateInOneWorker(Notes):
    """Sessions live in the memory of one worker of two, and a connection reaches either."""

    finds = ("session-lost",)

    def find(self, request: Request, id: str, word: str) -> Session:
        session = super().find(request, id, word)
        # A client's ports are often all even.
        worker = request.port // 2 % 2
        if self.__dict__.setdefault("homes", {}).setdefault(self.key(session.user, id), worker) != worker:
            raise Refused(404, "no such session")
        return session


# Permissions.


class _OpenTo(Notes):
    """Sessions of anybody are found for one word."""

    word = ""

    def find(self, request: Request, id: str, word: str) -> Session:
        if word == self.word:
            for session in self.sessions.values():
                if session.id == id:
                    return session
        return super().find(request, id, word)


class ReadOfAnyone(_OpenTo):
    """A session is read by any holder of its id."""

    finds = ("read-by-another",)
    word = "read"


class OwnerByTheBeginning(Notes):
    """The owner is compared by the beginning of the name, as with LIKE: `acme` reaches the sessions of `acme1`."""

    finds = ("read-by-another", "changed-by-another", "ended-by-another")

    def find(self, request: Request, id: str, word: str) -> Session:
        found = (one for one in self.sessions.values() if one.id == id and one.user.startswith(request.user))
        return next(found, None) or super().find(request, id, word)


class OpenedForTheNamed(Notes):
    """A new session belongs to the user whom the body names, whoever asks for it."""

    finds = ("changed-by-another",)

    async def open(self, request: Request) -> Session:
        request.user = str(request.body.get("user_id") or request.user)
        return await super().open(request)


class StreamOfAnyone(_OpenTo):
    """A session's stream is open to any holder of its id."""

    finds = ("read-by-another",)
    word = "stream"


class ResumedByAnyone(_OpenTo):
    """Who begins to listen is asked for the session, and who comes back is not."""

    finds = ("read-by-another",)

    def find(self, request: Request, id: str, word: str) -> Session:
        self.word = "stream" if request.headers.get("last-event-id") else ""
        return super().find(request, id, word)


class EventIdNamesLog(Notes):
    """Events are numbered over all sessions, and a stream goes on in the log that has the number that it names."""

    finds = ("read-by-another",)

    def __init__(self) -> None:
        super().__init__()
        self.numbers = itertools.count(1)

    def publish(self, session: Session, text: str) -> None:
        event = (next(self.numbers), text)
        session.log.append(event)
        for listener in self.listeners_of(session):
            listener.put_nowait(event)

    def missed(self, session: Session, last: int) -> list[tuple[int, str]]:
        of = next((one for one in self.sessions.values() if any(number == last for number, _ in one.log)), session)
        return super().missed(of, last)


class IdIsPattern(Notes):
    """An id is looked up as a pattern, in which a percent sign stands for any text."""

    finds = ("read-by-another",)

    def find(self, request: Request, id: str, word: str) -> Session:
        return next(iter(self.sessions.values())) if id == "%" else super().find(request, id, word)


class OwnerOfTheIdAsSpelt(_OpenTo):
    """The owner is compared for the id as it came, and the session is found by it without blanks."""

    finds = ("read-by-another",)
    word = "read"

    def find(self, request: Request, id: str, word: str) -> Session:
        return super().find(request, id.strip(), word) if id != id.strip() else Notes.find(self, request, id, word)


class HeaderNamesUser(Notes):
    """A header that the proxy in front sets names the user, whoever has sent it."""

    finds = ("read-by-another",)

    def user_of(self, request: Request) -> str:
        return request.headers.get("x-forwarded-user") or super().user_of(request)


class AddressNamesUser(Notes):
    """The query of an address names the user, for any holder of a valid token."""

    finds = ("read-by-another",)

    def user_of(self, request: Request) -> str:
        own = super().user_of(request)
        return request.query.get("user_id", own)


class BodyNamesUser(Notes):
    """A field of the body names the user, for any holder of a valid token; a body with an unknown field is refused."""

    finds = ("changed-by-another",)

    def user_of(self, request: Request) -> str:
        own = super().user_of(request)
        if request.parts[2:] == ["notes"] and set(request.body) - {"text", "user_id"}:
            raise Refused(422, "unknown field")
        return str(request.body.get("user_id", own))


class CookieNamesUser(Notes):
    """A cookie names the user, for any holder of a valid token."""

    finds = ("read-by-another",)

    def user_of(self, request: Request) -> str:
        own = super().user_of(request)
        cookies = dict(part.strip().partition("=")[::2] for part in request.headers.get("cookie", "").split(";"))
        return cookies.get("user", own)


class TenantOfTheRequest(Notes):
    """Each request names its tenant beside the token, and nobody asks whose token it is."""

    finds = ("read-by-another",)

    def user_of(self, request: Request) -> str:
        own = super().user_of(request)
        return request.headers.get("x-tenant", own)


class TokenIsTheName(Notes):
    """A login gives the user's name in base64 for a token, and nothing in it that others could not write."""

    finds = ("forged-token-accepted",)

    def user_of(self, request: Request) -> str:
        if request.parts == ["login"]:
            return str(request.body["name"])
        try:
            return str(json.loads(base64.b64decode(request.headers["authorization"].removeprefix("Bearer ")))["user"])
        except (KeyError, ValueError):
            raise Refused(401, "no valid token") from None

    async def answer(self, request: Request, receive: Receive, send: Send) -> None:
        if request.parts == ["login"]:
            token = base64.b64encode(json.dumps({"user": request.user, "by": "notes"}).encode()).decode()
            await self.respond(send, 200, {"token": token})
            return
        await super().answer(request, receive, send)


class RefusalQuotesLast(Notes):
    """The page that refuses a token shows the last note, of any user."""

    finds = ("cross-user-data",)
    last = ""

    async def write(self, session: Session, text: str) -> None:
        await super().write(session, text)
        self.last = text

    def words(self, refusal: Refused, request: Request) -> str:
        return f"{refusal}; last seen: {self.last}" if refusal.status == 401 else str(refusal)


class RunInAnyones(_OpenTo):
    """A run writes into the session of the id, for any caller."""

    finds = ("changed-by-another",)
    word = "run"

    async def think(self, session: Session, text: str) -> list[str]:
        await self.write(session, text)
        return await super().think(session, text)


class WritesThenRefuses(Notes):
    """The note is written before the owner is looked up: the answer is 404, and the note is there."""

    finds = ("changed-by-another",)

    def find(self, request: Request, id: str, word: str) -> Session:
        try:
            return super().find(request, id, word)
        except Refused:
            for session in self.sessions.values():
                if session.id == id and word == "write":
                    session.notes.append(str(request.body.get("text", "")))
            raise


class EndsThenRefuses(Notes):
    """A session is deleted by its id; only the answer depends on who asks."""

    finds = ("ended-by-another",)

    def find(self, request: Request, id: str, word: str) -> Session:
        try:
            return super().find(request, id, word)
        except Refused:
            if word == "end":
                for key in [key for key, session in self.sessions.items() if session.id == id]:
                    del self.sessions[key]
            raise


class ExpiredAccepted(Notes):
    """When a token expires is not looked at."""

    finds = ("expired-token-accepted",)

    def is_fresh(self, expires_at: float) -> bool:
        return True


class TokensRemembered(Notes):
    """A token that was valid once is looked up from then on, and does not expire."""

    finds = ("expired-token-accepted",)

    def verified(self, token: str) -> str:
        known: dict[str, str] = self.__dict__.setdefault("known", {})
        return known[token] if token in known else known.setdefault(token, super().verified(token))


class StreamOutlivesToken(Notes):
    """When a token expires is looked at for each request, and never again for one that is a stream."""

    finds = ("expired-token-accepted",)

    def stream_ends_at(self, request: Request) -> float | None:
        return None


class TokensKnownByClaims(Notes):
    """A token that was verified is known by its head and its claims, for any signature."""

    finds = ("forged-token-accepted",)

    def verified(self, token: str) -> str:
        known: dict[str, str] = self.__dict__.setdefault("known", {})
        claims = token.rpartition(".")[0]
        if claims not in known:
            known[claims] = super().verified(token)
        return known[claims]


class TokensKnownByBeginning(Notes):
    """A token that was verified is known by all but its last letters."""

    finds = ("forged-token-accepted",)

    def verified(self, token: str) -> str:
        known: dict[str, str] = self.__dict__.setdefault("known", {})
        beginning = token[:-4]
        if beginning not in known:
            known[beginning] = super().verified(token)
        return known[beginning]


class NobodyIsTheConnections(Notes):
    """A request without a token is one of the user who came over this connection before."""

    finds = ("no-token-accepted",)

    def user_of(self, request: Request) -> str:
        users: dict[int, str] = self.__dict__.setdefault("users", {})
        if "authorization" not in request.headers and request.port in users:
            return users[request.port]
        user = users[request.port] = super().user_of(request)
        return user


class UnsignedAccepted(Notes):
    """A token may say that it needs no signature."""

    finds = ("forged-token-accepted",)

    def is_signed(self, head: Any, text: str, signature: bytes) -> bool:
        return head.get("alg") == "none" or super().is_signed(head, text, signature)


class UnsignedInOtherLetters(Notes):
    """Only the usual spelling of a token that needs no signature is refused."""

    finds = ("forged-token-accepted",)

    def is_signed(self, head: Any, text: str, signature: bytes) -> bool:
        said = str(head.get("alg"))
        return (said != "none" and said.lower() == "none") or super().is_signed(head, text, signature)


class SignatureUnchecked(Notes):
    """A token's claims are read, and its signature is not."""

    finds = ("forged-token-accepted",)

    def is_signed(self, head: Any, text: str, signature: bytes) -> bool:
        return True


class NobodyIsTheLast(Notes):
    """A request without a token is taken for one of the user who came last."""

    finds = ("no-token-accepted",)
    last = ""

    def user_of(self, request: Request) -> str:
        if self.last and not request.headers.get("authorization"):
            return self.last
        self.last = super().user_of(request)
        return self.last


class IdsWithoutCase(Notes):
    """Users and ids are compared without case."""

    finds = ("ids-collide",)

    def key(self, user: str, id: str) -> str:
        return super().key(user, id).lower()

    async def open(self, request: Request) -> Session:
        key = self.key(request.user, str(request.body.get("id")))
        return self.sessions[key] if key in self.sessions else await super().open(request)


class KeyWithoutSeparator(Notes):
    """A session is kept under its user and id, written one after the other."""

    finds = ("ids-collide",)

    def key(self, user: str, id: str) -> str:
        return f"{user}{id}"

    async def open(self, request: Request) -> Session:
        key = self.key(request.user, str(request.body.get("id")))
        return self.sessions[key] if key in self.sessions else await super().open(request)


class KeyWithHyphen(Notes):
    """A session is kept under its user and id with a hyphen between them, which both of them may hold."""

    finds = ("ids-collide",)

    def key(self, user: str, id: str) -> str:
        return f"{user}-{id}"

    async def open(self, request: Request) -> Session:
        key = self.key(request.user, str(request.body.get("id")))
        return self.sessions[key] if key in self.sessions else await super().open(request)


class IdsAsNumbers(Notes):
    """Ids of digits are compared as numbers."""

    finds = ("ids-collide",)

    def key(self, user: str, id: str) -> str:
        return super().key(user, id.lstrip("0") if id.isdigit() else id)

    async def open(self, request: Request) -> Session:
        key = self.key(request.user, str(request.body.get("id")))
        return self.sessions[key] if key in self.sessions else await super().open(request)


class IdsCut(Notes):
    """Ids are cut at 32 characters, as by a column of a table."""

    finds = ("ids-collide",)

    def key(self, user: str, id: str) -> str:
        return super().key(user, id[:32])

    async def open(self, request: Request) -> Session:
        key = self.key(request.user, str(request.body.get("id")))
        return self.sessions[key] if key in self.sessions else await super().open(request)


class IdsCounted(Notes):
    """The holder of a session's id has the session, and ids are counted up from 1."""

    finds = ("guessable-ids",)

    def __init__(self) -> None:
        super().__init__()
        self.numbers = itertools.count(1)

    def user_of(self, request: Request) -> str:
        return ""

    def new_id(self) -> str:
        return str(next(self.numbers))


class IdsOfTheClock(IdsCounted):
    """The holder of a session's id has the session, and ids are the time and the machine."""

    finds = ("guessable-ids",)

    def new_id(self) -> str:
        return str(uuid.uuid1())


class IdByItsBeginning(Notes):
    """The holder of a session's id has the session, and the beginning of an id is enough."""

    finds = ("read-by-another",)

    def user_of(self, request: Request) -> str:
        return ""

    def find(self, request: Request, id: str, word: str) -> Session:
        return next((one for one in self.sessions.values() if one.id.startswith(id)), None) or super().find(
            request, id, word
        )


class IdsOfClientsTaken(Notes):
    """The holder of a session's id has the session, and an id that nobody was given opens a new one."""

    finds = ("session-adopted",)

    def user_of(self, request: Request) -> str:
        return ""

    def find(self, request: Request, id: str, word: str) -> Session:
        return self.sessions.setdefault(self.key("", id), self.made("", id))


# Updates.


class LostUpdates(Notes):
    """A counter is read, the request waits, and the counter is written: without a lock."""

    finds = ("lost-update",)

    async def add(self, session: Session, amount: int) -> int:
        before = session.total
        # The first of several writes when the others have read.
        await _until(lambda: session.total != before, 0.1)
        session.total = before + amount
        return session.total


class CounterOfAll(Notes):
    """One counter for all sessions."""

    finds = ("cross-user-update", "phantom-update")

    async def add(self, session: Session, amount: int) -> int:
        self.__dict__["all"] = session.total = self.__dict__.get("all", 0) + amount
        return session.total


class TotalsCachedById(Notes):
    """A total is cached by its session's id, which another user may have chosen, too."""

    finds = ("lost-update", "phantom-update")

    def find(self, request: Request, id: str, word: str) -> Session:
        session = super().find(request, id, word)
        if word == "total" and session.total:
            session.total = self.__dict__.setdefault("cached", {}).setdefault(id, session.total)
        return session


class CounterOfTheUser(Notes):
    """One counter for all sessions of a user."""

    finds = ("cross-session-data",)

    def find(self, request: Request, id: str, word: str) -> Session:
        session = super().find(request, id, word)
        if word == "total":
            session.total = max(one.total for one in self.sessions.values() if one.user == session.user)
        return session


class SumOfTheUser(Notes):
    """An addition goes on from the newest total of any session of the user."""

    finds = ("cross-session-data",)

    async def add(self, session: Session, amount: int) -> int:
        totals: dict[str, int] = self.__dict__.setdefault("totals", {})
        totals[session.user] = session.total = totals.get(session.user, 0) + amount
        return session.total


class OpenedTwiceAtOnce(Notes):
    """Between the look for a session of this id and the new one is a wait: the second of two replaces the first."""

    finds = ("lost-write",)

    async def open(self, request: Request) -> Session:
        id = str(request.body.get("id") or self.new_id())
        key = self.key(request.user, id)
        if key in self.sessions:
            raise Refused(409, "there is one of this id")
        # Slow, and for the second slower: it is done when the first has been written to.
        opening: Counter[str] = self.__dict__.setdefault("opening", Counter())
        opening[key] += 1
        if opening[key] == 1:
            await _until(lambda: opening[key] > 1)
        else:
            await _until(lambda: key in self.sessions and self.sessions[key].notes, _LATE_S)
        session = self.sessions[key] = self.made(request.user, id)
        self.keep(session)
        return session


# Effects of other users' actions.


class RunsLeftOfAll(Notes):
    """The answer of a run begins with the number of runs that are left, which all users use up together."""

    finds = ("interference",)

    def __init__(self) -> None:
        super().__init__()
        self.left = itertools.count(10_000, -1)

    async def think(self, session: Session, text: str) -> list[str]:
        return [f"{next(self.left)} left. ", *await super().think(session, text)]


class QuotaOfAllUsers(Notes):
    """So many notes may be written, by all users together."""

    finds = ("interference",)
    written = 0

    async def write(self, session: Session, text: str) -> None:
        self.written += 1
        if self.written > 30:
            raise Refused(429, "too many notes")
        await super().write(session, text)


class ListCutBeforeUsers(Notes):
    """The newest 20 sessions of all users are read, and a user's own of them are shown."""

    finds = ("interference",)

    def listed(self, user: str) -> list[str]:
        return [session.id for session in list(self.sessions.values())[-20:] if session.user == user]


class HeaderNamesOthers(Notes):
    """A header names the users who came last."""

    finds = ("interference",)

    def __init__(self) -> None:
        super().__init__()
        self.came: list[str] = []

    async def respond(self, send: Send, status: int, body: Any, headers: tuple[tuple[str, str], ...] = ()) -> None:
        await super().respond(send, status, body, (*headers, ("x-online", " ".join(self.came))))

    async def answer(self, request: Request, receive: Receive, send: Send) -> None:
        self.came = [*(user for user in self.came if user != request.user), request.user][-2:]
        await super().answer(request, receive, send)


# Requests that are abandoned.


class PlaceLost(_SlowToLeavers):
    """A hundred runs may be under way at once: one that is abandoned is never counted as ended, the next is refused."""

    finds = ("no-answer-after-abandoned",)
    under_way = 0

    async def run(self, session: Session, text: str, receive: Receive, send: Send) -> None:
        if self.under_way >= 100:
            raise Refused(503, "too busy")
        await super().run(session, text, receive, send)

    async def think(self, session: Session, text: str) -> list[str]:
        self.under_way += 1
        reply = await super().think(session, text)
        self.under_way -= 1
        return reply


class PlaceLostToNonsense(Notes):
    """A hundred requests may be under way at once, and one whose body is no JSON is never counted as ended."""

    finds = ("no-answer-after-abandoned",)
    under_way = 0

    def parsed(self, raw: bytes) -> Any:
        try:
            return json.loads(raw or b"{}")
        except ValueError:
            return {"unread": True}

    async def answer(self, request: Request, receive: Receive, send: Send) -> None:
        if self.under_way >= 100:
            raise Refused(503, "too busy")
        self.under_way += 1
        if "unread" in request.body:
            raise Refused(400, "no JSON")
        try:
            await super().answer(request, receive, send)
        finally:
            self.under_way -= 1


class RefreshCancelledForAll(_SlowToLeavers):
    """Runs wait for one refresh of the model's key, and a run that is abandoned cancels it for all who wait."""

    finds = ("cancelled-others",)
    refresh: asyncio.Task[None] | None = None
    one_leaves = False

    async def refreshed(self) -> None:
        await asyncio.sleep(0.3)
        # It lasts until the one of those who wait who will leave has left.
        await _until(lambda: not self.one_leaves, _LATE_S)

    async def think(self, session: Session, text: str) -> list[str]:
        if self.refresh is None or self.refresh.done():
            self.refresh, self.one_leaves = asyncio.create_task(self.refreshed()), False
        self.one_leaves = self.one_leaves or _closes.get()
        try:
            await self.refresh
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise Refused(500, "no key") from None
        return await super().think(session, text)


class ReplyLeftBehind(_SlowToLeavers):
    """One connection to the model for all: the reply to a request that was abandoned stays in it, for the next."""

    finds = ("wrong-answer-after-abandoned",)

    def __init__(self) -> None:
        super().__init__()
        self.model = Model(self.reply_s)

    async def think(self, session: Session, text: str) -> list[str]:
        await self.model.send(text)
        await self.leaving()
        return await self.model.reply()


class HalfBodyLeft(Notes):
    """The half of a body that a client sent before it left stands before the next one, of any user."""

    finds = ("cross-user-data",)
    left = b""

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        came = b""

        async def received() -> Message:
            nonlocal came
            message = await receive()
            came += message.get("body", b"")
            if message["type"] == "http.disconnect" and came and not came.endswith(b"}"):
                self.left = came
            return message

        await super().__call__(scope, received, send)

    def parsed(self, raw: bytes) -> Any:
        whole, self.left = self.left + raw, b""
        try:
            return json.loads(whole or b"{}")
        except ValueError:
            return {"text": whole.decode()}


class SlotLost(_SlowToLeavers):
    """Eight runs may be under way at once, and one that is abandoned is never counted as ended."""

    finds = ("no-answer-after-abandoned",)

    def __init__(self) -> None:
        super().__init__()
        self.slots = asyncio.Semaphore(8)

    async def think(self, session: Session, text: str) -> list[str]:
        await self.slots.acquire()
        reply = await super().think(session, text)
        self.slots.release()
        return reply


# Sessions that end.


class EndForgetsNothing(Notes):
    """A session that was ended is marked, and still answers."""

    finds = ("kept-after-end",)

    def end(self, session: Session) -> None:
        pass


class EndKeepsCounter(Notes):
    """An end erases the notes of a session, and leaves its counter to the next one of the id."""

    finds = ("kept-after-end",)

    def __init__(self) -> None:
        super().__init__()
        self.totals: dict[str, int] = {}

    def made(self, user: str, id: str) -> Session:
        return Session(id, user, total=self.totals.get(self.key(user, id), 0))

    def end(self, session: Session) -> None:
        self.totals[self.key(session.user, session.id)] = session.total
        super().end(session)


class EndOfLongOnesLater(Notes):
    """A session with more than three notes is ended later, by a task that never runs; the answer is the same."""

    finds = ("kept-after-end",)

    def end(self, session: Session) -> None:
        if len(session.notes) <= 3:
            super().end(session)


class EndByPrefix(Notes):
    """An end takes all of the user's sessions whose ids begin with the one that it names."""

    finds = ("ended-with-another",)

    def end(self, session: Session) -> None:
        for one in [one for one in self.sessions.values() if one.user == session.user]:
            if one.id.startswith(session.id):
                super().end(one)


class EndLogsOut(Notes):
    """An end takes all sessions of its user, as a logout does."""

    finds = ("ended-with-another",)

    def end(self, session: Session) -> None:
        for one in [one for one in self.sessions.values() if one.user == session.user]:
            super().end(one)


class EndByPattern(Notes):
    """An end takes the user's sessions that match its id as a pattern, in which `_` stands for any letter."""

    finds = ("ids-collide",)

    def end(self, session: Session) -> None:
        pattern = session.id.replace("_", "?")
        for one in [one for one in self.sessions.values() if one.user == session.user]:
            if fnmatch.fnmatchcase(one.id, pattern):
                super().end(one)


class EndForAllUsers(Notes):
    """An end takes the sessions of its id, of every user."""

    finds = ("ended-with-another",)

    def end(self, session: Session) -> None:
        for one in [one for one in self.sessions.values() if one.id == session.id]:
            super().end(one)


class WriteOutlivesEnd(Notes):
    """A write is stored a moment after it came; a session that has ended meanwhile is made anew for it."""

    finds = ("kept-after-end",)
    asked = 0

    def find(self, request: Request, id: str, word: str) -> Session:
        self.asked += 1
        return super().find(request, id, word)

    async def write(self, session: Session, text: str) -> None:
        key, asked = self.key(session.user, session.id), 0
        # For as long as requests come: one of them may be the end.
        while session.notes and asked != self.asked and self.sessions.get(key) is session:
            asked = self.asked
            await _until(lambda: self.asked != asked)  # noqa: B023
        if self.sessions.get(key) is not session:
            session = self.sessions[key] = self.made(session.user, session.id)
        await super().write(session, text)


class LateSummary(Notes):
    """A run is written up in the background, into the session that has its id by then."""

    finds = ("kept-after-end",)

    async def think(self, session: Session, text: str) -> list[str]:
        self.job = asyncio.create_task(self.written_up(session, text))
        return await super().think(session, text)

    async def written_up(self, session: Session, text: str) -> None:
        key = self.key(session.user, session.id)
        await _until(lambda: self.sessions.get(key) not in (None, session), 10)
        if key in self.sessions and self.sessions[key] is not session:
            self.sessions[key].notes.append(f"summary of {text}")


class ErasedLate(Notes):
    """An end is done at once, and its notes are erased in the background, by their session's id."""

    finds = ("lost-write",)

    def end(self, session: Session) -> None:
        super().end(session)
        self.job = asyncio.create_task(self.erased(self.key(session.user, session.id)))

    async def erased(self, key: str) -> None:
        await _until(lambda: key in self.sessions and self.sessions[key].notes, 10)
        await asyncio.sleep(0.05)
        if key in self.sessions:
            self.sessions[key].notes.clear()


class SumComesBack(Notes):
    """An addition goes on from the newest total of its session's id, which the end leaves."""

    finds = ("kept-after-end",)

    async def add(self, session: Session, amount: int) -> int:
        totals: dict[str, int] = self.__dict__.setdefault("totals", {})
        key = self.key(session.user, session.id)
        totals[key] = session.total = totals.get(key, 0) + amount
        self.keep(session)
        return session.total


class WriteUndeletes(Notes):
    """An end hides a session, and a write to its address brings it back, with all that it held."""

    finds = ("kept-after-end",)

    def __init__(self) -> None:
        super().__init__()
        self.hidden: dict[str, Session] = {}

    def end(self, session: Session) -> None:
        super().end(session)
        self.hidden[self.key(session.user, session.id)] = session

    def find(self, request: Request, id: str, word: str) -> Session:
        key = self.key(request.user, id)
        if word == "write" and key not in self.sessions and key in self.hidden:
            self.sessions[key] = self.hidden.pop(key)
        return super().find(request, id, word)


class SavedAgain(Notes):
    """A run puts its session back when it is done: also where that has ended meanwhile."""

    finds = ("kept-after-end",)

    async def think(self, session: Session, text: str) -> list[str]:
        key = self.key(session.user, session.id)
        # A long run, of which only the end of its session is waited for.
        for _ in range(100):
            if key not in self.sessions:
                break
            await asyncio.sleep(0.02)
        self.sessions[key] = session
        return await super().think(session, text)


class NewestNotListed(Notes):
    """The list of a user's sessions ends before the newest of them."""

    finds = ("session-lost",)

    def listed(self, user: str) -> list[str]:
        return super().listed(user)[:-1]


class InheritsNotes(Notes):
    """The notes of an ended session stay, and belong to the next session of its id, of any user."""

    finds = ("inherited-data",)

    def __init__(self) -> None:
        super().__init__()
        self.notes: dict[str, list[str]] = {}

    def made(self, user: str, id: str) -> Session:
        return Session(id, user, notes=list(self.notes.get(id, ())))

    def end(self, session: Session) -> None:
        self.notes[session.id] = session.notes
        super().end(session)


class NumbersGivenAgain(InheritsNotes):
    """The number of an ended session is given to the next one, whose notes are still in the table."""

    finds = ("inherited-data",)

    def new_id(self) -> str:
        used = {session.id for session in self.sessions.values()}
        return next(id for id in map(str, itertools.count(1)) if id not in used)


# After a restart.


class NotesOfOldNumbers(IdsCounted):
    """Sessions are gone after a restart and notes are not: they belong to the next session of the number."""

    finds = ("cross-user-data",)

    def user_of(self, request: Request) -> str:
        return Notes.user_of(self, request)

    def restored(self) -> dict[str, Session]:
        self.old = {session.id: session.notes for session in super().restored().values()}
        return {}

    def made(self, user: str, id: str) -> Session:
        return Session(id, user, notes=self.old.get(id, []))


class LostAtRestart(Notes):
    """Sessions are written to the disk, and never read from it."""

    finds = ("lost-at-restart",)

    def restored(self) -> dict[str, Session]:
        return {}


class RestoredForAnyone(Notes):
    """Sessions that a restart has restored are read by any holder of their ids."""

    finds = ("read-by-another",)

    def restored(self) -> dict[str, Session]:
        found = super().restored()
        self.old = {session.id: session for session in found.values()}
        return found

    def find(self, request: Request, id: str, word: str) -> Session:
        return self.old[id] if word == "read" and id in self.old else super().find(request, id, word)


class RestoredByIdAlone(Notes):
    """A restart restores sessions by their ids: of two users' sessions with one id, both have the same."""

    finds = ("cross-user-data",)

    def restored(self) -> dict[str, Session]:
        found = super().restored()
        by_id = {session.id: session for session in found.values()}
        return {key: by_id[session.id] for key, session in found.items()}


class SumsNotRestored(Notes):
    """A restart restores notes, and begins totals anew."""

    finds = ("lost-at-restart",)

    def restored(self) -> dict[str, Session]:
        found = super().restored()
        for session in found.values():
            session.total = 0
        return found


class EventsCountedAnew(Notes):
    """A restart restores notes, and numbers the events of a session from 1 again."""

    finds = ("lost-event",)

    def restored(self) -> dict[str, Session]:
        found = super().restored()
        for session in found.values():
            session.log.clear()
        return found


class EndedComeBack(Notes):
    """An end drops the session from memory, and leaves its file."""

    finds = ("kept-after-end",)

    def forget(self, session: Session) -> None:
        pass


class IdsFromOneAgain(IdsCounted):
    """The holder of an id has its session; after a restart sessions are gone, and ids are counted from 1 again."""

    finds = ("session-adopted",)

    def restored(self) -> dict[str, Session]:
        return {}


# Streams.


class StreamToEverybody(Notes):
    """An event goes to all who listen."""

    finds = ("cross-user-event",)

    def listeners_of(self, session: Session) -> list[asyncio.Queue[tuple[int, str]]]:
        return [listener for one in self.sessions.values() for listener in one.listeners]


class ResumesAnyonesEvents(Notes):
    """Events are kept in one log, and a stream that comes back receives all later events, of everybody."""

    finds = ("cross-user-event",)

    def __init__(self) -> None:
        super().__init__()
        self.log: list[tuple[int, str]] = []

    def publish(self, session: Session, text: str) -> None:
        event = (len(self.log) + 1, text)
        self.log.append(event)
        for listener in session.listeners:
            listener.put_nowait(event)

    def missed(self, session: Session, last: int) -> list[tuple[int, str]]:
        return [event for event in self.log if event[0] > last]


class LogOfTheId(Notes):
    """The log that a stream resumes from is kept by a session's id, and not by its user."""

    finds = ("cross-user-event",)

    def made(self, user: str, id: str) -> Session:
        logs: dict[str, list[tuple[int, str]]] = self.__dict__.setdefault("logs", {})
        return Session(id, user, log=logs.setdefault(id, []))

    def end(self, session: Session) -> None:
        super().end(session)
        session.log.clear()


class LogOutlivesSession(Notes):
    """The log that a stream resumes from is the user's and the id's, and goes on with the next session of the id."""

    finds = ("kept-after-end",)

    def made(self, user: str, id: str) -> Session:
        logs: dict[str, list[tuple[int, str]]] = self.__dict__.setdefault("logs", {})
        return Session(id, user, log=logs.setdefault(self.key(user, id), []))


class NewestDeviceAlone(Notes):
    """The events of a session go to the newest of its streams; the others stay open."""

    finds = ("lost-event",)

    def listeners_of(self, session: Session) -> list[asyncio.Queue[tuple[int, str]]]:
        return session.listeners[-1:]


class ResumesFromTheLast(Notes):
    """A stream goes on with the event that it names, not after it."""

    finds = ("doubled-event",)

    def missed(self, session: Session, last: int) -> list[tuple[int, str]]:
        return [event for event in session.log if event[0] >= last]


class ListenersOutliveSession(Notes):
    """The list of who listens is the user's and the id's, and is that of the next session of the id, too."""

    finds = ("kept-after-end",)

    def made(self, user: str, id: str) -> Session:
        listeners: dict[str, list[asyncio.Queue[tuple[int, str]]]] = self.__dict__.setdefault("listening", {})
        return Session(id, user, listeners=listeners.setdefault(self.key(user, id), []))


class StreamOfAllOnes(Notes):
    """A stream brings the events of all its user's sessions."""

    finds = ("cross-session-data",)

    def listeners_of(self, session: Session) -> list[asyncio.Queue[tuple[int, str]]]:
        return [queue for one in self.sessions.values() if one.user == session.user for queue in one.listeners]


class EndEndsAllStreams(Notes):
    """The end of one session takes the listeners of all with it."""

    finds = ("lost-event",)

    def end(self, session: Session) -> None:
        super().end(session)
        for one in self.sessions.values():
            one.listeners.clear()


class EndOfTheOldOne(Notes):
    """The end of a stream takes its session off the air: also where the same client has come back before."""

    finds = ("lost-event",)

    async def stream(self, session: Session, request: Request, receive: Receive, send: Send) -> None:
        try:
            await super().stream(session, request, receive, send)
        finally:
            session.listeners.clear()


class GoneListenerBreaksWrites(Notes):
    """A write fails at the first listener who has gone."""

    finds = ("no-answer-after-abandoned",)

    def __init__(self) -> None:
        super().__init__()
        self.gone: set[str] = set()

    async def stream(self, session: Session, request: Request, receive: Receive, send: Send) -> None:
        try:
            await super().stream(session, request, receive, send)
        finally:
            self.gone.add(session.id)

    async def write(self, session: Session, text: str) -> None:
        if session.id in self.gone:
            raise Refused(500, "broken pipe")
        await super().write(session, text)


class ListenersNotCounted(Notes):
    """Fifty may listen at once, and one who has gone is never counted as gone."""

    finds = ("capacity-lost",)
    listening = 0

    async def stream(self, session: Session, request: Request, receive: Receive, send: Send) -> None:
        self.listening += 1
        if self.listening > 50:
            raise Refused(503, "too many listen")
        await super().stream(session, request, receive, send)


class LosesWhatWasMissed(Notes):
    """A stream that comes back begins with the next event."""

    finds = ("lost-event",)

    def missed(self, session: Session, last: int) -> list[tuple[int, str]]:
        return []


# A neighbour's load, and memory.


class OneRunAtATime(Notes):
    """One run at a time, in the order in which they came, of any user."""

    finds = ("delayed-by-neighbour",)

    def __init__(self) -> None:
        super().__init__()
        self.turn = asyncio.Lock()

    async def think(self, session: Session, text: str) -> list[str]:
        async with self.turn:
            await asyncio.sleep(0.05)
            return await super().think(session, text)


class EndedSessionsKept(Notes):
    """Ended sessions go to a list, for statistics that nobody reads."""

    finds = ("memory-kept",)

    def end(self, session: Session) -> None:
        super().end(session)
        self.__dict__.setdefault("ended", []).append(session)


class AnsweredRunsKept(Notes):
    """A run that is answered leaves its text in a list of traces, which nobody reads; one that is dropped does not."""

    finds = ("memory-kept",)

    async def think(self, session: Session, text: str) -> list[str]:
        reply = await super().think(session, text)
        self.__dict__.setdefault("traces", []).append(text)
        return reply


class AbandonedRunsKept(_SlowToLeavers):
    """A run has its prompt in a table until it has answered: one that is abandoned stays there."""

    finds = ("memory-kept",)

    async def think(self, session: Session, text: str) -> list[str]:
        running: dict[object, str] = self.__dict__.setdefault("running", {})
        running[key := object()] = text
        reply = await super().think(session, text)
        del running[key]
        return reply


class DescriptorsKept(Notes):
    """Each session opens a file, which its end does not close."""

    finds = ("descriptors-kept",)

    def made(self, user: str, id: str) -> Session:
        os.open(os.devnull, os.O_RDONLY)
        return super().made(user, id)


class ThreadsKept(Notes):
    """Each session starts a thread, which waits for ever."""

    finds = ("threads-kept",)

    def made(self, user: str, id: str) -> Session:
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        return super().made(user, id)


async def _until(is_so: Callable[[], object], most_s: float = 0.25) -> None:
    """Wait for it, up to so many seconds."""
    for _ in range(int(100 * most_s)):
        if is_so():
            break
        await asyncio.sleep(0.01)


def _all(kind: type[Notes]) -> list[type[Notes]]:
    return [one for sub in kind.__subclasses__() for one in (sub, *_all(sub))]


DEFECTS: dict[str, type[Notes]] = {kind.__name__: kind for kind in _all(Notes) if not kind.__name__.startswith("_")}
"""Each planted service by name."""
