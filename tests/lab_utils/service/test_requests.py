"""Requests as the file words them, on the server of notes that the lab ships: answers, streams, dropped requests, and
records."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import threading
from collections.abc import AsyncIterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import msgspec
import pytest

from lab_utils.service.answers import Answer
from lab_utils.service.credentials import Credentials, TokenFailed
from lab_utils.service.door import Door, Session, _lines, _sse
from lab_utils.service.file import Bounds, Identity, Operation
from lab_utils.service.filling import filled, filled_path
from lab_utils.service.planted.notes import Notes, Refused
from lab_utils.service.process import StartFailed
from lab_utils.service.target import ServiceTarget
from lab_utils.service.traffic import OutOfBounds, Traffic
from lab_utils.targets.planted.services import planted_file


async def test_words_are_sent_answered_and_written_down(tmp_path: Path) -> None:
    log = tmp_path / "sent.jsonl"
    target = ServiceTarget(planted_file("right"), log=log)
    await target.launch()
    ada, bob = target.door("ada"), target.door("bob")
    session = Session("ada", {"session": "s 1?"})
    assert (await ada.do("open", session, {})).extracted == {"session": "s 1?"}
    stream = ada.listen(session, {"last_id": ""})
    assert (await stream.opened()).is_done
    assert (await ada.do("write", session, {"value": "one"})).is_done
    assert (await ada.do("read", session, {})).value == ["one"]
    assert (await bob.do("read", session, {})).status == 404
    assert await ada.abandon("run", session, {"value": "gone"}, 0)
    assert not await ada.abandon("read", session, {}, 9)
    assert (await ada.do("run", session, {"value": "two"})).holds("two")
    while not stream.events:
        await ada.do("read", session, {})
    assert json.loads(stream.events[0].data) == {"text": "one"}
    token = target.credentials.token("ada")
    await target.stop()
    assert not stream.is_open
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert [row["word"] for row in rows[:4]] == ["open", "stream", "write", "read"]
    assert rows[2]["request"].endswith("/sessions/s%201%3F/notes")
    assert rows[0]["headers"]["authorization"] == "***"
    assert token.rpartition(".")[2] not in log.read_text()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_the_server_s_own_output_is_kept_without_secrets_also_of_what_it_wrote_before_a_restart(
    tmp_path: Path,
) -> None:
    server = (
        "import os, sys; from http.server import *; print(sys.argv[2], 'in process', os.getpid(), flush=True); "
        "HTTPServer(('127.0.0.1', int(sys.argv[1])), BaseHTTPRequestHandler).serve_forever()"
    )
    service = msgspec.structs.replace(
        planted_file("right"),
        command=("{python}", "-c", server, "{port}", "key-of-the-server"),
        secrets=("key-of-the",),
    )
    for log in (tmp_path / "sent.jsonl", None):
        target = ServiceTarget(service, log=log)
        await target.launch()
        await target.restart()
        assert target.process.output(40).startswith("key-of-the-server in")
        await target.stop()
        assert target.process.output(99) == ""
    assert names(tmp_path) == ["sent.jsonl", "sent.log"]
    address, *lines = (tmp_path / "sent.log").read_text().splitlines()
    assert address.startswith("http://127.0.0.1:")
    assert [line.rpartition(" ")[0] for line in lines] == ["***-server in process"] * 2
    assert lines[0] != lines[1]


async def test_the_output_of_a_server_that_does_not_start_is_kept_without_secrets(tmp_path: Path) -> None:
    command = ("{python}", "-c", "import sys; sys.exit('no database for key-of-the-server')", "{port}")
    service = msgspec.structs.replace(planted_file("right"), command=command, secrets=("key-of-the",))
    target = ServiceTarget(service, log=tmp_path / "sent.jsonl")
    with pytest.raises(StartFailed):
        await target.launch()
    await target.stop()
    await target.stop()
    address, *lines = (tmp_path / "sent.log").read_text().splitlines()
    assert address.endswith("did not start")
    assert lines == ["no database for ***-server"]


def test_a_request_to_tools_that_was_cut_short_has_no_answer_of_its_own() -> None:
    pytest.importorskip("mcp")
    from lab_utils.service.mcp_door import _message

    answer, body = '{"id": 1, "result": {}}', b'{"id": 1, "method": "tools/call"}'
    assert _message(httpx.Request("POST", "http://127.0.0.1/mcp", content=body), answer) == json.loads(answer)
    assert _message(httpx.Request("POST", "http://127.0.0.1/mcp", content=body[:-1]), answer) is None


async def test_callers_share_connections_and_no_credentials() -> None:
    target = ServiceTarget(planted_file("right"))
    await target.launch()
    ada, bob = target.door("ada"), target.door("bob")
    bob.share(ada)
    session = Session("ada", {"session": "one"})
    assert (await ada.do("open", session, {})).is_done
    assert (await bob.do("read", session, {})).status == 404
    assert (await ada.garbled("write", session, {"value": "cut"})).is_done
    await target.stop()


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ("200 OK\r\nContent-Length: 4", "done"),
        ("204 No Content", ""),
        ("200 OK\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
    ],
)
async def test_an_answer_has_ended_where_it_says_so_though_its_connection_stays_open(head: str, body: str) -> None:
    has_left = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {head}\r\n\r\n{body}".encode())
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()
        has_left.set()

    async with await asyncio.start_server(answer, "127.0.0.1") as server:
        service = msgspec.structs.replace(planted_file("right"), operations={"read": Operation("GET /")})
        base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        door = Door(service, base, "ada", {}, Traffic(Bounds(), None, ()))
        assert not await door.abandon("read", None, {}, 9)
        await has_left.wait()
        await door.close()


async def test_a_token_in_the_address_is_sent_and_written_down_masked(tmp_path: Path) -> None:
    identity = Identity(query={"key": "{token}", "as": "{user}"}, accounts={"ada": "a+token of/ada", "bob": "other"})
    service = msgspec.structs.replace(planted_file("right"), identity=identity)
    assert service.names_users
    log = tmp_path / "sent.jsonl"
    target = ServiceTarget(service, log=log)
    await target.launch()
    session = Session("ada", {"session": "s"})
    for token, query in (("", {"key": "a+token of/ada", "as": "ada"}), (None, {"as": "ada"})):
        door = target.door("ada", token)
        assert dict(door.request(service.operations["read"], session, {}).url.params) == query
        await door.do("read", session, {})
    await target.stop()
    first, second = (json.loads(line)["request"] for line in log.read_text().splitlines())
    assert first.endswith("?key=***&as=ada")
    assert second.endswith("?as=ada")


async def test_no_more_is_sent_than_the_bounds_allow() -> None:
    traffic = Traffic(Bounds(requests=2), None, ())
    assert [await traffic.admit(), await traffic.admit()] == [1, 2]
    with pytest.raises(OutOfBounds, match=r"bounds\.requests = 2"):
        await traffic.admit()


async def test_a_request_has_a_deadline_in_all() -> None:
    """Not a deadline for each part of its answer: they keep coming."""

    async def drips(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(20_000):
            if writer.is_closing():
                break
            writer.write(b"1\r\na\r\n")
            await asyncio.sleep(0)
        writer.close()

    service = msgspec.structs.replace(planted_file("right"), bounds=Bounds(deadline_s=0.01))
    async with await asyncio.start_server(drips, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        door = Door(service, f"http://127.0.0.1:{port}", "ada", {}, Traffic(service.bounds, None, ()))
        answer = await door.do("list", Session("ada"), {})
        await door.close()
    assert (answer.status, answer.error) == (0, "no whole answer in 0.01 s")


def test_templates_are_filled_and_a_value_adds_no_segment_to_a_path() -> None:
    template = {"{b}": ["{a}", "{none}", "x {a} {b}"]}
    assert filled(template, {"a": 7, "b": "y"}) == {"y": [7, "{none}", "x 7 y"]}
    assert filled_path("/s/{id}", {"id": "../a b"}) == "/s/..%2Fa%20b"


SSE = ["event: note", "id: 4", "data: one", "data: two", "", ": ping", "", "data:three", ""]


async def test_streams_have_dialects() -> None:
    async def lines() -> AsyncIterator[str]:
        for line in SSE:
            yield line

    events = [event async for event in _sse(lines())]
    assert [(event.data, event.id, event.type) for event in events] == [("one\ntwo", "4", "note"), ("three", "4", "")]
    assert [event.data async for event in _lines(lines())][:2] == ["event: note", "id: 4"]


@pytest.mark.parametrize("text", ["lab1z", '{"a": "\\u006cab1z"}', "%6Cab1z", "&#108;ab1z"])
def test_a_value_is_found_however_it_is_escaped(text: str) -> None:
    assert Answer(200, text).holds("lab1z")
    assert not Answer(200, text).holds("lab2z")


def test_forged_tokens_are_refused_and_the_right_one_is_not() -> None:
    service = planted_file("right")
    credentials, app = Credentials(service.identity, ""), Notes()
    assert app.verified(credentials.token("ada")) == "ada"
    forged = credentials.forged("ada", "bob")
    assert len(forged) == 6
    for token in (*forged.values(), credentials.token("ada", expires_in=-60), ""):
        with pytest.raises(Refused):
            app.verified(token)


def _basic(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("token", "forged"),
    [
        ("{user}.0123456789", "ada.0123456789"),
        ("sid=" + _basic('{"user": "bob", "n": 1}'), "sid=" + _basic('{"user": "ada", "n": 1}')),
        (_basic("bob:secret").rstrip("="), _basic("ada:secret").rstrip("=")),
        ("0123456789abcdef0123", None),
    ],
)
def test_a_token_with_a_name_in_it_is_forged_with_another_name(token: str, forged: str | None) -> None:
    accounts = {"ada": "token-of-ada", "bob": token.replace("{user}", "bob")}
    found = Credentials(Identity(headers={"X-Token": "{token}"}, accounts=accounts), "").forged("ada", "bob")
    assert found.get("another's with the owner's name in it") == forged


def test_a_token_that_the_file_makes_of_a_name_is_no_forgery() -> None:
    found = Credentials(Identity(headers={"X-Token": "{token}"}, token="{user}-secret"), "").forged("ada", "bob")
    assert set(found) == {"made-up", "other in its last letters"}


def test_a_command_makes_tokens(tmp_path: Path) -> None:
    identity = Identity(headers={"X-Token": "{token}"}, token_command=("echo", "{user}/{expires_in}"))
    credentials = Credentials(identity, "")
    assert credentials.token("ada", expires_in=-5) == "ada/-5"
    in_folder = Credentials(Identity(token_command=("echo", "{folder}/mint.py")), str(tmp_path))
    assert in_folder.token("ada") == f"{tmp_path.resolve()}/mint.py"
    assert credentials.headers("ada", "t") == {"X-Token": "t"}
    assert credentials.headers("ada", None) == {}


def test_the_variables_of_the_file_stand_in_all_that_makes_tokens() -> None:
    identity = Identity(headers={"X-Token": "{token}", "X-Realm": "{realm}"}, token="{realm}/{user}")
    credentials = Credentials(identity, "", None, {"realm": "north", "user": "nobody"})
    assert credentials.headers("ada", credentials.token("ada")) == {"X-Token": "north/ada", "X-Realm": "north"}
    signing = Identity(headers={"X-Token": "{token}"}, signing_key="key", claims={"sub": "{realm}/{user}"})
    claims = Credentials(signing, "", None, {"realm": "north"}).token("ada").split(".")[1]
    assert json.loads(base64.urlsafe_b64decode(claims + "=="))["sub"] == "north/ada"


class Login(BaseHTTPRequestHandler):
    """Answers a login with a token in the body, and in a cookie; of one user only."""

    def do_POST(self) -> None:
        given = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200 if given == {"name": "ada", "password": "sesame"} else 401)
        self.send_header("set-cookie", "sid=s-1; Path=/; HttpOnly")
        self.end_headers()
        self.wfile.write(b'{"token": "t-1"}')

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


def test_a_login_gives_the_token_and_a_refused_one_is_named(tmp_path: Path) -> None:
    traffic = Traffic(Bounds(), tmp_path / "sent.jsonl", ())
    body = {"name": "{user}", "password": "{secret}"}
    with HTTPServer(("127.0.0.1", 0), Login) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for place, token in (("token", "t-1"), ("header:set-cookie", "sid=s-1")):
            login = Operation("POST /login", body=body, extract={"token": place})
            accounts = {"ada": "sesame", "bob": "guessed"}
            credentials = Credentials(
                Identity(headers={"X-Token": "{token}"}, accounts=accounts, login=login), "", traffic
            )
            credentials.address = f"http://127.0.0.1:{server.server_port}"
            assert credentials.token("ada") == token
            with pytest.raises(TokenFailed, match=r"(?s)login of 'bob' gave no token.*POST http.*401"):
                credentials.token("bob")
            misnamed = Operation("POST /login", body=body, extract={"token": "tokken"})
            wrong = Credentials(
                Identity(headers={"X-Token": "{token}"}, accounts=accounts, login=misnamed), "", traffic
            )
            wrong.address = credentials.address
            with pytest.raises(TokenFailed, match=r"has no tokken") as failed:
                wrong.token("ada")
            assert '"token": "***"' in str(failed.value)
        server.shutdown()
    traffic.close()
    sent = (tmp_path / "sent.jsonl").read_text()
    assert "POST http" in sent
    assert "sesame" not in sent
    assert sent.count("***") > sent.count('"body": "***"')
    with pytest.raises(TokenFailed, match="login of 'ada': POST"):
        credentials.token("ada")
