"""Reads the stream of a chat completions server, strictly: a whole answer or an error, never a part. No I/O."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

from registry.errors import a_type
from registry.llm.base import Completion

__all__ = ["MAX_BYTES", "BadAnswer", "BodyReader", "EventReader", "StreamReader", "message_in"]

MAX_BYTES: Final = 8 * 2**20
"""An answer that is longer on the wire is refused."""

_SHOWN: Final = 200  # Characters of a server's own message that an error repeats.
# Finish reasons of an answer that did not come to its end. Any other reason ends an answer that is whole.
_PARTIAL: Final = {
    "length": "it ran into its limit of tokens",
    "content_filter": "a content filter left some of it out",
    "tool_calls": "it asks for a tool, and none was offered",
    "function_call": "it asks for a function, and none was offered",
}


class BadAnswer(Exception):
    """The answer is not whole; the text gives the reason."""


class EventReader:
    """Cuts bytes into the data of server-sent events, wherever the pieces were cut."""

    __slots__ = ("_data", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Yield the data of each event that this piece completes."""
        text = self._rest + piece
        # A carriage return at the end may be half of a line's end.
        held = b"\r" if text.endswith(b"\r") else b""
        lines = text.removesuffix(held).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._rest = lines.pop() + held
        for line in lines:
            yield from self._line(line)

    def finish(self) -> Iterator[bytes]:
        """Yield the data of an event that was not closed by an empty line; its content decides whether it counts."""
        yield from self._line(self._rest)
        yield from self._line(b"")

    def _line(self, line: bytes) -> Iterator[bytes]:
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
        elif not line and self._data:
            yield b"\n".join(self._data)
            self._data.clear()


class StreamReader:
    """Collects a streamed answer. `feed` never raises, so that a stream can be read to its end, its one clean place."""

    __slots__ = ("_events", "_finish", "_model", "_problem", "_size", "_text", "_usage", "done")

    def __init__(self) -> None:
        self._events = EventReader()
        self._text: list[str] = []
        self._finish: object = None
        self._usage: object = None
        self._model = ""
        self._problem = ""
        self._size = 0
        self.done = False

    @property
    def too_long(self) -> bool:
        """True once nothing more should be read."""
        return self._size > MAX_BYTES

    def feed(self, piece: bytes) -> None:
        """Take the next bytes."""
        self._size += len(piece)
        if not self.too_long:
            self._take(self._events.feed(piece))

    def completion(self) -> Completion:
        """Return the whole answer. Raises `BadAnswer` if it is none, or not whole."""
        if self.too_long:
            raise BadAnswer(f"its answer is longer than {MAX_BYTES} bytes")
        self._take(self._events.finish())
        if self._problem:
            raise BadAnswer(self._problem)
        if self._finish is None:
            raise BadAnswer("its stream was cut off: it ended before the answer was marked as finished")
        _require_whole(self._finish)
        return _completion("".join(self._text), self._usage, self._model)

    def _take(self, events: Iterator[bytes]) -> None:
        for data in events:
            if data.startswith(b"[DONE]"):
                self.done = True
            elif not self.done and not self._problem:
                try:
                    self._chunk(_loaded(data))
                except BadAnswer as error:
                    self._problem = str(error)

    def _chunk(self, chunk: dict[str, object]) -> None:
        self._usage = chunk.get("usage") or self._usage
        self._model = self._model or _text_of(chunk.get("model"))
        for choice in _choices(chunk):
            delta = choice.get("delta")
            if not isinstance(delta, dict):
                raise BadAnswer("it sent a choice without a delta")
            self._text.append(_text_of(delta.get("content")))
            self._finish = choice.get("finish_reason") or self._finish


class BodyReader:
    """Collects an answer that comes in one piece of JSON."""

    __slots__ = ("_body",)

    def __init__(self) -> None:
        self._body = bytearray()

    @property
    def too_long(self) -> bool:
        """True once nothing more should be read."""
        return len(self._body) > MAX_BYTES

    def feed(self, piece: bytes) -> None:
        """Take the next bytes."""
        self._body += piece

    def completion(self) -> Completion:
        """Return the whole answer. Raises `BadAnswer` if it is none, or not whole."""
        if self.too_long:
            raise BadAnswer(f"its answer is longer than {MAX_BYTES} bytes")
        body = _loaded(bytes(self._body))
        choices = _choices(body)
        if not choices:
            raise BadAnswer("it sent no choice")
        message = choices[0].get("message")
        if not isinstance(message, dict):
            raise BadAnswer("it sent a choice without a message")
        _require_whole(choices[0].get("finish_reason"))
        return _completion(_text_of(message.get("content")), body.get("usage"), _text_of(body.get("model")))


def message_in(body: object) -> str:
    """A server's own words in the body of an error, shortened; "" if there are none."""
    error = body.get("error", body) if isinstance(body, dict) else body
    words = error.get("message", "") if isinstance(error, dict) else error
    text = " ".join(words.split()) if isinstance(words, str) else ""
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _loaded(data: bytes) -> dict[str, object]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        # The error itself would keep the whole text, and with it a user's data.
        raise BadAnswer(f"it sent invalid JSON ({type(error).__name__} in {len(data)} bytes)") from None
    if not isinstance(value, dict):
        raise BadAnswer(f"it sent a JSON {type(value).__name__}, not an object")
    if value.get("error"):
        raise BadAnswer(f"it broke off: {message_in(value) or 'it gave no reason'}")
    return value


def _choices(value: dict[str, object]) -> list[dict[str, object]]:
    choices = value.get("choices")
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise BadAnswer("it sent no list of choices")
    # Only one answer was asked for.
    return [choice for choice in choices if choice.get("index", 0) == 0]


def _text_of(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadAnswer(f"it sent {a_type(value)} where text belongs")
    return value


def _require_whole(reason: object) -> None:
    if isinstance(reason, str) and reason in _PARTIAL:
        raise BadAnswer(f"its answer is not whole: {_PARTIAL[reason]} ({reason})")


def _completion(text: str, usage: object, model: str) -> Completion:
    counts = usage if isinstance(usage, dict) else {}
    tokens_in, tokens_out = counts.get("prompt_tokens"), counts.get("completion_tokens")
    return Completion(
        text, tokens_in if type(tokens_in) is int else 0, tokens_out if type(tokens_out) is int else 0, model
    )
