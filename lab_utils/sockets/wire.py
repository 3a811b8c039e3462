"""Reads an event as it came over a socket, and finds the faults of the text itself."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from lab_utils.target import Delivered

__all__ = ["delivered"]

_IDS = ("stream", "type", "user_id", "thread_id", "run_id", "agent_type", "agent_id")
_FIELDS = frozenset({*_IDS, "seq", "payload"})
"""The fields of an event in the protocol of `registry.events.wire`: these and no others."""

_PAYLOAD = re.compile(r'"payload"\s*:\s*')
_DECODER = json.JSONDecoder()


def delivered(text: str, greeted: str) -> Delivered:
    """The event in a text, for a client that was greeted with the stream `greeted` when its connection began.

    Its `flaws` are:

    | anomaly         | the text                                                                 |
    |-----------------|--------------------------------------------------------------------------|
    | repeated-name   | names something twice within one object: readers differ in which counts  |
    | extra-field     | has a field beside those of the protocol                                 |
    | malformed-field | lacks a field of the protocol, or an id of it is no string               |

    Raises `ValueError` for a text that is not a JSON object.
    """
    repeated: list[str] = []

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        # A name that stands there twice would leave no trace in the result of json.loads().
        found = dict(pairs)
        if len(found) != len(pairs):
            names = [name for name, _ in pairs]
            repeated.extend(name for name in found if names.count(name) > 1)
        return found

    message = json.loads(text, object_pairs_hook=unique)
    if not isinstance(message, dict):
        raise ValueError(f"an event must be a JSON object, not {text[:80]!r}")

    def text_of(name: str) -> str:
        # Thousands of events name the same few: each text is kept once.
        return sys.intern(str(message.get(name, "")))

    return Delivered(
        user=text_of("user_id"),
        seq=message["seq"],
        type=text_of("type"),
        agent=text_of("agent_type"),
        run=text_of("run_id"),
        body=_payload_text(text, message),
        stream=text_of("stream"),
        thread=text_of("thread_id"),
        agent_id=text_of("agent_id"),
        greeted=greeted,
        flaws=tuple(_flaws(message, repeated)),
    )


def _flaws(message: Mapping[str, Any], repeated: list[str]) -> Iterator[tuple[str, str]]:
    if repeated:
        yield "repeated-name", f"names {', '.join(map(repr, repeated))} twice within one object"
    if message.keys() == _FIELDS and all(type(message[name]) is str for name in _IDS):
        return
    if beside := sorted(message.keys() - _FIELDS):
        yield "extra-field", f"has {', '.join(map(repr, beside))}, which no event has"
    if lacking := sorted(_FIELDS - message.keys()):
        yield "malformed-field", f"lacks {', '.join(map(repr, lacking))}"
    for name in _IDS:
        if name in message and type(message[name]) is not str:
            yield "malformed-field", f"has {name} {message[name]!r}, which is not a string"


def _payload_text(text: str, message: Mapping[str, Any]) -> str:
    # As it came: between two spellings of one value there may lie a byte that was altered. Within a string of JSON
    # the quotes would be escaped, so that the first of these is a name.
    found = _PAYLOAD.search(text)
    if found is not None:
        payload, end = _DECODER.raw_decode(text, found.end())
        if payload == message["payload"]:
            return text[found.end() : end]
    return json.dumps(message["payload"], ensure_ascii=False)
