"""The stand-in model is a real server: it answers, records, misbehaves by plan, and leaves nothing when it stops."""

from __future__ import annotations

import asyncio
import http.client
import json
import random
import socket
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import pytest

from lab_utils.standin import Asked, Fault, Misbehaviour, seeded_faults
from lab_utils.standin.llm_server import StandInLLM
from lab_utils.standin.script import strings_in
from lab_utils.target import Command, Prompted, Recipe, SupervisionReport
from lab_utils.targets.agent_registry import AgentRegistryTarget
from lab_utils.targets.llm_over_http import LLMOverHTTP, scripted_reply
from lab_utils.values.canaries import cookie_of
from lab_utils.values.workload import rows_for, user_ids
from registry import LLMFailed, Prompt
from tests.running import run

HELLO: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "user": "ada"}


def post(
    server: StandInLLM,
    body: Any,
    *,
    key: str = "",
    path: str = "/v1/chat/completions",
    headers: Mapping[str, str] | None = None,
) -> tuple[int, bytes, Mapping[str, str]]:
    """One request by the standard library's client, on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", int(server.base_url.split(":")[2].split("/")[0]), timeout=60)
    try:
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        own = {"authorization": f"Bearer {key}"} if key else {}
        connection.request("POST", path, text, own | dict(headers or {}))
        response = connection.getresponse()
        return response.status, response.read(), dict(response.getheaders())
    finally:
        connection.close()


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def test_it_starts_answers_and_stops_and_nothing_is_left() -> None:
    before = threads()
    server = StandInLLM(scripted_reply)
    with pytest.raises(RuntimeError, match="not running"):
        _ = server.base_url
    with server:
        address = ("127.0.0.1", int(server.base_url.split(":")[2].split("/")[0]))
        status, body, _ = post(server, HELLO)
        assert (status, json.loads(body)["choices"][0]["message"]["content"]) == (200, 'You asked: "hello"')
        with pytest.raises(RuntimeError, match="started before"):
            server.start()
        assert not server.wait_until(lambda: False, timeout=0.01)
    server.stop()
    assert threads() == before
    assert server.connections == 0
    with pytest.raises(ConnectionRefusedError), socket.create_connection(address, timeout=5):
        pass
    assert [asked.text for asked in server.asked] == ["hello"], "what was recorded stays"


def test_equal_requests_get_equal_answers_streamed_or_not_and_only_by_the_server_that_was_asked() -> None:
    with StandInLLM(scripted_reply) as other, StandInLLM(scripted_reply) as server:
        assert server.base_url.startswith("http://127.0.0.1:")
        answers = [post(server, HELLO)[1] for _ in range(2)]
        first, second = (json.loads(answer) | {"id": ""} for answer in answers)
        assert first == second
        assert first["usage"] == {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4}
        status, body, headers = post(server, HELLO | {"stream": True})
        events = [line.removeprefix("data: ") for line in body.decode().split("\n\n") if line]
        assert (status, headers["content-type"].split(";")[0], events[-1]) == (200, "text/event-stream", "[DONE]")
        chunks = [json.loads(event)["choices"][0] for event in events[:-1]]
        assert "".join(chunk["delta"].get("content", "") for chunk in chunks) == 'You asked: "hello"'
        assert [chunk["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
        assert (len(server.asked), len(other.asked)) == (3, 0)


def test_every_request_is_recorded_with_who_sent_it_and_without_the_key() -> None:
    with StandInLLM(scripted_reply, keys={"sk-ada": "ada", "sk-bob": "bob"}) as server:
        nameless = {name: value for name, value in HELLO.items() if name != "user"}
        post(server, nameless, key="sk-bob")
        post(server, HELLO | {"user": "carol", "stream": True}, key="sk-bob")
        assert post(server, HELLO, key="sk-eve")[0] == 401
        assert post(server, HELLO)[0] == 401
    assert [(asked.number, asked.user, asked.stream) for asked in server.asked] == [
        (1, "bob", False),
        (2, "carol", True),
    ]
    assert server.asked[0].messages == (("user", "hello"),)
    assert "sk-" not in repr(server.asked)


def test_whatever_stands_beside_the_messages_is_recorded_decoded() -> None:
    in_a_list, in_a_key = {"previous": [{"deep": "canary<\u00f6da|x|1>"}]}, {"canary<\u00f6da|x|1>": None}
    in_a_text = [json.dumps(in_a_list), json.dumps(json.dumps("canary<\u00f6da|x|1>"))]
    with StandInLLM(scripted_reply) as server:
        for hidden in (in_a_list, in_a_key, *in_a_text):
            post(server, HELLO | {"metadata": hidden})
            post(server, HELLO | {"messages": [{"role": "user", "content": "hello", "name": hidden}]})
    assert len(server.asked) == 8
    for asked in server.asked:
        assert asked.text == "hello"
        assert "canary<\u00f6da|x|1>" in asked.whole
        assert "hello" in asked.whole.split("\n")


def test_the_address_and_the_headers_are_recorded_but_no_key() -> None:
    with StandInLLM(scripted_reply, keys={"sk-ada": "ada"}) as server:
        address = "/v1/chat/completions?trace=canary%3Cada%7Cx%7C1%3E"
        assert post(server, HELLO, key="sk-ada", path=address, headers={"x-trace": "canary<ada|x|2>"})[0] == 200
        assert post(server, HELLO, key="sk-ada", headers={"api-key": "sk-ada", "cookie": "sk-ada"})[0] == 200
    first, second = server.asked
    assert {"trace=canary<ada|x|1>", "x-trace", "canary<ada|x|2>"} <= set(first.strings)
    assert "sk-ada" not in repr(server.asked)
    assert "hello" in second.whole


def test_strings_that_only_look_like_json_are_strings() -> None:
    deep = "[" * 100_000
    assert list(strings_in([deep, "{", 7, None, True, {"a": "b"}])) == [deep, "{", "a", "b"]


def test_what_is_no_request_is_refused_and_not_recorded() -> None:
    with StandInLLM(scripted_reply) as server:
        for body in (b"{", b"[]", b"{}", b'{"messages": 7}', b'{"messages": [{"role": "user"}]}', b"\xff"):
            assert post(server, body)[0] == 400, body
        assert post(server, HELLO, path="/v1/elsewhere")[0] == 404
        assert server.asked == ()


def test_it_refuses_as_told() -> None:
    faults = (Fault.RATE_LIMITED, Fault.SERVER_ERROR)
    with StandInLLM(scripted_reply, plan=lambda asked: Misbehaviour(faults[asked.number - 1], "3")) as server:
        for status in (429, 500):
            got, body, headers = post(server, HELLO)
            assert (got, headers["retry-after"]) == (status, "3")
            assert json.loads(body)["error"]["message"] == f"set to answer {status}"
        assert tuple(asked.fault for asked in server.asked) == faults


@pytest.mark.parametrize("stream", [False, True])
def test_it_breaks_its_answers_as_told(stream: bool) -> None:
    faults = iter([Fault.CUT_OFF, Fault.UNFINISHED, Fault.MALFORMED])
    with StandInLLM(scripted_reply, plan=lambda _: Misbehaviour(next(faults))) as server:
        with pytest.raises(http.client.IncompleteRead) as cut:
            post(server, HELLO | {"stream": stream})
        assert cut.value.partial, "some of the answer had arrived"
        unfinished, malformed = (post(server, HELLO | {"stream": stream})[1] for _ in range(2))
        assert unfinished
        assert b"stop" not in unfinished
        pieces = malformed.split(b"\n\n")[:-1] if stream else [malformed]
        broken = 0
        for piece in pieces:
            try:
                json.loads(piece.removeprefix(b"data: "))
            except ValueError:
                broken += 1
        assert broken == 1 + stream, "the broken one, and [DONE]"


@pytest.mark.parametrize("stream", [False, True])
def test_a_slow_answer_is_whole_and_nobody_waits_for_it(stream: bool) -> None:
    paused: list[float] = []
    going_on = threading.Event()

    async def pause(seconds: float) -> None:
        paused.append(seconds)
        await asyncio.to_thread(going_on.wait)

    def plan(asked: Asked) -> Misbehaviour | None:
        return Misbehaviour(Fault.SLOW, pause_s=7.0) if asked.user == "ada" else None

    with StandInLLM(scripted_reply, plan=plan, sleep=pause) as server:
        answers: list[bytes] = []
        slow = threading.Thread(target=lambda: answers.append(post(server, HELLO | {"stream": stream})[1]))
        slow.start()
        assert server.wait_until(lambda: len(server.asked) == 1)
        plain = post(server, HELLO | {"stream": stream, "user": "bob"})[1]
        assert answers == []
        going_on.set()
        slow.join()
        assert paused == [7.0]
        assert len(answers[0]) == len(plain)


@pytest.mark.parametrize("fault", [Fault.SILENT, Fault.STALLED])
def test_it_holds_requests_until_they_are_released(fault: Fault) -> None:
    with StandInLLM(scripted_reply, plan=lambda _: Misbehaviour(fault)) as server:
        answers: list[int] = []
        callers = [threading.Thread(target=lambda: answers.append(post(server, HELLO)[0])) for _ in range(3)]
        for caller in callers:
            caller.start()
        assert server.wait_until(lambda: server.held == 3)
        assert answers == []
        server.release()
        for caller in callers:
            caller.join()
        assert answers == [200] * 3
        assert server.held == 0
        assert post(server, HELLO)[0] == 200, "released stays released"
        server.hold()
        last = threading.Thread(target=post, args=(server, HELLO))
        last.start()
        assert server.wait_until(lambda: server.held == 1)
        server.stop()
        last.join()
    assert server.held == 0


async def test_it_closes_without_blocking_the_loop_and_more_than_once() -> None:
    server = StandInLLM(scripted_reply).start()
    turned = 0

    async def turning() -> None:
        nonlocal turned
        while True:
            turned += 1
            await asyncio.sleep(0)

    other = asyncio.ensure_future(turning())
    await server.aclose()
    assert turned > 10
    await server.aclose()
    other.cancel()
    assert await asyncio.gather(other, return_exceptions=True)


def test_an_error_of_the_server_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    async def failing(*_: Any, **__: Any) -> None:
        raise OSError("no sockets left")

    monkeypatch.setattr("uvicorn.Server.serve", failing)
    server = StandInLLM(scripted_reply).start()
    with pytest.raises(RuntimeError, match="stand-in LLM ended by an error"):
        server.stop()


def test_a_seeded_plan_is_the_same_in_any_order_and_spares_second_tries() -> None:
    requests = [Asked(n, f"user-{n % 7}", 0, True, (("user", f"question {n}"),)) for n in range(400)]
    plan = seeded_faults(7, 0.25)
    drawn = {asked.number: plan(asked) for asked in requests}
    random.Random(1).shuffle(requests)
    assert drawn == {asked.number: seeded_faults(7, 0.25)(asked) for asked in requests}
    wrong = [each.fault for each in drawn.values() if each is not None]
    assert 60 < len(wrong) < 140
    assert set(wrong) == {Fault.RATE_LIMITED, Fault.SERVER_ERROR}
    assert all(plan(Asked(1, asked.user, 1, True, asked.messages)) is None for asked in requests)
    assert drawn != {asked.number: seeded_faults(8, 0.25)(asked) for asked in requests}


# ------------------------------------------------------------------------------------------------- the lab's own target


def orchestrated(
    users: Sequence[str], rows: Mapping[str, Any], **settings: Any
) -> tuple[list[Any], Sequence[Prompted]]:
    async def scenario() -> tuple[list[SupervisionReport], Sequence[Prompted]]:
        target = AgentRegistryTarget()
        for name, value in settings.items():
            setattr(target, name, value)
        await target.start((), rows, 5.0)
        try:
            reports = await asyncio.gather(*(target.orchestrate(user, "a report since 2026-03-01") for user in users))
            return reports, target.prompts()
        finally:
            await target.stop()

    return run(scenario)


def test_agents_say_the_same_over_either_model_even_over_one_that_stumbles() -> None:
    before = threads()
    rng = random.Random(3)
    users = user_ids(3, rng)
    rows = {user: rows_for(user, 20, rng) for user in users}
    scripted, none = orchestrated(users, rows)
    over_http, prompts = orchestrated(users, rows, llm_over="http", llm_plan=seeded_faults(5, 0.4))
    assert scripted == over_http
    assert all(report.statuses["reporting"] == "completed" for report in scripted)
    assert none == ()
    stumbles = [asked for asked in prompts if asked.fault is not None]
    assert stumbles
    assert len(prompts) == 6 * len(users) + len(stumbles), "six agents a user, and one more try for each stumble"
    assert {asked.user for asked in prompts} == set(users)
    assert threads() == before


def test_the_labs_agents_ask_the_model_they_have() -> None:
    async def scenario(llm_over: str) -> Any:
        target = AgentRegistryTarget()
        target.llm_over = llm_over
        await target.start([Recipe("helper")], {}, 5.0)
        try:
            handle = await target.create("ada", "helper")
            return await target.run(handle, Command("ask", {"text": "Cost:\n- total: 7"}))
        finally:
            await target.stop()

    assert run(lambda: scenario("scripted")) == run(lambda: scenario("http")) == "Cost: total is 7."


def test_a_model_over_http_is_closed_with_all_it_has_even_when_a_call_hangs() -> None:
    before = threads()

    async def scenario() -> None:
        over = LLMOverHTTP(lambda _: Misbehaviour(Fault.SILENT))
        hanging = asyncio.ensure_future(over.llm.complete(Prompt.of("hello")))
        assert await asyncio.to_thread(over.server.wait_until, lambda: over.server.held == 1)
        over.server.hold()
        closing = asyncio.ensure_future(over.llm.aclose())
        (error,) = await asyncio.gather(hanging, return_exceptions=True)
        assert isinstance(error, LLMFailed)
        await closing
        await over.aclose()
        await over.aclose()

    run(scenario)
    assert threads() == before


# -- the end of unanswered requests


def asking(server: StandInLLM, body: bytes, length: int | None = None) -> socket.socket:
    """A connection on which a request has been sent, and which may send more of it."""
    made = socket.create_connection(("127.0.0.1", int(server.base_url.split(":")[2].split("/")[0])), timeout=60)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {length or len(body)}\r\n\r\n"
    made.sendall(head.encode() + body)
    return made


def rest_of(connection: socket.socket) -> bytes:
    """The bytes until the other side ends it, with a word or without."""
    got = b""
    # A reset is an end without a word; every other error is the test's.
    with suppress(ConnectionResetError):
        while piece := connection.recv(65_536):
            got += piece
    return got


async def never(_: object) -> Any:
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("answer", "fault", "half"), [(never, None, False), (scripted_reply, Fault.SLOW, True)], ids=["no answer", "half"]
)
def test_who_is_not_answered_at_the_end_is_hung_up_on_and_nobody_is_told(
    answer: Any, fault: Fault | None, half: bool, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    plan = None if fault is None else lambda _: Misbehaviour(fault)
    with StandInLLM(answer, plan=plan, sleep=never, grace_s=0.0) as server:
        connection = asking(server, json.dumps(HELLO).encode())
        with connection:
            assert server.wait_until(lambda: bool(server.asked))
            got = connection.recv(10) if half else b""
            server.stop()
            got += rest_of(connection)
    assert got.startswith(b"HTTP/1.1 200") == half
    assert b"usage" not in got, "the end of an answer"
    assert [record.getMessage() for record in caplog.records if record.name.startswith("uvicorn")] == []
    assert capfd.readouterr().err == ""


def test_who_is_answered_in_the_time_of_grace_is_answered() -> None:
    async def let_go_and_slow(_: float) -> None:
        await server.wait_for_release()
        for _ in range(100):  # Turns of the server's loop, once it has been asked to stop.
            await asyncio.sleep(0)

    server = StandInLLM(scripted_reply, plan=lambda _: Misbehaviour(Fault.SLOW), sleep=let_go_and_slow, grace_s=60.0)
    with server, asking(server, json.dumps(HELLO).encode()) as connection:
        assert server.wait_until(lambda: server.held == 1)
        server.stop()
        assert b'You asked: \\"hello\\"' in rest_of(connection)


def test_who_leaves_in_the_middle_of_a_question_is_no_error(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with StandInLLM(scripted_reply) as server:
        asking(server, b'{"mess', length=100).close()
        # Served after it, by the same loop.
        assert post(server, HELLO)[0] == 200
    assert len(server.asked) == 1
    assert [record.getMessage() for record in caplog.records if record.name.startswith("uvicorn")] == []
    assert capfd.readouterr().err == ""


def test_each_answer_sets_a_cookie_of_its_user_and_one_that_comes_back_is_recorded() -> None:
    with StandInLLM(scripted_reply, keys={"sk-ada": "ada"}) as server:
        status, _, headers = post(server, HELLO, key="sk-ada")
        assert (status, headers["set-cookie"]) == (200, f"session={cookie_of('ada')}; Path=/")
        post(server, HELLO, key="sk-ada", headers={"cookie": f"other=secret; session={cookie_of('bob')}"})
        first, second = server.asked
    assert cookie_of("ada") not in first.whole
    assert cookie_of("bob") in second.whole
    assert "secret" not in second.whole
