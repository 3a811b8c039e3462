"""What models, their handles and their refusals say: it is what an agent's user is told."""

from __future__ import annotations

import asyncio
import inspect
import re
import sys
from functools import partial
from typing import Any

import httpx2
import openai
import pytest
from inline_snapshot import snapshot

from registry import LLMFailed, LLMTimedOut, OpenAICompatibleLLM, UserExecutionContext
from registry.llm.base import Completion, LLMHandle, LLMManager, Message, Prompt, ScriptedLLM
from registry.llm.failures import Failure, failure_of, forget, library
from registry.llm.stream import MAX_BYTES, BadAnswer, BodyReader, EventReader, StreamReader, message_in
from tests.registry.llm.test_stream import DONE, chunk, event, streamed, whole
from tests.registry.refusing import Refusals

KEY = "sk-secret-of-nobody"


def scripted(*messages: Message) -> str:
    return asyncio.run(ScriptedLLM().complete(Prompt(messages))).text


# ------------------------------------------------------------------------------------------------- prompts and handles


async def test_what_is_no_message_no_prompt_and_no_answer() -> None:
    class Mute:
        async def complete(self, prompt: Prompt) -> Any:
            return 7

    refused, handle = Refusals(), LLMManager(Mute()).create_handle(UserExecutionContext("ada"))
    robot: Any = "robot"
    three: Any = 3
    refused.by(ValueError, lambda: Message(robot, "x"), lambda: Prompt(()))
    refused.by(TypeError, lambda: Message("system", three), lambda: Prompt((robot,)))
    await refused.awaited(TypeError, handle.complete(robot))
    assert handle.calls == 0
    await refused.awaited(TypeError, handle.complete(Prompt.of("hello")))
    assert (handle.calls, handle.tokens_in, handle.tokens_out) == (1, 0, 0)
    assert refused.texts == snapshot(
        [
            "role 'robot' is unknown; use one of system, user, assistant",
            "a prompt without messages asks nothing; pass at least one Message",
            "the content of a system message is a int; pass a str",
            "a prompt's messages are Message values, not str",
            "complete() takes a Prompt, not a str; Prompt.of(text) makes one",
            "Mute answered with a int, no Completion",
        ]
    )
    assert [repr(LLMManager(Mute())), repr(LLMManager())] == snapshot(["<LLMManager Mute>", "<LLMManager ScriptedLLM>"])
    assert [Message(role, "").role for role in ("system", "user", "assistant")] == ["system", "user", "assistant"]


def test_a_completion_says_nothing_of_what_it_was_not_told() -> None:
    assert Completion("x") == Completion("x", tokens_in=0, tokens_out=0, model="")


async def test_a_model_that_tells_users_apart_is_told_whose_call_it_is_at_each_call() -> None:
    class Fair:
        def __init__(self) -> None:
            self.asked: list[str] = []

        def for_user(self, user_id: str) -> ScriptedLLM:
            self.asked.append(user_id)
            return ScriptedLLM()

        async def complete(self, prompt: Prompt) -> Completion:
            raise AssertionError("nobody's call")

    llm = Fair()
    handle = LLMHandle(llm, UserExecutionContext("ada"))
    for _ in range(2):
        assert (await handle.complete(Prompt.of("- a: 1"))).text == "a is 1."
    assert llm.asked == ["ada", "ada"]


def test_a_scripted_model_words_figures_of_users_under_their_headings() -> None:
    rules, answer = Message("system", "- a: 0"), Message("assistant", "- b: 0")
    first, second = Message("user", "  One.: \n  -  x : 1 \n- y: 2\n\n- z: 3"), Message("user", "- w: 4")
    assert scripted(rules, first, answer, second) == "One: x is 1; y is 2. z is 3. w is 4."


def test_a_request_without_figures_is_quoted_up_to_its_limit() -> None:
    assert scripted(Message("user", "x" * 200)) == f'You asked: "{"x" * 200}"'
    assert scripted(Message("user", "x" * 201)) == f'You asked: "{"x" * 197}..."'
    assert scripted(Message("user", "first"), Message("user", "last")) == 'You asked: "last"'
    assert scripted(Message("system", "rules"), Message("assistant", "me")) == 'You asked: "me"'


# --------------------------------------------------------------------------------------------------- broken answers

WHOLE = {"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}]}
STREAMED = [
    [chunk("half")],
    [event({"choices": [{}]}), DONE],
    [event({"choices": {}}), DONE],
    [event({"choices": [{"delta": {"content": 7}}]})],
    [event({"model": [], "choices": []})],
    [event(7)],
    [b"data: {\n\n"],
    [event({"error": {"message": "  on\nfire "}})],
    [event({"error": True})],
    [b"data: {\n\n", event(7)],
]
WHOLES: list[Any] = [
    {"choices": []},
    {"choices": [{"message": "x"}]},
    {"choices": [{"index": 1, "message": {"content": "x"}}]},
    [],
    b"",
]


def test_a_broken_answer_says_what_broke_first() -> None:
    refused, parts = Refusals(), Refusals()
    refused.by(BadAnswer, *(partial(streamed, *sent) for sent in STREAMED), *(partial(whole, sent) for sent in WHOLES))
    assert refused.texts == snapshot(
        [
            "its stream was cut off: it ended without saying that the answer does",
            "it sent a choice without a delta",
            "it sent no list of choices",
            "it sent a int where text belongs",
            "it sent a list where text belongs",
            "it sent a JSON int, not an object",
            "it sent what is no JSON (JSONDecodeError in 1 bytes)",
            "it broke off: on fire",
            "it broke off: it gave no reason",
            "it sent what is no JSON (JSONDecodeError in 1 bytes)",
            "it sent no choice",
            "it sent a choice without a message",
            "it sent no choice",
            "it sent a JSON list, not an object",
            "it sent what is no JSON (JSONDecodeError in 0 bytes)",
        ]
    )
    for reason in ("length", "content_filter", "tool_calls", "function_call"):
        choice = {"message": {"content": "half"}, "finish_reason": reason}
        parts.by(BadAnswer, partial(streamed, chunk("half", reason), DONE), partial(whole, {"choices": [choice]}))
        assert parts.texts[-1] == parts.texts[-2]
        assert reason in parts.texts[-1]
    assert parts.texts[::2] == snapshot(
        [
            "its answer is not whole: it ran into its limit of tokens (length)",
            "its answer is not whole: a content filter left some of it out (content_filter)",
            "its answer is not whole: it asks for a tool, and none was offered (tool_calls)",
            "its answer is not whole: it asks for a function, and none was offered (function_call)",
        ]
    )


def test_an_answer_may_be_as_long_as_the_limit_and_not_a_byte_longer() -> None:
    assert MAX_BYTES == 8_388_608
    body, stream = BodyReader(), StreamReader()
    body.feed(b'{"choices": [{"message": {"content": "yes"}}]}')
    stream.feed(chunk("yes", "stop"))
    assert (body.too_long, stream.too_long) == (False, False)
    body.feed(b" " * (MAX_BYTES - 46))
    stream.feed(b":" * (MAX_BYTES - len(chunk("yes", "stop"))))
    assert (body.too_long, stream.too_long) == (False, False)
    assert (body.completion().text, stream.completion().text) == ("yes", "yes")
    body.feed(b" ")
    stream.feed(b":")
    assert [reader.too_long for reader in (body, stream)] == [True, True]
    refused = Refusals()
    refused.by(BadAnswer, body.completion, stream.completion)
    assert refused.texts == [f"its answer is longer than {MAX_BYTES} bytes"] * 2


def test_a_stream_is_read_up_to_its_end_and_says_so() -> None:
    reader = StreamReader()
    assert reader.done is False
    reader.feed(event({"model": "m", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}))
    reader.feed(chunk("a", model="other") + chunk("b", "stop", usage=None) + chunk("c"))
    assert reader.done is False
    reader.feed(DONE)
    assert bool(reader.done)
    reader.feed(chunk("after the end", "length") + b"data: {\n\n")
    assert reader.completion() == Completion("abc", 3, 2, "m")


def test_counts_that_are_none_are_zero() -> None:
    for usage in (None, 7, {"prompt_tokens": True, "completion_tokens": 2.0}):
        assert whole(WHOLE | {"usage": usage}) == Completion("yes", 0, 0, "")
    assert whole(WHOLE | {"usage": {"completion_tokens": 2}}) == Completion("yes", 0, 2, "")


def test_events_are_told_apart_after_one_that_was_closed_and_one_that_was_not() -> None:
    reader = EventReader()
    assert list(reader.feed(b"data: a\ndata:b\n\ndata: c\n\n\n")) == [b"a\nb", b"c"]
    assert list(reader.feed(b"data: d\r")) == []
    assert list(reader.feed(b"data")) == []
    assert list(reader.finish()) == [b"d\n"], "a name alone is an empty line of data"
    assert list(EventReader().finish()) == []


def test_a_server_s_own_words_are_repeated_up_to_a_limit() -> None:
    assert message_in("x" * 200) == "x" * 200
    assert message_in("x" * 201) == f"{'x' * 197}..."
    assert message_in({"error": "busy", "message": "not this"}) == "busy"
    assert message_in({"error": {}}) == ""


# ------------------------------------------------------------------------------------------------------------- failures

REQUEST = httpx2.Request("POST", "http://127.0.0.1:9/v1")


def refusal(status: int, body: object, **headers: str) -> Exception:
    response = httpx2.Response(status, headers=headers, request=REQUEST)
    return openai.APIStatusError("the library's own words", response=response, body=body)


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


NO_CONNECTION = openai.APIConnectionError(message="down", request=REQUEST)
FAILURES: list[tuple[Exception, Failure | None]] = [
    (BadAnswer("it sent no choice"), Failure("it sent no choice")),
    (openai.APITimeoutError(REQUEST), Failure("it was silent for 2.5 s", timed_out=True, may_pass=True)),
    (
        httpx2.ReadTimeout("slow"),
        Failure("it fell silent for 2.5 s in the middle of its answer", timed_out=True),
    ),
    (
        refusal(429, {"message": f"no more for {KEY}"}, **{"retry-after": "7"}),
        Failure("it answered 429: no more for ***", 429, may_pass=True, asked=7.0),
    ),
    (refusal(400, None), Failure("it answered 400", 400)),
    (refusal(500, None, **{"x-should-retry": "false"}), Failure("it answered 500", 500)),
    (NO_CONNECTION, Failure("no connection: APIConnectionError: down", may_pass=True)),
    (
        caused(openai.APIConnectionError(request=REQUEST), OSError("unplugged")),
        Failure("no connection: OSError: unplugged", may_pass=True),
    ),
    (
        httpx2.RemoteProtocolError("half"),
        Failure("its answer was cut off: RemoteProtocolError: half"),
    ),
    (openai.OpenAIError(f"bad key {KEY}"), Failure("OpenAIError: bad key ***")),
    (ValueError("our own"), None),
]


@pytest.mark.parametrize(("error", "failure"), FAILURES, ids=[f"{failure and failure[0]}" for _, failure in FAILURES])
def test_each_error_of_the_library_is_a_failure_in_plain_words(error: Exception, failure: Failure | None) -> None:
    assert failure_of(error, 2.5, KEY) == failure


def test_a_date_to_come_back_at_is_seconds_from_now() -> None:
    failure = failure_of(refusal(503, None, **{"retry-after": "Thu, 01 Jan 1970 00:00:10 GMT"}), 2.5, KEY)
    assert failure == Failure("it answered 503", 503, may_pass=True, asked=0.0)
    later = failure_of(refusal(503, None, **{"retry-after": "Fri, 01 Jan 2999 00:00:00 GMT"}), 2.5, KEY)
    assert later is not None
    assert (later.asked or 0) > 1e9


def test_an_error_is_made_of_a_failure_with_nothing_attached() -> None:
    refused, late = Failure("it answered 429", 429).error("model 'm'"), Failure("late", timed_out=True).error("model")
    assert (type(refused), str(refused), refused.status) == (LLMFailed, "model 'm': it answered 429", 429)
    assert (type(late), str(late), late.status) == (LLMTimedOut, "model: late", None)
    assert Failure("x") == ("x", None, False, False, None)


def test_forgetting_an_error_cuts_the_frames_off_all_that_led_to_it() -> None:
    def fail() -> None:
        try:
            try:
                raise KeyError("the first")
            except KeyError as error:
                raise ValueError("the second") from error
        except ValueError:
            raise TypeError("the third")  # noqa: B904 - the context is what is looked at.

    try:
        fail()
    except TypeError as error:
        third = error
    second = third.__context__
    assert second is not None
    first = second.__cause__
    assert first is not None
    errors = (third, second, first)
    assert all(each.__traceback__ is not None for each in errors)
    forget(third)
    assert [each.__traceback__ for each in errors] == [None] * 3


def test_the_library_is_two_modules_and_the_extra_is_named_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert library() == (openai, httpx2)
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ImportError, match=r"needs openai: pip install 'agent-registry-lab\[openai\]'$"):
        library()


# --------------------------------------------------------------------------------------------------- settings over HTTP


def test_a_setting_that_cannot_be_is_refused_with_its_remedy() -> None:
    settings: list[dict[str, Any]] = [
        *({"timeout": 0}, {"deadline": -1.5}, {"concurrency": 0}, {"max_retries": -1}),
        *(
            {"options": {name: 1, "top_p": 1}}
            for name in ("messages", "model", "n", "stream", "stream_options", "user")
        ),
        *({"base_url": url} for url in ("127.0.0.1:8000", "ftp://127.0.0.1/v1", "http:///v1", "")),
        *({"base_url": f"http://{url}"} for url in ("me@host/v1", ":hush@host/v1", "host/v1?key=hush", "host/v1#hush")),
    ]
    refused = Refusals()
    for options in settings:
        made = {"base_url": "http://127.0.0.1/v1", "model": "m", "api_key": KEY} | options
        refused.by(ValueError, partial(OpenAICompatibleLLM, **made))
        assert not re.search("hush|me@", refused.texts[-1])
    assert refused.texts == snapshot(
        [
            "timeout=0 lets no call through; pass a number above 0",
            "deadline=-1.5 lets no call through; pass a number above 0",
            "concurrency=0 lets no call through; pass a number above 0",
            "max_retries=-1 is negative; 0 is for one try",
            "options messages are set by the call itself; leave them out",
            "options model are set by the call itself; leave them out",
            "options n are set by the call itself; leave them out",
            "options stream are set by the call itself; leave them out",
            "options stream_options are set by the call itself; leave them out",
            "options user are set by the call itself; leave them out",
            "base_url '127.0.0.1:8000' is no address of a server; pass one such as http://127.0.0.1:8000/v1",
            "base_url 'ftp://127.0.0.1/v1' is no address of a server; pass one such as http://127.0.0.1:8000/v1",
            "base_url 'http:///v1' is no address of a server; pass one such as http://127.0.0.1:8000/v1",
            "base_url '' is no address of a server; pass one such as http://127.0.0.1:8000/v1",
            "base_url holds a user, a password, a query or a fragment; pass the key as api_key",
            "base_url holds a user, a password, a query or a fragment; pass the key as api_key",
            "base_url holds a user, a password, a query or a fragment; pass the key as api_key",
            "base_url holds a user, a password, a query or a fragment; pass the key as api_key",
        ]
    )


def test_what_is_not_set_is_a_minute_of_silence_ten_in_all_three_tries_and_four_at_once() -> None:
    parameters = inspect.signature(OpenAICompatibleLLM).parameters.values()
    defaults = {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}
    assert defaults == {
        "timeout": 60.0,
        "max_retries": 2,
        "deadline": 600.0,
        "concurrency": 4,
        "stream": True,
        "send_user": False,
        "trust_env": True,
        "options": None,
        "headers": None,
        "sleep": asyncio.sleep,
        "rng": None,
    }


async def test_the_library_is_told_to_add_nothing_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY"):
        monkeypatch.setenv(name, "of-another-server")
    llm = OpenAICompatibleLLM("http://127.0.0.1/v1", "m-1", "", 2.5)
    told = llm._client
    assert [told.organization, told.project, told.admin_api_key] == [None, None, None]
    assert (told.api_key, told._platform, told.max_retries) == ("none", "Unknown", 0)
    assert told.timeout == httpx2.Timeout(2.5, pool=None)
    await llm.aclose()


async def test_a_model_says_what_it_is_and_whose_calls_it_makes() -> None:
    llm = OpenAICompatibleLLM("https://host:8000/v1//", "m-1", KEY, max_retries=0)
    assert (llm.base_url, llm.model, dict(llm.in_flight)) == ("https://host:8000/v1", "m-1", {})
    assert repr(llm) == "<OpenAICompatibleLLM 'm-1' at https://host:8000/v1 calls=0 users=0>"
    assert repr(llm.for_user("ada")) == f"<{llm!r} for 'ada'>"
    await llm.aclose()
    assert repr(llm) == "<OpenAICompatibleLLM 'm-1' at https://host:8000/v1 closed>"
