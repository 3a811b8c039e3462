"""Nothing that a server sends in one user's name goes out, or comes in, in another's."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from registry import LLMFailed, LLMManager, OpenAICompatibleLLM, Prompt, UserExecutionContext
from tests.running import run

USERS = ("ada", "bob", "cyd")
HOW = ("whole", "streamed", "refused", "tried_again", "redirected", "cut_off", "answered_twice")


class Upstream:
    """A server that sets a cookie with every answer, and remembers the requests of each connection."""

    def __init__(self, how: str) -> None:
        self.how = how
        self.port = 0
        self.requests: list[tuple[int, str, dict[str, str]]] = []  # The connection, the user, the headers.
        self.connections = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        connection = self.connections
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
                asked = json.loads(await reader.readexactly(int(headers["content-length"])))
                user = asked["user"]
                self.requests.append((connection, user, headers))
                writer.write(self._answer(user))
                await writer.drain()
                if self.how == "cut_off":
                    break
        writer.close()

    def _answer(self, user: str) -> bytes:
        calls = Counter(asked_by for _, asked_by, _ in self.requests)
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": f"secret of {user}"}}
        body = json.dumps({"choices": [choice]})
        match self.how:
            case "refused":
                return self._message(user, "400 Bad Request", '{"error": {"message": "no"}}')
            case "tried_again" if calls[user] == 1:
                return self._message(user, "503 Service Unavailable", "{}")
            case "redirected":
                elsewhere = f"Location: http://{user}:{user}@127.0.0.1:{self.port}/of/{user}\r\n"
                return self._message(user, "307 Temporary Redirect", "", elsewhere)
            case "streamed":
                delta = {"choices": [{"index": 0, "finish_reason": "stop", "delta": {"content": f"secret of {user}"}}]}
                return self._message(user, "200 OK", f"data: {json.dumps(delta)}\n\ndata: [DONE]\n\n")
            case "cut_off":
                return self._message(user, "200 OK", body)[:-5]
            case "answered_twice":
                return 2 * self._message(user, "200 OK", body)
        return self._message(user, "200 OK", body)

    def _message(self, user: str, status: str, body: str, more: str = "") -> bytes:
        cookies = "".join(f"Set-Cookie: {name}=of-{user}; Path={path}\r\n" for name, path in (("a", "/"), ("b", "/v1")))
        kind = "text/event-stream" if self.how == "streamed" else "application/json"
        length = f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        return f"HTTP/1.1 {status}\r\n{cookies}{more}{length}\r\n{body}".encode()


async def no_pause(_: float) -> None:
    pass


@pytest.mark.parametrize(
    ("how", "trust_env"),
    [*((how, False) for how in HOW), ("whole", True), ("redirected", True)],
)
def test_what_a_server_sends_to_one_user_reaches_no_other(
    how: str, *, trust_env: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HTTP_PROXY", raising=False)
    upstream = Upstream(how)
    answers: dict[str, list[str]] = {user: [] for user in USERS}

    async def main() -> None:
        async with upstream.serving():
            llm = OpenAICompatibleLLM(
                f"http://127.0.0.1:{upstream.port}/v1",
                "m",
                "key",
                stream=how == "streamed",
                send_user=True,
                trust_env=trust_env,
                sleep=no_pause,
            )
            manager = LLMManager(llm)
            for user in (*USERS, *reversed(USERS)):
                with suppress(LLMFailed):
                    completion = await manager.create_handle(UserExecutionContext(user)).complete(Prompt.of("hello"))
                    answers[user].append(completion.text)
            await llm.aclose()

    run(main)
    assert {user for _, user, _ in upstream.requests} == set(USERS)
    for _, user, headers in upstream.requests:
        assert headers["authorization"] == "Bearer key", f"{user} goes out with what was set, and nothing else"
        assert "cookie" not in headers, f"{user} sends {headers['cookie']}"
    served = {connection: {who for one, who, _ in upstream.requests if one == connection} for connection in range(9)}
    assert all(len(users) <= 1 for users in served.values()), f"two users over one connection: {served}"
    for user, texts in answers.items():
        assert set(texts) <= {f"secret of {user}"}
    if how in ("whole", "streamed", "tried_again"):
        assert all(len(texts) == 2 for texts in answers.values())


def test_a_cookie_of_our_own_is_sent_as_it_was_set() -> None:
    upstream = Upstream("whole")

    async def main() -> None:
        async with upstream.serving():
            url = f"http://127.0.0.1:{upstream.port}/v1"
            llm = OpenAICompatibleLLM(
                url, "m", "key", stream=False, send_user=True, trust_env=False, headers={"Cookie": "team=blue"}
            )
            for user in USERS:
                await llm.for_user(user).complete(Prompt.of("hello"))
            await llm.aclose()

    run(main)
    assert [headers["cookie"] for _, _, headers in upstream.requests] == ["team=blue"] * 3
