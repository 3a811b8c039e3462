"""Requests of strangers to `registry-lab serve` and to the example: refused in words, never by a traceback."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")

from lab_utils.cli.serve import served
from lab_utils.sockets.loopback import LoopbackServer, serving
from tests.running import load

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "fastapi_app.py"
APPS = pytest.mark.parametrize("which", ["serve", "example"])


@asynccontextmanager
async def running(which: str, host: str = "127.0.0.1") -> AsyncIterator[LoopbackServer]:
    if which == "serve":
        async with served(host) as it:
            yield it.server
    else:
        async with serving(load(EXAMPLE).app, host=host) as server:
            yield server


async def ask(
    server: LoopbackServer, path: str, body: bytes | None = None, *, host: str = "127.0.0.1", headers: str = ""
) -> tuple[int, str]:
    """The status and body of an answer; the request is sent as it is."""
    reader, writer = await asyncio.open_connection(server.host, server.port)
    method, length = ("GET", "") if body is None else ("POST", f"Content-Length: {len(body)}\r\n")
    kind = "Content-Type: application/json\r\n" if body is not None else ""
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{kind}{length}{headers}\r\n"
    writer.write(head.encode("latin-1") + (body or b""))
    answer = await reader.read()
    writer.close()
    told, _, text = answer.partition(b"\r\n\r\n")
    return int(told.split()[1]), text.decode()


UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nOrigin: http://{host}\r\nAuthorization: Bearer {token}\r\n"
)


@APPS
@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil"])
async def test_a_request_in_the_name_of_another_host_is_refused(which: str, host: str) -> None:
    """A page of evil.example whose name leads to 127.0.0.1 could ask for anybody's token otherwise."""

    async with running(which) as server:
        status, answer = await ask(server, "/token", b'{"user": "ada"}')
        token = json.loads(answer)["token"]
        assert status == 200
        for path, body in (("/", None), ("/token", b'{"user": "ada"}'), ("/run", b'{"text": "x"}')):
            status, _ = await ask(server, path, body, host=host, headers=f"Authorization: Bearer {token}\r\n")
            assert status == 400
        upgrade = UPGRADE.format(host=host, token=token)
        assert (await ask(server, "/events/", host=host, headers=upgrade))[0] == 400
        for known in ("localhost", f"127.0.0.1:{server.port}", "LOCALHOST:1", "[::1]:80"):
            assert (await ask(server, "/", host=known))[0] == 200


@pytest.mark.skipif(sys.platform != "linux", reason="the machine may have no address 127.0.0.2")
async def test_the_host_that_it_was_told_to_listen_on_is_known() -> None:
    async with running("serve", "127.0.0.2") as server:
        assert (await ask(server, "/", host="127.0.0.2:80"))[0] == 200
        assert (await ask(server, "/", host="127.0.0.3"))[0] == 400


async def test_the_example_is_told_the_hosts_that_it_is_served_under(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_REGISTRY_HOSTS", "agents.example *.of.example")

    async with running("example") as server:
        statuses = [(await ask(server, "/", host=f"{name}.example"))[0] for name in ("agents", "a.of", "evil")]
        assert statuses == [200, 200, 400]


def deep(depth: int, left: bytes = b"[", right: bytes = b"]", inner: bytes = b"") -> bytes:
    return left * depth + inner + right * depth


UNREADABLE = {
    "nothing": b"",
    "half": b'{"%s": "',
    "bytes": b'{"%s": "\xff"}',
    "long number": b'{"%s": ' + b"9" * 5_000 + b"}",
    "deep lists": deep(60_000),
    "deep objects": deep(30_000 // 5, b'{"a":', b"}", b"1"),
}
NO_TEXT = {
    "list": b"[]",
    "text": b'"%s"',
    "null": b"null",
    "another": b'{"other": 1}',
    "number": b'{"%s": 3}',
    "no number": b'{"%s": NaN}',
    "infinity": b'{"%s": {"a": 1e999}}',
    "object": b'{"%s": {}}',
    **{f"{depth} deep": b'{"%s": ' + deep(depth) + b"}" for depth in (100, 300, 500, 900, 990, 2_000)},
}
NO_USER = {
    "half a character": b'{"%s": "\\ud800"}',
    "half, and a whole one": b'{"%s": "\\ud800\\ud83d\\ude00"}',
    "a control character": b'{"%s": "a\\u0000"}',
    "empty": b'{"%s": ""}',
    "white space": b'{"%s": " ada"}',
    "long": b'{"%s": "' + b"x" * 257 + b'"}',
}


@APPS
async def test_what_is_no_request_is_answered_422_with_words(which: str) -> None:
    async with running(which) as server:
        _, answer = await ask(server, "/token", b'{"user": "ada"}')
        own = f"Authorization: Bearer {json.loads(answer)['token']}\r\n"
        for path, name, odd in (
            ("/token", b"user", UNREADABLE | NO_TEXT | NO_USER),
            ("/run", b"text", UNREADABLE | NO_TEXT),
        ):
            for what, body in odd.items():
                status, answer = await ask(server, path, body.replace(b"%s", name), headers=own)
                assert status == 422, (path, what, answer)
                assert json.loads(answer)["detail"], (path, what)
                assert len(answer) < 1_000, (path, what)


@APPS
@pytest.mark.parametrize("text", [b"", b"\\u0000", b"\\ud83d\\ude00", b"'\\\"; --", b"\\u202e", b"x" * 60_000])
async def test_an_odd_text_is_a_text(which: str, text: bytes) -> None:
    async with running(which) as server:
        _, answer = await ask(server, "/token", b'{"user": "ada"}')
        own = f"Authorization: Bearer {json.loads(answer)['token']}\r\n"
        status, answer = await ask(server, "/run", b'{"text": "' + text + b'"}', headers=own)
        assert (status, list(json.loads(answer))) == (200, ["output"])


async def test_serve_takes_no_body_without_end() -> None:
    async with running("serve") as server:
        body = b'{"user": "' + b"x" * 70_000 + b'"}'
        status, answer = await ask(server, "/token", body)
        assert (status, json.loads(answer)) == (422, {"detail": "the body has more than 65536 bytes"})


@APPS
@pytest.mark.parametrize("token", ["", "x", "\xff", "a.b.c", "x" * 5_000])
async def test_an_odd_token_is_refused(which: str, token: str) -> None:
    async with running(which) as server:
        status, _ = await ask(server, "/run", b'{"text": "x"}', headers=f"Authorization: Bearer {token}\r\n")
        assert status in (401, 403)
