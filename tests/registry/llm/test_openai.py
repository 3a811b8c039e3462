"""A model over real HTTP: whole answers or errors, retries, time-outs, turns by user, and nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
import sys
import time
import traceback
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import openai
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lab_utils.standin import Fault, Misbehaviour, Plan
from lab_utils.standin.llm_server import StandInLLM
from lab_utils.standin.threaded import ThreadedServer
from lab_utils.targets.llm_over_http import scripted_reply
from registry import (
    AgentRegistry,
    AgentRequest,
    AgentResult,
    BaseAgent,
    LLMFailed,
    LLMManager,
    LLMTimedOut,
    OpenAICompatibleLLM,
    Prompt,
    ScriptedLLM,
    UserExecutionContext,
)
from registry.llm.failures import library
from tests.running import run, settled, turns

KEY = "sk-secret-of-nobody"
QUESTION = Prompt.of("Usage:\n- calls: 12\n- cost of caf\u00e9\u2028\u0085: 3.50 USD", system="Word the figures.")
BOTH = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])


class Waits(list[float]):
    """The seconds that would have been slept between tries; they are not."""

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)


def always(fault: Fault, **rest: Any) -> Plan:
    return lambda asked: Misbehaviour(fault, **rest)


def at_first(times: int, fault: Fault, **rest: Any) -> Plan:
    return lambda asked: Misbehaviour(fault, **rest) if asked.attempt < times else None


@pytest.fixture
def server() -> Iterator[StandInLLM]:
    with StandInLLM(scripted_reply, keys={KEY: ""}) as running:
        yield running
    assert running.connections == 0


@asynccontextmanager
async def client(server: StandInLLM | str, **options: Any) -> AsyncIterator[OpenAICompatibleLLM]:
    base_url = server if isinstance(server, str) else server.base_url
    settings: dict[str, Any] = {"send_user": True, "trust_env": False, "api_key": KEY} | options
    llm = OpenAICompatibleLLM(base_url, "m-1", **settings)
    try:
        yield llm
        assert llm.in_flight == {}
    finally:
        await llm.aclose()


def failure_of(server: StandInLLM | str, **options: Any) -> LLMFailed:
    """The error of one call."""

    async def scenario() -> LLMFailed:
        async with client(server, **options) as llm:
            with pytest.raises(LLMFailed) as caught:
                await llm.complete(QUESTION)
            return caught.value

    return run(scenario)


# ---------------------------------------------------------------------------------------------------- answers and tries


@BOTH
async def test_an_answer_over_http_is_that_of_the_model_behind_it(server: StandInLLM, stream: bool) -> None:
    async with client(server, stream=stream) as llm:
        here = await ScriptedLLM().complete(QUESTION)
        for _ in range(3):
            there = await llm.complete(QUESTION)
            assert (there.text, there.tokens_in, there.tokens_out) == (here.text, here.tokens_in, here.tokens_out)
            assert there.model == "m-1"
    assert [asked.stream for asked in server.asked] == [stream] * 3
    assert server.asked[0].messages == tuple((message.role, message.content) for message in QUESTION.messages)
    assert {asked.user for asked in server.asked} == {""}, "it was nobody's call"


@BOTH
@pytest.mark.parametrize("fault", [Fault.RATE_LIMITED, Fault.SERVER_ERROR])
async def test_a_refusal_is_tried_again_when_the_server_says(server: StandInLLM, fault: Fault, stream: bool) -> None:
    server.plan = at_first(2, fault, retry_after="7")

    waits = Waits()
    async with client(server, stream=stream, sleep=waits) as llm:
        assert "calls is 12" in (await llm.complete(QUESTION)).text
    assert len(waits) == 2
    assert all(7.0 <= wait <= 8.75 for wait in waits), "never sooner, and not all in one moment"
    assert waits[0] != waits[1]
    assert [asked.attempt for asked in server.asked] == [0, 1, 2]


async def test_each_user_has_a_line_of_its_own(server: StandInLLM) -> None:
    server.plan = always(Fault.SILENT)
    users = [f"user-{number}" for number in range(20)]
    async with client(server, concurrency=1) as llm:
        asking = [asyncio.ensure_future(llm.for_user(user).complete(QUESTION)) for user in users]
        await turns(1)
        assert llm.in_flight == dict.fromkeys(users, 1)
        for question in asking:
            question.cancel()
        await settled(*asking)


def test_a_refusal_that_stays_is_the_error_with_its_cause(server: StandInLLM) -> None:
    server.plan = always(Fault.RATE_LIMITED, retry_after="1")
    failed = failure_of(server, sleep=Waits())
    assert failed.status == 429
    assert str(failed) == (f"model 'm-1' at {server.base_url}: it answered 429: set to answer 429 (try 3 of 3)")
    assert len(server.asked) == 3


def test_a_server_that_asks_for_hours_is_not_waited_for(server: StandInLLM) -> None:
    server.plan = always(Fault.RATE_LIMITED, retry_after="7200")
    waits = Waits()
    assert failure_of(server, sleep=waits).status == 429
    assert waits == []


def test_a_server_that_is_not_there_is_tried_again_and_named() -> None:
    server = StandInLLM(scripted_reply).start()
    base_url = server.base_url
    server.stop()
    waits = Waits()
    failed = failure_of(base_url, sleep=waits)
    assert f"{base_url}: no connection: ConnectError" in str(failed)
    assert failed.status is None
    assert len(waits) == 2


# ------------------------------------------------------------------------------------------------------- broken answers


BROKEN = [
    (Fault.CUT_OFF, True, "its answer was cut off: RemoteProtocolError"),
    (Fault.CUT_OFF, False, "its answer was cut off: RemoteProtocolError"),
    (Fault.UNFINISHED, True, "its stream was cut off: it ended before the answer was marked as finished"),
    (Fault.UNFINISHED, False, "it sent invalid JSON"),
    (Fault.MALFORMED, True, "it sent invalid JSON"),
    (Fault.MALFORMED, False, "it sent invalid JSON"),
]


@pytest.mark.parametrize(("fault", "stream", "why"), BROKEN)
def test_a_part_of_an_answer_is_an_error_and_never_a_text(
    server: StandInLLM, fault: Fault, stream: bool, why: str
) -> None:
    server.plan = always(fault)
    waits = Waits()
    failed = failure_of(server, stream=stream, sleep=waits)
    assert why in str(failed)
    assert not isinstance(failed, LLMTimedOut)
    assert (len(server.asked), waits) == (1, []), "what may have been paid for is not asked for again"


@BOTH
@pytest.mark.parametrize("fault", [Fault.SILENT, Fault.STALLED])
async def test_silence_is_a_time_out(
    server: StandInLLM, fault: Fault, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.plan = always(fault)
    async with client(server, stream=stream, timeout=60.0, max_retries=0) as llm:
        asked = asyncio.ensure_future(llm.complete(QUESTION))
        await until(server, lambda: server.held == 1)
        # What it had sent before is here, and is read in these turns.
        await turns(20)
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: time.monotonic() + 120)
        with pytest.raises(LLMTimedOut) as failed:
            await asked
    assert isinstance(failed.value, TimeoutError)
    said = "it was silent for 60 s" if fault is Fault.SILENT else "it fell silent for 60 s in the middle of its answer"
    assert str(failed.value).endswith(f"{said} (try 1 of 1)")


def test_a_call_has_a_deadline_over_all_its_tries(server: StandInLLM) -> None:
    server.plan = always(Fault.STALLED)
    failed = failure_of(server, deadline=0.05)
    assert isinstance(failed, LLMTimedOut)
    assert "it gave no whole answer in 0.05 s" in str(failed)


# -------------------------------------------------------------------------------------------------------- turns by user


async def until(server: StandInLLM, holds: Callable[[], bool]) -> None:
    assert await asyncio.to_thread(server.wait_until, holds)


async def test_closing_ends_calls_under_way_and_refuses_new_ones(server: StandInLLM) -> None:
    server.plan = always(Fault.STALLED)
    async with client(server, concurrency=1) as llm:
        under_way = [asyncio.create_task(llm.for_user(user).complete(QUESTION)) for user in ("ada", "ada", "bob")]
        await until(server, lambda: server.held == 2)
        await asyncio.gather(llm.aclose(), llm.aclose())
        errors = await settled(*under_way)
        assert [str(error).split(": ")[1] for error in errors] == ["it was closed"] * 3
        with pytest.raises(LLMFailed, match="it was closed"):
            await llm.complete(QUESTION)
        assert repr(llm) == f"<OpenAICompatibleLLM 'm-1' at {server.base_url} closed>"


# ------------------------------------------------------------------------------------------------- secrets and settings


async def test_the_key_is_in_no_message_no_repr_and_no_log(
    server: StandInLLM, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = "sk-wrong-and-secret"
    async with client(server, api_key=wrong) as llm:
        handle = LLMManager(llm).create_handle(UserExecutionContext("ada"))
        with pytest.raises(LLMFailed, match=r"answered 401: Incorrect API key provided: \*\*\* \(try 1 of 3\)") as it:
            await handle.complete(QUESTION)
        error = it.value
        shown = [str(error), repr(error), "".join(traceback.format_exception(error)), repr(vars(error))]
        shown += [repr(llm), repr(handle), repr(llm.for_user("ada"))]
        assert wrong not in "\n".join(shown)
        assert (error.__cause__, error.__context__) == (None, None), "no error of the library hangs on it"
    assert caplog.records
    assert wrong not in caplog.text
    assert "calls: 12" not in caplog.text


async def test_what_is_sent_is_what_was_set_and_nothing_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-another-server")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-of-another-server")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    seen: list[tuple[dict[str, str], dict[str, Any]]] = []

    async def answer(request: Request) -> Response:
        seen.append((dict(request.headers), await request.json()))
        choice = {"message": {"content": "Noted."}, "finish_reason": "stop"}
        return JSONResponse({"choices": [choice]})

    server = ThreadedServer(Starlette(routes=[Route("/v1/chat/completions", answer, methods=["POST"])]), "plain")
    server.start()
    try:
        options: dict[str, Any] = {"options": {"temperature": 0}, "headers": {"X-Team": "blue"}, "stream": False}
        async with client(f"http://127.0.0.1:{server.port}/v1/", send_user=False, **options) as llm:
            answered = await llm.for_user("ada@example.org").complete(Prompt.of("hello"))
            assert (answered.text, answered.tokens_in, answered.model) == ("Noted.", 0, "m-1")
    finally:
        server.stop()
    ((headers, body),) = seen
    assert body == {
        "model": "m-1",
        "messages": [{"role": "user", "content": "hello"}],
        "stream": False,
        "temperature": 0,
    }
    assert headers["x-team"] == "blue"
    assert headers["authorization"] == f"Bearer {KEY}"
    assert "another" not in str(headers)


NO_SERVERS = ("127.0.0.1:8000", "ftp://127.0.0.1/v1", "http:///v1", "")
SECRETS = ("http://me@host/v1", "http://:hush@host/v1", "http://host/v1?key=hush", "http://host/v1#hush")
SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"timeout": 0}, "timeout=0 lets no call through; pass a number above 0"),
    ({"deadline": -1.5}, "deadline=-1.5 lets no call through"),
    ({"concurrency": 0}, "concurrency=0 lets no call through"),
    ({"max_retries": -1}, "max_retries=-1 is negative; 0 is for one try"),
    *(
        ({"options": {name: 1, "top_p": 1}}, f"options {name} are set by the call itself; leave them out")
        for name in ("messages", "model", "n", "stream", "stream_options", "user")
    ),
    *(({"base_url": url}, f"base_url {url!r} is not the address of a server; pass one such as") for url in NO_SERVERS),
    *(({"base_url": url}, "base_url holds a user, a password, a query or a fragment; pass the key") for url in SECRETS),
]


@pytest.mark.parametrize(("options", "words"), SETTINGS)
def test_a_setting_that_cannot_be_is_refused_with_its_remedy(options: dict[str, Any], words: str) -> None:
    made: dict[str, Any] = {"base_url": "http://127.0.0.1/v1", "model": "m", "api_key": KEY} | options
    with pytest.raises(ValueError, match=f"^{re.escape(words)}") as refused:
        OpenAICompatibleLLM(**made)
    assert not re.search("hush|me@", str(refused.value))


async def test_the_library_is_told_to_add_nothing_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY"):
        monkeypatch.setenv(name, "of-another-server")
    llm = OpenAICompatibleLLM("http://127.0.0.1/v1", "m-1", "", 2.5)
    told = llm._client
    assert [told.organization, told.project, told.admin_api_key] == [None, None, None]
    assert (told.api_key, told._platform, told.max_retries) == ("none", "Unknown", 0)
    assert told.timeout == httpx2.Timeout(2.5, pool=None)
    await llm.aclose()


def test_the_library_is_two_modules_and_the_extra_is_named_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert library() == (openai, httpx2)
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ImportError, match=r"needs openai: pip install 'agent-registry-lab\[openai\]'$"):
        library()


def test_the_library_still_has_what_is_set_on_it() -> None:
    client = openai.AsyncOpenAI(base_url="http://127.0.0.1/v1", api_key=KEY)
    for name in ("organization", "project", "admin_api_key", "_platform"):
        assert name in vars(client), f"{name} is gone: look again at what OpenAICompatibleLLM sets, and why"


# --------------------------------------------------------------------------------------------- agents, plans and memory


@pytest.mark.parametrize("how", ["answered", "unsendable", "gone", "cancelled", "late", *Fault])
async def test_agents_and_prompts_are_freed_without_the_collector_however_a_call_ends(
    server: StandInLLM, how: str
) -> None:
    watched: list[weakref.ref[Any]] = []

    class Watched(Prompt):
        __slots__ = ("__weakref__",)

    class Asking(BaseAgent):
        async def execute(self, request: AgentRequest) -> Any:
            prompt = Watched.of("\ud800" if how == "unsendable" else "hello")
            watched.extend(weakref.ref(thing) for thing in (prompt, self, self.llm, self.context))
            return (await self.llm.complete(prompt)).text

    outcomes: dict[str, type] = {
        "answered": AgentResult,
        Fault.SLOW: AgentResult,
        "unsendable": UnicodeEncodeError,
        "cancelled": asyncio.CancelledError,
    }
    outcome = outcomes.get(how, LLMFailed)
    if how in ("cancelled", "late"):
        server.plan = always(Fault.STALLED)
    elif how in list(Fault):
        server.plan = always(Fault(how))
    silence = 0.05 if how in (Fault.SILENT, Fault.STALLED) else 60.0
    limits = {"timeout": silence, "max_retries": 2, "deadline": 0.05 if how == "late" else 600.0, "sleep": Waits()}
    base_url = "http://127.0.0.1:9/v1" if how == "gone" else server.base_url
    async with client(base_url, **limits) as llm, AgentRegistry(LLMManager(llm)) as registry:
        registry.register("asking", Asking)

        async def one() -> None:
            agent = await registry.create_agent_for_user("ada", "asking", UserExecutionContext("ada"))
            running = asyncio.ensure_future(agent.run())
            if how == "cancelled":
                await until(server, lambda: server.held > 0)
                running.cancel()
            (ended,) = await settled(running)
            assert isinstance(ended, outcome)
            # An error that the test holds would hold its frames.
            del ended, running

        await one()  # Modules and caches loaded at the first call are not a leak.
        await registry.cleanup_user_session("ada")
        gc.collect()
        watched.clear()
        gc.disable()
        try:
            await one()
            await registry.cleanup_user_session("ada")
            await turns(3)
            assert len(watched) == 4
            assert [ref() for ref in watched] == [None] * 4
        finally:
            gc.enable()
