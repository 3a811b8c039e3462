"""The example application runs, over real sockets, and its page shows a user's events in a real browser."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")

from websockets.exceptions import ConnectionClosed

from lab_utils.cli.serve import serve, served
from lab_utils.sockets.device import EventClient
from lab_utils.sockets.fleet import ClientFleet
from lab_utils.sockets.loopback import LoopbackServer, serving
from registry.events.wire import CloseCode
from tests.browser import Page, browsing, chromium
from tests.running import load, turns

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "fastapi_app.py"
USER = "ada <b>&"


def ask(url: str, body: Any = None, token: str = "") -> tuple[int, Any]:
    """Status and answer of a request, made in a thread: the server is on the caller's loop."""
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=60) as answer:
            text = answer.read().decode()
            return answer.status, json.loads(text) if "json" in answer.headers["content-type"] else text
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


async def walk_through(server: LoopbackServer) -> None:
    """The actions of a user of either application."""
    http = server.url("", "http")
    status, page = await asyncio.to_thread(ask, f"{http}/")
    assert (status, "new WebSocket" in page) == (200, True)
    status, answer = await asyncio.to_thread(ask, f"{http}/token", {"user": "ada"})
    assert status == 200
    token = answer["token"]
    async with ClientFleet() as fleet:
        url = server.url("/events/")
        mine, refused = fleet.add(EventClient(url, token)), fleet.add(EventClient(url, "rubbish"))
        await fleet.until(lambda one: one.is_ready or one.is_ended)
        assert refused.close_code == 4402
        status, answer = await asyncio.to_thread(ask, f"{http}/run", {"text": "save money"}, token)
        assert status == 200
        assert answer["output"]
        await fleet.until(lambda one: any(each["type"] == "agent_completed" for each in one.events), [mine])
        assert (mine.events[0]["type"], mine.events[0]["agent_type"]) == ("agent_started", "triage")
        assert (await asyncio.to_thread(ask, f"{http}/events/"))[0] == 426


async def test_the_example_is_short_and_runs() -> None:
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) < 80
    async with serving(load(EXAMPLE).app) as server:
        await walk_through(server)


async def test_the_client_in_the_docs_gets_each_event_once_and_comes_back_when_its_session_has_ended() -> None:
    text = (EXAMPLE.parent.parent / "docs" / "events.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    scope: dict[str, Any] = {}
    exec(code, scope)
    assert scope["COME_BACK"] == {1006, 1012} | {code for code in CloseCode if code.is_retryable}
    module = load(EXAMPLE)
    async with serving(module.app) as server:
        http = server.url("", "http")
        _, answer = await asyncio.to_thread(ask, f"{http}/token", {"user": "ada"})
        received = scope["events"](server.url("/events/"), answer["token"])
        got = []

        async def connected(count: int) -> None:
            async with asyncio.timeout(60):
                while module.manager.connection_count() != count:  # The manager tells nobody.
                    await turns()

        for _ in range(2):
            first = asyncio.ensure_future(anext(received))
            # Events emitted before a client has sent `start` are not for it.
            await connected(1)
            assert (await asyncio.to_thread(ask, f"{http}/run", {"text": "save money"}, answer["token"]))[0] == 200
            got.append([await first])
            while got[-1][-1]["type"] != "agent_completed":
                got[-1].append(await anext(received))
            await module.app.state.registry.cleanup_user_session("ada")
            await connected(0)
        for events in got:
            assert events[0]["type"] == "agent_started"
            assert {event["user_id"] for event in events} == {"ada"}
            assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        assert got[0][0]["stream"] != got[1][0]["stream"]
        with pytest.raises(ConnectionClosed) as refused:
            await anext(scope["events"](server.url("/events/"), "rubbish"))
        assert refused.value.rcvd is not None
        assert refused.value.rcvd.code == CloseCode.BAD_TOKEN
        await received.aclose()


async def test_what_serve_serves_behaves_alike() -> None:
    async with served() as it:
        await walk_through(it.server)
        assert it.page.startswith("http://127.0.0.1:")
        assert it.events.endswith("/events/")


def test_serve_says_where_and_stays_on_loopback() -> None:
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if line.startswith("token"):
            raise KeyboardInterrupt

    serve(user="ada", say=say)
    assert [line.split(":")[0] for line in said] == ["page", "events", "token", "stopped"]
    for host in ("0.0.0.0", "example.org", "192.168.0.1"):
        with pytest.raises(ValueError, match="loopback"):
            serve(host)


def watch(page: Page, url: str) -> dict[str, Any]:
    """Connect, run an agent, reconnect: a person's clicks, and the page they would then see."""
    page.open(url)
    page.evaluate(f"document.getElementById('user').value = {json.dumps(USER)}")
    page.evaluate("document.querySelector('#who button').click()")
    connected = page.until("document.querySelector('#state.live')?.textContent")
    page.evaluate("document.getElementById('text').value = '<img src=x onerror=alert(1)>'")
    page.evaluate("document.getElementById('run').click()")
    page.until("document.querySelector('.agent_completed') !== null")
    # The connection breaks; the page comes back by itself and misses nothing.
    page.evaluate("socket.close()")
    page.until("document.querySelector('#state:not(.live)') !== null")
    page.until("document.querySelector('#state.live') !== null")
    page.evaluate("document.getElementById('run').click()")
    page.until("document.querySelectorAll('.agent_completed').length === 2")
    rows = page.evaluate(
        "[...document.querySelectorAll('#events li')].map(row => [...row.children].map(e => e.textContent))"
    )
    return {
        "connected": connected,
        "rows": rows,
        "images": page.evaluate("document.images.length"),
        "address": page.evaluate("performance.getEntries().map(e => e.name).join(' ') + location.href"),
    }


@pytest.mark.skipif(chromium() is None, reason="no Chromium")
async def test_the_page_shows_events_as_they_arrive(tmp_path: Path) -> None:
    def look(url: str) -> dict[str, Any]:
        with browsing(tmp_path / "profile") as page:
            return watch(page, url)

    async with serving(load(EXAMPLE).app) as server:
        seen = await asyncio.to_thread(look, server.url("/", "http"))
    assert seen["connected"] == f"connected as {USER}"
    assert [int(row[0]) for row in seen["rows"]] == list(range(1, len(seen["rows"]) + 1))
    assert [row[1] for row in seen["rows"]].count("agent_started") == 2
    assert seen["rows"][0][2] == "triage"
    assert json.loads(seen["rows"][0][3]) == {"request": "<img src=x onerror=alert(1)>"}
    assert seen["images"] == 0, "payloads are text, never HTML"
    assert "token=" not in seen["address"]
