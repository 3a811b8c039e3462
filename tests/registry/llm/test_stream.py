"""The stream of a chat completions server is read whole, cut into any pieces, or not at all."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.llm.base import Completion
from registry.llm.stream import MAX_BYTES, BadAnswer, BodyReader, EventReader, StreamReader, message_in


def chunk(text: str | None = None, finish: str | None = None, **rest: Any) -> bytes:
    choice = {"index": 0, "delta": {} if text is None else {"content": text}, "finish_reason": finish}
    return event({"model": "m", "choices": [choice]} | rest)


def event(value: Any) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
WHOLE = (
    b": a comment\r\n\r\n"
    + chunk("caf\u00e9\u2028")
    + chunk(" au lait\u0085")
    + chunk(None, "stop")
    + event({"model": "m", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})
    + DONE
)
ANSWER = Completion("caf\u00e9\u2028 au lait\u0085", 3, 2, "m")


def streamed(*pieces: bytes) -> Completion:
    reader = StreamReader()
    for piece in pieces:
        reader.feed(piece)
    return reader.completion()


@given(st.lists(st.integers(0, len(WHOLE)), max_size=8).map(sorted))
def test_a_stream_reads_the_same_wherever_it_is_cut(cuts: list[int]) -> None:
    places = [0, *cuts, len(WHOLE)]
    pieces = [WHOLE[start:end] for start, end in pairwise(places)]
    assert streamed(*pieces) == ANSWER


@given(st.integers(0, len(WHOLE)))
def test_the_beginning_of_a_stream_is_the_whole_answer_or_an_error(end: int) -> None:
    told = b'"finish_reason": "stop"}]}\n'
    reader = StreamReader()
    reader.feed(WHOLE[:end])
    try:
        text = reader.completion().text
    except BadAnswer as error:
        # The mark that the answer is whole has not come, or the rest after it was cut.
        assert end < WHOLE.index(told) + len(told) or "invalid JSON" in str(error)  # noqa: PT017
    else:
        assert text == ANSWER.text


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"])
@given(data=st.data())
def test_lines_may_end_in_any_of_the_three_ways(ending: bytes, data: st.DataObject) -> None:
    text = ending.join(
        [b"event: x", b"data: one", b"data:two", b"", b"id: 7", b"", b"data:  three", b"", b"data: four"]
    )
    cut = data.draw(st.integers(0, len(text)))
    reader = EventReader()
    assert [*reader.feed(text[:cut]), *reader.feed(text[cut:]), *reader.finish()] == [b"one\ntwo", b" three", b"four"]


def test_other_choices_and_other_ends_are_no_matter() -> None:
    other = event({"choices": [{"index": 1, "delta": {"content": "another answer"}, "finish_reason": "length"}]})
    assert streamed(chunk("yes"), other, chunk(None, "eos_token"), DONE, b"after the end") == Completion(
        "yes", model="m"
    )
    assert streamed(chunk(None, "stop")).text == ""


def whole(value: Any) -> Completion:
    reader = BodyReader()
    sent = value if isinstance(value, bytes) else json.dumps(value).encode()
    reader.feed(sent[:3])
    reader.feed(sent[3:])
    return reader.completion()


def test_a_body_is_read() -> None:
    choice = {"message": {"content": "yes"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": None}
    assert whole({"model": "m", "choices": [choice], "usage": usage}) == Completion("yes", 3, 0, "m")
    assert whole({"choices": [{"message": {"content": None}}]}) == Completion("")
    for wrong in (None, 7, {"prompt_tokens": True, "completion_tokens": 2.0}):
        assert whole({"choices": [choice], "usage": wrong}) == Completion("yes", 0, 0, "")


EMPTY: list[Any] = [None, 7, [], {"error": {"message": 7}}, {"error": {}}]


def test_a_servers_own_words_are_short() -> None:
    assert message_in({"message": "  too\n many "}) == "too many"
    assert message_in("x" * 200) == message_in({"error": {"message": "x" * 200}}) == "x" * 200
    assert message_in("x" * 201) == f"{'x' * 197}..."
    assert message_in({"error": "busy", "message": "not this"}) == "busy"
    assert message_in("plain") == "plain"
    assert [message_in(body) for body in EMPTY] == [""] * 5


CUT_OFF = "its stream was cut off: it ended before the answer was marked as finished"
ON_FIRE = event({"error": {"message": "  the GPU is\n on fire"}})
NO_STREAMS: list[tuple[bytes, str]] = [
    *((sent, CUT_OFF) for sent in (b"", DONE, b"<html>busy</html>", chunk("half"), chunk("half") + DONE)),
    (chunk("half") + ON_FIRE + chunk(None, "stop"), "it broke off: the GPU is on fire"),
    (event({"error": "busy"}), "it broke off: busy"),
    (event({"error": True}), "it broke off: it gave no reason"),
    (
        chunk("half") + b'data: {"choices": [\n\n' + chunk(None, "stop") + DONE,
        "it sent invalid JSON (JSONDecodeError in 13 bytes)",
    ),
    (b"data: {\n\n" + event(7), "it sent invalid JSON (JSONDecodeError in 1 bytes)"),
    (b"data: \xff\xfe\n\n" + DONE, "it sent invalid JSON (JSONDecodeError in 2 bytes)"),
    (b"data: " + b"[" * 100_000 + b"\n\n", "it sent invalid JSON (RecursionError in 100000 bytes)"),
    (event(7), "it sent a JSON int, not an object"),
    (event([1]), "it sent a JSON list, not an object"),
    (event({}), "it sent no list of choices"),
    (event({"choices": {}}), "it sent no list of choices"),
    (event({"choices": [1]}), "it sent no list of choices"),
    (event({"choices": [{}]}) + DONE, "it sent a choice without a delta"),
    (event({"choices": [{"index": 0}]}), "it sent a choice without a delta"),
    (event({"choices": [{"delta": {"content": 7}}]}), "it sent an int where text belongs"),
    (event({"model": [], "choices": []}), "it sent a list where text belongs"),
]
NO_BODIES: list[tuple[Any, str]] = [
    (b"", "it sent invalid JSON (JSONDecodeError in 0 bytes)"),
    (b'{"choices": [{"message"', "it sent invalid JSON (JSONDecodeError in 23 bytes)"),
    ("just text", "it sent a JSON str, not an object"),
    ([], "it sent a JSON list, not an object"),
    ({"choices": []}, "it sent no choice"),
    ({"choices": [{}]}, "it sent a choice without a message"),
    ({"choices": [{"message": "x"}]}, "it sent a choice without a message"),
    ({"choices": [{"index": 1, "message": {"content": "x"}}]}, "it sent no choice"),
    ({"choices": [{"message": {"content": ["x"]}}]}, "it sent a list where text belongs"),
    ({"error": {"message": "busy"}}, "it broke off: busy"),
    ({"error": {"code": 7}}, "it broke off: it gave no reason"),
]


@pytest.mark.parametrize(
    ("read", "sent", "words"),
    [*((streamed, *case) for case in NO_STREAMS), *((whole, *case) for case in NO_BODIES)],
    ids=lambda value: value if isinstance(value, str) and "it" in value else "",
)
def test_what_is_no_whole_answer_says_what_broke_first(read: Callable[[Any], object], sent: Any, words: str) -> None:
    with pytest.raises(BadAnswer, match=f"^{re.escape(words)}$"):
        read(sent)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("length", "it ran into its limit of tokens"),
        ("content_filter", "a content filter left some of it out"),
        ("tool_calls", "it asks for a tool, and none was offered"),
        ("function_call", "it asks for a function, and none was offered"),
    ],
)
def test_an_answer_that_was_cut_short_says_why(reason: str, words: str) -> None:
    choice = {"message": {"content": "half"}, "finish_reason": reason}
    for read in (partial(streamed, chunk("half", reason), DONE), partial(whole, {"choices": [choice]})):
        with pytest.raises(BadAnswer, match=rf"^its answer is not whole: {words} \({reason}\)$"):
            read()


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
    for reader in (body, stream):
        with pytest.raises(BadAnswer, match=f"^its answer is longer than {MAX_BYTES} bytes$"):
            reader.completion()
