"""What a server of chat completions sends is read whole, wherever it was cut into pieces, or not at all."""

from __future__ import annotations

import json
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
        # What says that the answer is whole has not come, or what comes after it was cut.
        assert end < WHOLE.index(told) + len(told) or "no JSON" in str(error)  # noqa: PT017
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


STREAMS = [
    (b"", "ended without saying that the answer does"),
    (DONE, "ended without saying that the answer does"),
    (chunk("half"), "ended without saying that the answer does"),
    (chunk("half") + DONE, "ended without saying that the answer does"),
    (chunk("half", "length") + DONE, "ran into its limit of tokens"),
    (chunk("half", "content_filter") + DONE, "a content filter left some of it out"),
    (chunk("half", "tool_calls") + DONE, "asks for a tool"),
    (chunk("half") + event({"error": {"message": "the GPU is on fire"}}) + chunk(None, "stop"), "the GPU is on fire"),
    (event({"error": "busy"}), "it broke off: busy"),
    (chunk("half") + b'data: {"choices": [\n\n' + chunk(None, "stop") + DONE, "no JSON"),
    (b"data: \xff\xfe\n\n" + DONE, "no JSON"),
    (b"data: " + b"[" * 100_000 + b"\n\n", "no JSON"),
    (event([1]), "a JSON list, not an object"),
    (event({}), "no list of choices"),
    (event({"choices": [1]}), "no list of choices"),
    (event({"choices": [{"index": 0}]}), "without a delta"),
    (event({"choices": [{"delta": {"content": 7}}]}), "a int where text belongs"),
    (b"<html>busy</html>", "ended without saying that the answer does"),
    (chunk("x" * MAX_BYTES), "longer than"),
]


@pytest.mark.parametrize(("sent", "why"), STREAMS, ids=[why for _, why in STREAMS])
def test_what_is_no_whole_stream_is_an_error(sent: bytes, why: str) -> None:
    with pytest.raises(BadAnswer, match=why):
        streamed(sent)


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


BODIES = [
    (b"", "no JSON"),
    (b'{"choices": [{"message"', "no JSON"),
    ("just text", "a JSON str"),
    ({"choices": []}, "no choice"),
    ({"choices": [{}]}, "without a message"),
    ({"choices": [{"message": {"content": ["x"]}}]}, "a list where text belongs"),
    ({"choices": [{"message": {"content": "half"}, "finish_reason": "length"}]}, "limit of tokens"),
    ({"error": {"message": "busy"}}, "it broke off: busy"),
    ({"error": {"code": 7}}, "it gave no reason"),
    (b" " * (MAX_BYTES + 1), "longer than"),
]


@pytest.mark.parametrize(("sent", "why"), BODIES, ids=[why for _, why in BODIES])
def test_what_is_no_whole_body_is_an_error(sent: Any, why: str) -> None:
    with pytest.raises(BadAnswer, match=why):
        whole(sent)


EMPTY: list[Any] = [None, 7, [], {"error": {"message": 7}}]


def test_a_servers_own_words_are_short() -> None:
    assert message_in({"message": "  too\n many "}) == "too many"
    assert message_in({"error": {"message": "x" * 500}}) == "x" * 197 + "..."
    assert message_in("plain") == "plain"
    assert [message_in(body) for body in EMPTY] == [""] * 4
