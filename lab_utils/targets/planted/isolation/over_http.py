"""Defects of one connection that all users share: HTTP to the model, and a socket to a store."""

from __future__ import annotations

import asyncio
import json
import socketserver
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar
from urllib.parse import urlsplit

from lab_utils.target import EndReport, Recipe, Row
from lab_utils.targets.agent_registry import AgentRegistryTarget
from lab_utils.targets.planted.base import planted_by
from lab_utils.targets.planted.golden_path.prompts import Asking, Between
from lab_utils.targets.planted.isolation.interrupted import ReplyLeftOnTheWire
from registry import Completion, LLMFailed, Prompt

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
        """Read whole answers, one after another, for any caller that asks for the next."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                if self.keeps_cookies and "set-cookie" in headers:
                    self.cookie = headers["set-cookie"].partition(";")[0]
                answers.put_nowait(await reader.readexactly(int(headers["content-length"])))

    def close(self) -> None:
        """Close the connection; nobody reads the rest of its data."""
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
    """One HTTP connection for all: a caller cancelled in the middle of an answer leaves the rest of it to the next."""

    connection = _Connection


class CookiesOfAll(_OverOneConnection):
    """One HTTP client for all keeps the cookies that the server sets, and sends them with everybody's requests."""

    connection = _WithCookies


class ConnectionClosedWhenLeft(_OverOneConnection):
    """The same connection, which is closed by who leaves it, and without cookies."""

    connection = _Careful


class _Numbered(Between):
    """Numbers the questions of each user, and gives each answer to whoever waits for its number."""

    def __init__(self, llm: Any) -> None:
        super().__init__(llm)
        self.asked: Counter[str] = Counter()
        self.waiting: dict[tuple[str, int], asyncio.Future[Completion]] = {}
        self.sending: set[asyncio.Task[Completion]] = set()

    async def ask(self, user_id: str, prompt: Prompt) -> Completion:
        self.asked[user_id] += 1
        key = (user_id, self.asked[user_id])
        waiter = self.waiting[key] = asyncio.get_running_loop().create_future()
        task = asyncio.ensure_future(super().ask(user_id, prompt))
        self.sending.add(task)
        task.add_done_callback(partial(self.arrived, key))
        try:
            completion: Completion = await waiter
            return completion
        finally:
            if self.waiting.get(key) is waiter:
                del self.waiting[key]

    def arrived(self, key: tuple[str, int], task: asyncio.Task[Completion]) -> None:
        self.sending.discard(task)
        waiter = self.waiting.get(key)
        if waiter is None or waiter.done() or task.cancelled():
            return
        error = task.exception()
        if error is None:
            waiter.set_result(task.result())
        else:
            waiter.set_exception(error)

    def left(self, user_id: str) -> None:
        """The user's session has ended."""

    def close(self) -> None:
        for task in self.sending:
            task.cancel()


class _NumberedAnew(_Numbered):
    def left(self, user_id: str) -> None:
        self.asked.pop(user_id, None)


class QuestionsNumbered(Asking):
    """Right: each question of a user has a number of its own, in all sessions, and its answer bears that number."""

    between = _Numbered
    # Questions that were left go on.
    llm_options: Mapping[str, Any] = MappingProxyType({"concurrency": 100})

    async def end(self, user: str) -> EndReport:
        report = await super().end(user)
        self.llm.left(user)
        return report

    async def stop(self) -> None:
        self.llm.close()
        await super().stop()


class QuestionsNumberedAnew(QuestionsNumbered):
    """Questions are numbered from 1 in each session: the late answer to a question of the last session is given to the
    question of the same number in the next."""

    between = _NumberedAnew


class _Mailboxes(_Numbered):
    """Keeps what arrives for a user, and answers with what is there."""

    def __init__(self, llm: Any) -> None:
        super().__init__(llm)
        self.boxes: defaultdict[str, asyncio.Queue[Completion]] = defaultdict(asyncio.Queue)

    async def ask(self, user_id: str, prompt: Prompt) -> Completion:
        task = asyncio.ensure_future(Between.ask(self, user_id, prompt))
        self.sending.add(task)
        task.add_done_callback(partial(self.arrived, (user_id, 0)))
        return await self.boxes[user_id].get()

    def arrived(self, key: tuple[str, int], task: asyncio.Task[Completion]) -> None:
        self.sending.discard(task)
        if not task.cancelled() and task.exception() is None:
            self.boxes[key[0]].put_nowait(task.result())


class AnswersInTheMailbox(QuestionsNumbered):
    """Answers go to their user's mailbox, and who asks takes the first: a caller who was cancelled leaves one there."""

    between = _Mailboxes


class _EqualQuestions(Between):
    """Equal questions that are under way at once are one request, whoever asks them."""

    def __init__(self, llm: Any) -> None:
        super().__init__(llm)
        self.under_way: dict[str, asyncio.Task[Completion]] = {}

    async def ask(self, user_id: str, prompt: Prompt) -> Completion:
        task = self.under_way.get(prompt.text)
        if task is None:
            task = self.under_way[prompt.text] = asyncio.ensure_future(super().ask(user_id, prompt))
            task.add_done_callback(lambda _: self.under_way.pop(prompt.text, None))
        return await self.answer_of(task)

    async def answer_of(self, task: asyncio.Task[Completion]) -> Completion:
        return await asyncio.shield(task)

    def close(self) -> None:
        for task in self.under_way.values():
            task.cancel()


class _EqualQuestionsCancelled(_EqualQuestions):
    async def answer_of(self, task: asyncio.Task[Completion]) -> Completion:
        return await task


class EqualQuestionsAreOne(Asking):
    """Right: of those who ask the same at once, one may leave, and the request goes on for the others."""

    between = _EqualQuestions
    # Questions that were left go on.
    llm_options: Mapping[str, Any] = MappingProxyType({"concurrency": 100})

    async def stop(self) -> None:
        self.llm.close()
        await super().stop()


class EqualQuestionsCancelled(EqualQuestionsAreOne):
    """Those who ask the same at once await one task: who leaves cancels it, and with it everybody's question."""

    between = _EqualQuestionsCancelled


class _InLine(Between):
    """Four questions of a user are under way at most, the others wait in line. A line that is empty is forgotten."""

    def __init__(self, llm: Any) -> None:
        super().__init__(llm)
        self.places: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(4))
        self.asked: Counter[str] = Counter()

    async def ask(self, user_id: str, prompt: Prompt) -> Completion:
        self.asked[user_id] += 1
        try:
            await self.places[user_id].acquire()
            try:
                answer = await super().ask(user_id, prompt)
            except Exception:
                self.places[user_id].release()
                raise
            self.places[user_id].release()
            return answer
        finally:
            self.asked[user_id] -= 1
            if not self.asked[user_id]:
                del self.places[user_id], self.asked[user_id]


class PlaceAtTheModelKept(Asking):
    """A question that is cancelled keeps its user's place at the model: after four of them the next waits for ever."""

    between = _InLine


class _Echo(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line)


class _Store:
    """A server in a thread that answers each line with the same line, and one connection to it for everybody."""

    closes_when_left = False

    def __init__(self) -> None:
        self.server: socketserver.ThreadingTCPServer | None = None
        self.turn = asyncio.Lock()
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def start(self) -> None:
        """Begin to serve, and connect."""
        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Echo)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.01,), name="a planted store", daemon=True).start()
        await self._connect()

    async def _connect(self) -> None:
        assert self.server is not None
        port = int(self.server.server_address[1])
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)

    async def ask(self, reply: Any) -> Any:
        """Send the reply through the store, and take the value that comes back for it."""
        async with self.turn:
            if self.writer is None:
                await self._connect()
            assert self.reader is not None
            assert self.writer is not None
            try:
                self.writer.write(json.dumps(reply).encode() + b"\n")
                await self.writer.drain()
                return json.loads(await self.reader.readline())
            except BaseException:
                if self.closes_when_left:
                    self.writer.close()
                    self.writer = None
                raise

    def stop(self) -> None:
        """Close the connection and the server."""
        if self.writer is not None:
            self.writer.close()
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()


class _CarefulStore(_Store):
    closes_when_left = True


class ReplyLeftInASocket(ReplyLeftOnTheWire):
    """One socket to a store for all: a cancelled tool call leaves its reply there, and the next call reads it."""

    resource: ClassVar[Callable[[], Any]] = _Store

    async def start(self, recipes: Sequence[Recipe], rows: Mapping[str, Sequence[Row]], close_timeout: float) -> None:
        await super().start(recipes, rows, close_timeout)
        await self.shared.start()

    async def stop(self) -> None:
        await super().stop()
        self.shared.stop()


class SocketClosedWhenLeft(ReplyLeftInASocket):
    """The same socket, which is closed by who leaves it."""

    resource = _CarefulStore


class _ClosedByWhoLeaves(Between):
    """Closes the client when a question is left: nobody knows what of its answer is still on the way."""

    is_closed = False

    async def ask(self, user_id: str, prompt: Prompt) -> Completion:
        if self.is_closed:
            raise LLMFailed("the client of the model has been closed")
        try:
            return await super().ask(user_id, prompt)
        except asyncio.CancelledError:
            self.is_closed = True
            raise


class ClientClosedByWhoLeaves(Asking):
    """Who leaves a question closes the client of the model, which serves all users."""

    between = _ClosedByWhoLeaves


PLANTED = (
    planted_by(AnswerLeftOnTheConnection, "cross-user-data", twin=ConnectionClosedWhenLeft),
    planted_by(CookiesOfAll, "foreign-cookie", twin=ConnectionClosedWhenLeft),
    planted_by(ReplyLeftInASocket, "cross-user-data", twin=SocketClosedWhenLeft),
    planted_by(ClientClosedByWhoLeaves, "bystander-harmed"),
    # Those that they derive from are right as well; the test of the part asks them.
    planted_by(QuestionsNumberedAnew, "old-life-read"),
    planted_by(AnswersInTheMailbox, "wrong-answer"),
    planted_by(EqualQuestionsCancelled, "cancelled-others"),
    planted_by(PlaceAtTheModelKept, "next-call-fails"),
)
