"""The planted services: each is the right one with one thing done in another way."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import time
from typing import Any

from lab_utils.service.planted.notes import Model, Notes, Receive, Refused, Request, Send, Session

__all__ = ["DEFECTS"]


# The content of answers.


class CookieOfTheSecond(Notes):
    """The visit's cookie is the second in which it began: two users who come in one second share it."""

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
    """Lists of sessions are cached for a moment, by their path, without the user."""

    def __init__(self) -> None:
        super().__init__()
        self.cached: tuple[float, list[str]] = (0.0, [])

    def listed(self, user: str) -> list[str]:
        if time.monotonic() - self.cached[0] > 0.5:
            self.cached = (time.monotonic(), super().listed(user))
        return self.cached[1]


class ErrorPageOfAnother(Notes):
    """An error page shows the last note to the support, and it is the last one of any user."""

    last = ""

    async def write(self, session: Session, text: str) -> None:
        await super().write(session, text)
        self.last = text

    def words(self, refusal: Refused, request: Request) -> str:
        return f"{refusal}; last seen: {self.last}" if refusal.status == 404 else str(refusal)


class HeaderOfAnother(Notes):
    """A header for debugging names the last note that the process has handled."""

    last = ""

    async def write(self, session: Session, text: str) -> None:
        await super().write(session, text)
        self.last = text

    async def respond(self, send: Send, status: int, body: Any, headers: tuple[tuple[str, str], ...] = ()) -> None:
        await super().respond(send, status, body, (*headers, ("x-debug-last", self.last)))


class CurrentUserGlobal(Notes):
    """The user of the request is kept in the app, and read again after a wait."""

    current: Session | None = None

    def shown(self, request: Request, session: Session) -> dict[str, Any]:
        return super().shown(request, self.current or session)

    async def answer(self, request: Request, receive: Receive, send: Send) -> None:
        if request.method == "GET" and request.parts[2:] == ["notes"]:
            self.current = self.find(request, request.parts[1], "read")
            await asyncio.sleep(0.005)
        await super().answer(request, receive, send)


class PagesCachedByLength(Notes):
    """Pages are cached by the number of notes on them: nobody but the first user reads their own."""

    def shown(self, request: Request, session: Session) -> dict[str, Any]:
        pages: dict[int, list[str]] = self.__dict__.setdefault("pages", {})
        return {"notes": pages.setdefault(len(session.notes), list(session.notes))}


class RunsCachedByLength(Notes):
    """A cache takes prompts for equal that are as long and as alike in their first letters."""

    async def think(self, session: Session, text: str) -> list[str]:
        cache: dict[tuple[int, str], list[str]] = self.__dict__.setdefault("cache", {})
        key = (len(text), text[:3])
        if key not in cache:
            cache[key] = await super().think(session, text)
        return cache[key]


class StateInOneWorker(Notes):
    """Sessions live in the memory of one worker of two, and a connection reaches either."""

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

    word = "read"


class StreamOfAnyone(_OpenTo):
    """A session's stream is open to any holder of its id."""

    word = "stream"


class RunInAnyones(_OpenTo):
    """A run writes into the session of the id, for any caller."""

    word = "run"

    async def think(self, session: Session, text: str) -> list[str]:
        await self.write(session, text)
        return await super().think(session, text)


class WritesThenRefuses(Notes):
    """The note is written before the owner is looked up: the answer is 404, and the note is there."""

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

    def is_fresh(self, expires_at: float) -> bool:
        return True


class UnsignedAccepted(Notes):
    """A token may say that it needs no signature."""

    def is_signed(self, head: Any, text: str, signature: bytes) -> bool:
        return head.get("alg") == "none" or super().is_signed(head, text, signature)


class SignatureUnchecked(Notes):
    """A token's claims are read, and its signature is not."""

    def is_signed(self, head: Any, text: str, signature: bytes) -> bool:
        return True


class NobodyIsTheLast(Notes):
    """A request without a token is taken for one of the user who came last."""

    last = ""

    def user_of(self, request: Request) -> str:
        if self.last and not request.headers.get("authorization"):
            return self.last
        self.last = super().user_of(request)
        return self.last


class IdsWithoutCase(Notes):
    """Users and ids are compared without case."""

    def key(self, user: str, id: str) -> str:
        return super().key(user, id).lower()

    async def open(self, request: Request) -> Session:
        key = self.key(request.user, str(request.body.get("id")))
        return self.sessions[key] if key in self.sessions else await super().open(request)


class KeyWithoutSeparator(Notes):
    """A session is kept under its user and id, written one after the other."""

    def key(self, user: str, id: str) -> str:
        return f"{user}{id}"

    async def open(self, request: Request) -> Session:
        key = self.key(request.user, str(request.body.get("id")))
        return self.sessions[key] if key in self.sessions else await super().open(request)


class IdsCounted(Notes):
    """The holder of a session's id has the session, and ids are counted up from 1."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = itertools.count(1)

    def user_of(self, request: Request) -> str:
        return ""

    def new_id(self) -> str:
        return str(next(self.numbers))


# Updates.


class LostUpdates(Notes):
    """A counter is read, the request waits, and the counter is written: without a lock."""

    async def add(self, session: Session, amount: int) -> int:
        before = session.total
        await asyncio.sleep(0.002)
        session.total = before + amount
        return session.total


class CounterOfAll(Notes):
    """One counter for all sessions."""

    async def add(self, session: Session, amount: int) -> int:
        self.__dict__["all"] = session.total = self.__dict__.get("all", 0) + amount
        return session.total


# Effects of other users' actions.


class RunsNumberedForAll(Notes):
    """The answer of a run begins with its number, which counts those of all users."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = itertools.count(1)

    async def think(self, session: Session, text: str) -> list[str]:
        return [f"Run {next(self.numbers)}. ", *await super().think(session, text)]


class QuotaOfAllUsers(Notes):
    """So many notes may be written, by all users together."""

    written = 0

    async def write(self, session: Session, text: str) -> None:
        self.written += 1
        if self.written > 30:
            raise Refused(429, "too many notes")
        await super().write(session, text)


# Requests that are abandoned.


class ReplyLeftBehind(Notes):
    """One connection to the model for all: the reply to a request that was abandoned stays in it, for the next."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()

    async def think(self, session: Session, text: str) -> list[str]:
        await self.model.send(text)
        return await self.model.reply()


class SlotLost(Notes):
    """Of eight runs at once, one that is abandoned is never counted as ended."""

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

    def end(self, session: Session) -> None:
        pass


class InheritsNotes(Notes):
    """The notes of an ended session stay, and belong to the next session of its id, of any user."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: dict[str, list[str]] = {}

    def made(self, user: str, id: str) -> Session:
        return Session(id, user, notes=list(self.notes.get(id, ())))

    def end(self, session: Session) -> None:
        self.notes[session.id] = session.notes
        super().end(session)


# After a restart.


class LostAtRestart(Notes):
    """Sessions are written to the disk, and never read from it."""

    def restored(self) -> dict[str, Session]:
        return {}


class RestoredForAnyone(Notes):
    """Sessions that a restart has restored are read by any holder of their ids."""

    def restored(self) -> dict[str, Session]:
        found = super().restored()
        self.old = {session.id: session for session in found.values()}
        return found

    def find(self, request: Request, id: str, word: str) -> Session:
        return self.old[id] if word == "read" and id in self.old else super().find(request, id, word)


class EndedComeBack(Notes):
    """An end drops the session from memory, and leaves its file."""

    def forget(self, session: Session) -> None:
        pass


class IdsFromOneAgain(IdsCounted):
    """The holder of an id has its session; after a restart sessions are gone, and ids are counted from 1 again."""

    def restored(self) -> dict[str, Session]:
        return {}


# Streams.


class StreamToEverybody(Notes):
    """An event goes to all who listen."""

    def listeners_of(self, session: Session) -> list[asyncio.Queue[tuple[int, str]]]:
        return [listener for one in self.sessions.values() for listener in one.listeners]


class ResumesAnyonesEvents(Notes):
    """Events are kept in one log, and a stream that comes back receives all later events, of everybody."""

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


class LosesWhatWasMissed(Notes):
    """A stream that comes back begins with the next event."""

    def missed(self, session: Session, last: int) -> list[tuple[int, str]]:
        return []


# A neighbour's load, and memory.


class OneRunAtATime(Notes):
    """One run at a time, in the order in which they came, of any user."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = asyncio.Lock()

    async def think(self, session: Session, text: str) -> list[str]:
        async with self.turn:
            await asyncio.sleep(0.05)
            return await super().think(session, text)


class EndedSessionsKept(Notes):
    """Ended sessions go to a list, for statistics that nobody reads."""

    def end(self, session: Session) -> None:
        super().end(session)
        self.__dict__.setdefault("ended", []).append(session)


class DescriptorsKept(Notes):
    """Each session opens a file, which its end does not close."""

    def made(self, user: str, id: str) -> Session:
        os.open(os.devnull, os.O_RDONLY)
        return super().made(user, id)


class ThreadsKept(Notes):
    """Each session starts a thread, which waits for ever."""

    def made(self, user: str, id: str) -> Session:
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        return super().made(user, id)


def _all(kind: type[Notes]) -> list[type[Notes]]:
    return [one for sub in kind.__subclasses__() for one in (sub, *_all(sub))]


DEFECTS: dict[str, type[Notes]] = {kind.__name__: kind for kind in _all(Notes) if not kind.__name__.startswith("_")}
"""Each planted service by name."""
