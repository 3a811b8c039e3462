"""Drafts of service files, from an OpenAPI description and from MCP tools: they parse, and their server does them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mcp.types import Tool, ToolAnnotations

from lab_utils.cli import main
from lab_utils.service.drafts import of_openapi, of_tools
from lab_utils.service.file import ServiceFile, parse_service
from lab_utils.values.profiles import UsageError

BOARDS = """
import sys, uvicorn
from fastapi import Depends, FastAPI
from fastapi.security import HTTPBearer
from pydantic import BaseModel

class New(BaseModel):
    title: str
    color: str = "red"
class Board(BaseModel):
    id: str
    title: str
class Card(BaseModel):
    size: int
    text: str

app = FastAPI(dependencies=[Depends(HTTPBearer())])
BOARDS: dict[str, list[Card]] = {}

@app.post("/boards", status_code=201)
def make(new: New) -> Board:
    BOARDS[id := f"board-{len(BOARDS)}"] = []
    return Board(id=id, title=new.title)
@app.get("/boards")
def boards() -> list[Board]:
    return [Board(id=id, title="") for id in BOARDS]
@app.get("/boards/{board_id}")
def board(board_id: str) -> Board:
    return Board(id=board_id, title="")
@app.post("/boards/{board_id}/cards")
def add(board_id: str, card: Card) -> Card:
    BOARDS[board_id].append(card)
    return card
@app.get("/boards/{board_id}/cards")
def cards(board_id: str) -> list[Card]:
    return BOARDS[board_id]
@app.put("/boards/{board_id}/archive")
def archive(board_id: str) -> None: ...
@app.delete("/boards/{board_id}", status_code=204)
def delete(board_id: str) -> None:
    del BOARDS[board_id]

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
"""
START = {"command": ["server", "{port}"]}


def parsed(text: str) -> ServiceFile:
    return parse_service(text, "draft.toml")


def tool(name: str, *needs: str, hints: ToolAnnotations | None = None) -> Tool:
    schema = {"type": "object", "properties": {one: {"type": "string"} for one in needs}, "required": list(needs)}
    return Tool(name=name, input_schema=schema, annotations=hints)


def test_a_draft_of_an_openapi_description_works_on_its_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "app.py").write_text(BOARDS)
    described: dict[str, Any] = {}
    exec(compile(BOARDS, "app.py", "exec"), described)
    (tmp_path / "openapi.json").write_text(json.dumps(described["app"].openapi()))
    file = tmp_path / "service.toml"
    assert main(["new-service", str(file), "--openapi", str(tmp_path / "openapi.json")]) == 0
    text = file.read_text()
    service = parsed(text)
    assert {word: one.request for word, one in service.operations.items()} == {
        "open": "POST /boards",
        "write": "POST /boards/{session}/cards",
        "read": "GET /boards/{session}/cards",
        "list": "GET /boards",
        "end": "DELETE /boards/{session}",
    }
    assert service.identity.headers == {"Authorization": "Bearer {token}"}
    others = text.partition("# Mapped to no word:\n")[2].splitlines()
    assert others == ["#   GET /boards/{board_id}", "#   PUT /boards/{board_id}/archive"]
    # The one line to mend is how it starts.
    start = next(line for line in text.splitlines() if line.startswith("command"))
    file.write_text(text.replace(start, 'command = ["{python}", "{folder}/app.py", "{port}"]'))
    assert main(["check-service", str(file)]) == 0
    assert "each request was done" in capsys.readouterr().out


def test_nested_ids_references_and_a_prefix_are_followed() -> None:
    board = {"type": "object", "required": ["data"], "properties": {"data": {"$ref": "#/components/schemas/Board"}}}
    id_of = {"name": "board_id", "in": "path", "required": True, "schema": {"type": "string"}}
    note = {"type": "object", "properties": {"note": {"type": "string"}, "kind": {"type": "string", "enum": ["a"]}},
            "required": ["kind"]}  # fmt: skip
    answer = {"200": {"description": "", "content": {"application/json": {"schema": board}}}}
    document = {
        "openapi": "3.1.0",
        "info": {"title": "Notes & Boards", "version": "1"},
        "servers": [{"url": "/api/v1"}],
        "paths": {
            "/boards": {"post": {"responses": answer}},
            "/boards/{board_id}": {
                "get": {"parameters": [id_of], "responses": answer},
                "patch": {
                    "parameters": [id_of],
                    "requestBody": {"content": {"application/json": {"schema": note}}},
                    "responses": {"204": {"description": ""}},
                },
            },
        },
        "components": {"schemas": {"Board": {"type": "object", "properties": {"id": {"type": "string"}}}}},
    }
    service = parsed(of_openapi(document, START).text("draft.toml"))
    assert service.name == "notes-boards"
    assert service.operations["open"].extract == {"session": "data.id"}
    assert service.operations["write"].request == "PATCH /api/v1/boards/{session}"
    assert service.operations["write"].body == {"kind": "a", "note": "{value}"}
    assert service.promises.writes == "replace"
    assert service.promises.identity == "none"


def rooms(*paths: str) -> dict[str, Any]:
    """A description of operations on rooms whose messages are texts."""
    text = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
    found: dict[str, Any] = {}
    for one in paths:
        method, path = one.split(" ")
        known = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
        operation: dict[str, Any] = {"responses": {"200": {"description": ""}}}
        operation["parameters"] = [known] if "{id}" in path else []
        if method == "post" or (path == "/notes/{id}" and method == "put"):
            operation["requestBody"] = {"content": {"application/json": {"schema": text}}}
        found.setdefault(path, {})[method] = operation
    return {"openapi": "3.1.0", "info": {"title": "rooms", "version": "1"}, "paths": found}


def counted_rooms(
    pattern: str = "^[a-z0-9 ]+$",
    count: str = "integer",
    counter: tuple[str, str, str] = ("counter", "sum", "by"),
    registers: str = "/users",
) -> dict[str, Any]:
    """A description of rooms with messages, a counter, runs, a login, and another path that takes a password."""
    path, whole, part = counter
    text, number, fitting = {"type": "string"}, {"type": "integer"}, {"type": "string", "pattern": pattern}
    id_of = {"name": "room", "in": "path", "required": True, "schema": text}

    def of(answer: dict[str, Any], **body: Any) -> dict[str, Any]:
        content = {"application/json": {"schema": {"type": "object", "properties": answer}}}
        schema = {"type": "object", "properties": body, "required": [*body]}
        given = {"requestBody": {"content": {"application/json": {"schema": schema}}}} if body else {}
        return {"responses": {"200": {"description": "", "content": content}}, **given}

    below = {"parameters": [id_of]}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Rooms", "version": "1"},
        "components": {"securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}}},
        "paths": {
            registers: {"post": of({"access_token": text}, user=text, password=text)},
            "/login": {"post": of({"access_token": text}, user=text, password=text)},
            "/rooms": {"post": of({"id": text})},
            "/rooms/{room}": {**below, "get": of({"id": text}), "delete": of({})},
            "/rooms/{room}/runs": {**below, "post": of({"answer": text}, prompt=text)},
            "/rooms/{room}/messages": {
                **below,
                "get": of({"messages": {"type": "array", "items": text}}),
                "post": of({}, text=fitting),
            },
            f"/rooms/{{room}}/{path}": {
                **below,
                "get": of({whole: {"type": count}}),
                "post": of({whole: number}, **{part: number}),
            },
        },
    }


def test_a_counter_a_run_a_fitting_pattern_and_a_login_are_recognised() -> None:
    draft = of_openapi(counted_rooms(), START)
    service = parsed(draft.text("draft.toml"))
    assert {word: one.request for word, one in service.operations.items()} == {
        "open": "POST /rooms",
        "write": "POST /rooms/{session}/messages",
        "read": "GET /rooms/{session}/messages",
        "add": "POST /rooms/{session}/counter",
        "total": "GET /rooms/{session}/counter",
        "run": "POST /rooms/{session}/runs",
        "end": "DELETE /rooms/{session}",
    }
    assert (service.operations["add"].answer, service.operations["total"].answer) == ("sum", "sum")
    assert service.operations["add"].body == {"by": "{amount}"}
    assert service.identity.login is not None
    assert service.identity.login.body == {"user": "{user}", "password": "{secret}"}
    assert service.identity.login.extract == {"token": "access_token"}
    assert draft.others == ["POST /users", "GET /rooms/{room}"]


@pytest.mark.parametrize(
    ("counter", "is_one"),
    [
        (("counter", "value", "value"), True),
        (("seats", "seatCount", "delta"), True),
        (("budget", "money", "amount"), True),
        (("budget", "remaining_total", "money"), True),
        (("screen", "height", "width"), False),
        (("discounts", "standby", "country"), False),
    ],
)
def test_two_numbers_of_a_path_are_a_counter_where_one_is_named_as_such(
    counter: tuple[str, str, str], is_one: bool
) -> None:
    found = of_openapi(counted_rooms(counter=counter), START).operations
    assert ("add" in found, "total" in found) == (is_one, is_one)


@pytest.mark.parametrize("path", ["/authors", "/auth/register", "/tokenizers", "/auth/password/reset"])
def test_a_login_is_named_by_the_last_word_of_its_path(path: str) -> None:
    assert of_openapi(counted_rooms(registers=path), START).login["request"] == "POST /login"


@pytest.mark.parametrize(
    ("document", "word"),
    [
        (counted_rooms(pattern="^[0-9a-f]{8}-"), "write"),
        (counted_rooms(pattern="^(?<name>a"), "write"),
        (counted_rooms(count="string"), "add"),
    ],
)
def test_a_text_that_fits_no_pattern_and_a_number_that_nobody_answers_with_are_left_alone(
    document: dict[str, Any], word: str
) -> None:
    found = of_openapi(document, START).operations
    assert "counter" not in str(found.get(word))
    assert "messages" not in str(found.get(word))


def test_a_put_under_an_id_of_the_client_s_choice_opens_a_session() -> None:
    messages = ("post /rooms/{id}/messages", "get /rooms/{id}/messages")
    # Of the paths that a GET may be at, the shortest one is no read.
    document = rooms("get /rooms", "put /rooms/{id}", "delete /rooms/{id}", "get /rooms/{id}/sse", *messages)
    sse = {"200": {"description": "", "content": {"text/event-stream": {}}}}
    document["paths"]["/rooms/{id}/sse"]["get"]["responses"] = sse
    service = parsed(of_openapi(document, START).text("draft.toml"))
    assert {word: one.request for word, one in service.operations.items()} == {
        "open": "PUT /rooms/{session}",
        "write": "POST /rooms/{session}/messages",
        "read": "GET /rooms/{session}/messages",
        "list": "GET /rooms",
        "stream": "GET /rooms/{session}/sse",
        "end": "DELETE /rooms/{session}",
    }
    assert service.promises.session_ids == "client"
    assert service.promises.writes == "append"


def test_a_put_of_a_text_under_an_id_of_the_client_s_choice_is_a_write() -> None:
    document = rooms("get /notes", "put /notes/{id}", "get /notes/{id}", "delete /notes/{id}")
    service = parsed(of_openapi(document, START).text("draft.toml"))
    assert {word: one.request for word, one in service.operations.items()} == {
        "write": "PUT /notes/{session}",
        "read": "GET /notes/{session}",
        "list": "GET /notes",
        "end": "DELETE /notes/{session}",
    }
    assert service.operations["write"].body == {"text": "{value}"}
    assert (service.promises.session_ids, service.promises.writes) == ("client", "replace")


def test_a_put_of_an_item_that_a_post_makes_opens_nothing() -> None:
    document = rooms("post /rooms", "put /rooms/{id}", "delete /rooms/{id}", "get /rooms/{id}/messages")
    service = parsed(of_openapi(document, START).text("draft.toml"))
    assert "open" not in service.operations or service.operations["open"].request == "POST /rooms"
    assert service.promises.session_ids == "server"


def test_tools_are_taken_by_annotations_then_by_names() -> None:
    tools = [
        tool("wipe", "board", hints=ToolAnnotations(destructive_hint=True)),
        tool("add_pin", "board", "text"),
        tool("contents", "board", hints=ToolAnnotations(read_only_hint=True)),
        tool("get_weather", "city"),
        tool("ask", "prompt"),
    ]
    text = of_tools("pins", tools, "/tools/mcp", START, proves=True).text("draft.toml")
    service = parsed(text)
    assert {word: one.tool for word, one in service.operations.items() if one.tool} == {
        "write": "add_pin",
        "read": "contents",
        "run": "ask",
        "end": "wipe",
    }
    assert service.operations["write"].arguments == {"board": "{session}", "text": "{value}"}
    assert service.operations["open"].request == "POST /tools/mcp"
    assert text.endswith("# Mapped to no word:\n#   get_weather(city)\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--openapi", "none.json"], "none.json: No such file"),
        (["--openapi", "http://127.0.0.1:1/openapi.json"], "does the server run?"),
        (["--openapi", "http://example.com/openapi.json"], "add --allow-host example.com"),
        (["--mcp", "http://127.0.0.1:1/mcp"], "does an MCP server run there?"),
        (["--mcp", "127.0.0.1:1"], "is no URL"),
        (["--mcp", "http://127.0.0.1:1/mcp", "--header", "Bearer"], "write it as 'Name: value'"),
        (["--openapi", __file__], "is neither JSON nor YAML"),
    ],
)
def test_a_source_that_fails_is_named_and_writes_nothing(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new-service", str(tmp_path / "new.toml"), *words]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "new.toml").exists()


def test_a_description_without_operations_and_tools_without_texts_are_refused() -> None:
    with pytest.raises(UsageError, match="has no operation"):
        of_openapi({"openapi": "3.1.0", "info": {"title": "", "version": ""}, "paths": {}}, START)
    with pytest.raises(UsageError, match="none of the 1 tools"):
        of_tools("pins", [tool("now")], "/mcp", START, proves=False)
