"""What models, their handles and their refusals say, word for word: it is what an agent's user is told."""

from __future__ import annotations

import asyncio
import inspect
import re
import sys
from collections.abc import Callable
from typing import Any

import httpx2
import openai
import pytest

from registry import LLMFailed, LLMTimedOut, OpenAICompatibleLLM, UserExecutionContext
from registry.llm.base import Completion, LLMHandle, LLMManager, Message, Prompt, ScriptedLLM
from registry.llm.failures import Failure, failure_of, forget, library
from registry.llm.stream import MAX_BYTES, BadAnswer, BodyReader, EventReader, StreamReader, message_in
from tests.registry.llm.test_stream import DONE, chunk, event, streamed, whole

KEY = "sk-secret-of-nobody"


def said(kind: type[Exception], make: Callable[[], object]) -> str:
    with pytest.raises(kind) as caught:
        make()
    return str(caught.value)


def scripted(*messages: Message) -> str:
    return asyncio.run(ScriptedLLM().complete(Prompt(messages))).text


# ------------------------------------------------------------------------------------------------- prompts and handles


def test_what_is_no_message_and_no_prompt_is_named() -> None:
    wrong: Any = "robot"
    three: Any = 3
    assert said(ValueError, lambda: Message(wrong, "x")) == (
        "role 'robot' is unknown; use one of system, user, assistant"
    )
    assert said(TypeError, lambda: Message("system", three)) == ("the content of a system message is a int; pass a str")
    assert said(ValueError, lambda: Prompt(())) == "a prompt without messages asks nothing; pass at least one Message"
    assert said(TypeError, lambda: Prompt((wrong,))) == "a prompt's messages are Message values, not str"
    assert [Message(role, "").role for role in ("system", "user", "assistant")] == ["system", "user", "assistant"]


def test_a_completion_says_nothing_of_what_it_was_not_told() -> None:
    assert Completion("x") == Completion("x", tokens_in=0, tokens_out=0, model="")


def test_a_handle_names_what_is_no_prompt_and_what_is_no_answer() -> None:
    class Mute:
        async def complete(self, prompt: Prompt) -> Any:
            return 7

    handle = LLMManager(Mute()).create_handle(UserExecutionContext("ada"))
    wrong: Any = ["hello"]
    assert said(TypeError, lambda: asyncio.run(handle.complete(wrong))) == (
        "complete() takes a Prompt, not a list; Prompt.of(text) makes one"
    )
    assert handle.calls == 0
    assert said(TypeError, lambda: asyncio.run(handle.complete(Prompt.of("hello")))) == (
        "Mute answered with a int, no Completion"
    )
    assert (handle.calls, handle.tokens_in, handle.tokens_out) == (1, 0, 0)
    assert repr(LLMManager(Mute())) == "<LLMManager Mute>"
    assert repr(LLMManager()) == "<LLMManager ScriptedLLM>"


def test_a_model_that_tells_users_apart_is_told_whose_call_it_is_at_each_call() -> None:
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
        assert asyncio.run(handle.complete(Prompt.of("- a: 1"))).text == "a is 1."
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
TOO_LONG = f"its answer is longer than {MAX_BYTES} bytes"
PARTS = {
    "length": "its answer is not whole: it ran into its limit of tokens (length)",
    "content_filter": "its answer is not whole: a content filter left some of it out (content_filter)",
    "tool_calls": "its answer is not whole: it asks for a tool, and none was offered (tool_calls)",
    "function_call": "its answer is not whole: it asks for a function, and none was offered (function_call)",
}


@pytest.mark.parametrize("reason", PARTS)
def test_an_answer_that_is_not_whole_says_why(reason: str) -> None:
    assert said(BadAnswer, lambda: streamed(chunk("half", reason), DONE)) == PARTS[reason]
    choice = {"message": {"content": "half"}, "finish_reason": reason}
    assert said(BadAnswer, lambda: whole({"choices": [choice]})) == PARTS[reason]


STREAMED = [
    ([chunk("half")], "its stream was cut off: it ended without saying that the answer does"),
    ([event({"choices": [{}]}), DONE], "it sent a choice without a delta"),
    ([event({"choices": {}}), DONE], "it sent no list of choices"),
    ([event({"choices": [{"delta": {"content": 7}}]})], "it sent a int where text belongs"),
    ([event({"model": [], "choices": []})], "it sent a list where text belongs"),
    ([event(7)], "it sent a JSON int, not an object"),
    ([b"data: {\n\n"], "it sent what is no JSON (JSONDecodeError in 1 bytes)"),
    ([event({"error": {"message": "  on\nfire "}})], "it broke off: on fire"),
    ([event({"error": True})], "it broke off: it gave no reason"),
    ([b"data: {\n\n", event(7)], "it sent what is no JSON (JSONDecodeError in 1 bytes)"),
]


@pytest.mark.parametrize(("sent", "told"), STREAMED, ids=[f"{n}: {told}" for n, (_, told) in enumerate(STREAMED)])
def test_a_broken_stream_says_what_broke_first(sent: list[bytes], told: str) -> None:
    assert said(BadAnswer, lambda: streamed(*sent)) == told


WHOLES = [
    ({"choices": []}, "it sent no choice"),
    ({"choices": [{"message": "x"}]}, "it sent a choice without a message"),
    ({"choices": [{"index": 1, "message": {"content": "x"}}]}, "it sent no choice"),
    ([], "it sent a JSON list, not an object"),
    (b"", "it sent what is no JSON (JSONDecodeError in 0 bytes)"),
]


@pytest.mark.parametrize(("sent", "told"), WHOLES, ids=[f"{n}: {told}" for n, (_, told) in enumerate(WHOLES)])
def test_a_broken_body_says_what_is_missing(sent: Any, told: str) -> None:
    assert said(BadAnswer, lambda: whole(sent)) == told


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
    assert said(BadAnswer, body.completion) == said(BadAnswer, stream.completion) == TOO_LONG


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
    assert said(ImportError, library) == ("OpenAICompatibleLLM needs openai: pip install 'agent-registry-lab[openai]'")


# --------------------------------------------------------------------------------------------------- settings over HTTP


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"timeout": 0}, "timeout=0 lets no call through; pass a number above 0"),
        ({"deadline": -1.5}, "deadline=-1.5 lets no call through; pass a number above 0"),
        ({"concurrency": 0}, "concurrency=0 lets no call through; pass a number above 0"),
        ({"max_retries": -1}, "max_retries=-1 is negative; 0 is for one try"),
        *[
            ({"options": {name: 1, "top_p": 1}}, f"options {name} are set by the call itself; leave them out")
            for name in ("messages", "model", "n", "stream", "stream_options", "user")
        ],
        *[
            (
                {"base_url": url},
                f"base_url {url!r} is no address of a server; pass one such as http://127.0.0.1:8000/v1",
            )
            for url in ("127.0.0.1:8000", "ftp://127.0.0.1/v1", "http:///v1", "")
        ],
        *[
            (
                {"base_url": url},
                "base_url holds a user, a password, a query or a fragment; pass the key as api_key",
            )
            for url in ("http://me@host/v1", "http://:hush@host/v1", "http://host/v1?key=hush", "http://host/v1#hush")
        ],
    ],
)
def test_a_setting_that_cannot_be_is_refused_with_its_remedy(options: dict[str, Any], told: str) -> None:
    settings = {"base_url": "http://127.0.0.1/v1", "model": "m", "api_key": KEY} | options
    with pytest.raises(ValueError, match=f"^{re.escape(told)}$"):
        OpenAICompatibleLLM(**settings)


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
