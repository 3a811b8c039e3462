"""An MCP server on which a tool makes the sessions: callers have a session of the protocol each, and name those ids."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("mcp")

from lab_utils.service.door import Session
from lab_utils.service.file import read_service
from lab_utils.service.target import ServiceTarget

SERVER = """
import sys, uvicorn
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.mcpserver import MCPServer

class Tokens:
    async def verify_token(self, token):
        return AccessToken(token=token, client_id=token, subject=token, scopes=[]) if token.startswith("token") else None

base = f"http://127.0.0.1:{sys.argv[1]}"
settings = AuthSettings(issuer_url=base, resource_server_url=base)
server = MCPServer("books", auth=settings, token_verifier=Tokens())
books = []

@server.tool()
def new_book() -> dict:
    books.append((get_access_token().subject, []))
    return {"book": f"book-{len(books)}"}

def of(book):
    owner, notes = books[int(book.removeprefix("book-")) - 1]
    if owner != get_access_token().subject:
        raise ValueError("no such book")
    return notes

@server.tool()
def remember(book: str, text: str) -> dict:
    of(book).append(text)
    return {"done": True}

@server.tool()
def recall(book: str) -> dict:
    return {"notes": of(book)}

app = server.streamable_http_app(streamable_http_path="/api/mcp")
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
"""
FILE = """
name = "books"
preset = "mcp"
command = ["{python}", "{folder}/server.py", "{port}"]

[identity]
headers = { Authorization = "Bearer {token}" }
accounts = { ada = "token-of-ada", bob = "token-of-bob" }

[operations]
open = { request = "POST /api/mcp", tool = "new_book", extract = { session = "json.book" } }
write = { tool = "remember", arguments = { book = "{session}", text = "{value}" } }
read = { tool = "recall", arguments = { book = "{session}" }, answer = "json.notes" }
"""


async def test_a_tool_opens_sessions_and_each_caller_has_a_session_of_the_protocol(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(SERVER)
    (tmp_path / "service.toml").write_text(FILE)
    target = ServiceTarget(read_service(tmp_path / "service.toml"))
    try:
        await target.launch()
        ada, bob, nobody = target.door("ada"), target.door("bob"), target.door("ada", None)
        opened = [await ada.do("open", None, {}) for _ in range(2)]
        books = [Session("ada", dict(answer.extracted)) for answer in opened]
        assert [book.id for book in books] == ["book-1", "book-2"]
        assert len({book.values["mcp_session"] for book in books}) == 1
        assert (await ada.do("write", books[0], {"value": "one"})).is_done
        assert [(await ada.do("read", book, {})).value for book in books] == [["one"], []]
        # Another user is let into the protocol, and not into the book; nobody is let in at all.
        refused = await bob.do("read", books[0], {})
        assert (refused.status, refused.is_done) == (200, False)
        assert (await nobody.do("read", books[0], {})).status == 401
        await target.restart()
        again = await ada.do("open", None, {})
        assert again.extracted["session"] == "book-1"
        assert again.extracted["mcp_session"] != books[0].values["mcp_session"]
    finally:
        await target.stop()


async def test_an_id_that_the_result_of_the_tool_lacks_is_named(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(SERVER)
    (tmp_path / "service.toml").write_text(FILE.replace("json.book", "json.id"))
    target = ServiceTarget(read_service(tmp_path / "service.toml"))
    try:
        await target.launch()
        answer = await target.door("ada").do("open", None, {})
        assert not answer.is_done
        assert answer.error == "the result has no json.id"
    finally:
        await target.stop()
