"""The agreement of server and clients: the numbers, the names and the words that other programs rely on."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from inline_snapshot import snapshot

from registry.events.wire import (
    BEARER_PREFIX,
    PING,
    SUBPROTOCOL,
    Ack,
    CloseCode,
    Pong,
    SocketLimits,
    Start,
    Violation,
    read_message,
)

FINAL = {
    "malformed": 4400,
    "no_token": 4401,
    "bad_token": 4402,
    "expired_token": 4403,
    "foreign_token": 4404,
    "wrong_origin": 4405,
    "out_of_place": 4409,
    "message_too_large": 4413,
    "binary": 4415,
}
RETRYABLE = {
    "internal_error": 1011,
    "handshake_timeout": 4408,
    "session_ended": 4410,
    "server_closing": 4412,
    "too_many_of_user": 4428,
    "too_many": 4429,
    "slow_consumer": 4430,
    "dead_peer": 4431,
}


def test_each_close_code_has_its_number_and_says_whether_to_come_back() -> None:
    assert {code.reason: int(code) for code in CloseCode if not code.is_retryable} == FINAL
    assert {code.reason: int(code) for code in CloseCode if code.is_retryable} == RETRYABLE


def test_the_words_of_the_handshake() -> None:
    assert (SUBPROTOCOL, BEARER_PREFIX, json.loads(PING)) == ("agent-registry.v1", "bearer.", {"type": "ping"})


@pytest.mark.parametrize("name", SocketLimits.__slots__)
@pytest.mark.parametrize("value", [0, -1])
def test_a_limit_that_lets_nothing_through_is_refused_by_name(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"^{name}={value} is not above 0$"):
        SocketLimits(**{name: value})
    assert getattr(SocketLimits(**{name: 1}), name) == 1


NOT_SAID = [
    "", "{", "[" * 100_000, '{"type": "ack", "seq": ' + "9" * 5_000 + "}", '{"seq": NaN, "type": "ack"}',
    "null", "[]", '"start"', "1", "{}", '{"type": 1}', '{"type": null}', '{"type": ["start"]}', '{"type": "stop"}',
    '{"type": "ack"}', '{"type": "pong", "seq": 1}', '{"type": "start", "seq": 1}', '{"type": "start", "stream": "s"}',
    '{"type": "start", "user_id": "bob"}', '{"type": "ack", "seq": 1, "user_id": "bob"}',
    '{"type": "ack", "seq": -1}', '{"type": "ack", "seq": true}', '{"type": "ack", "seq": 1.0}',
    '{"type": "ack", "seq": "1"}', '{"type": "start", "stream": 1, "seq": 1}',
    '{"type": "start", "stream": null, "seq": 1}',
]  # fmt: skip


def test_a_violation_says_what_was_wrong_with_the_message() -> None:
    said: Counter[str] = Counter()
    for text in NOT_SAID:
        with pytest.raises(Violation) as caught:
            read_message(text)
        assert caught.value.code is CloseCode.MALFORMED
        said[str(caught.value)] += 1
    assert dict(said) == snapshot(
        {
            "not JSON": 4,
            "seq is not a number of an event": 5,
            "not a JSON object": 4,
            "none of the known messages with exactly its fields": 11,
            "stream is not a str": 2,
        }
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"type": "start"}', Start(None, 0)),
        ('{"type": "start", "stream": "s", "seq": 0}', Start("s", 0)),
        ('{"type": "start", "stream": "s", "seq": 3}', Start("s", 3)),
        ('{"type": "ack", "seq": 0}', Ack(0)),
        ('{"type": "pong"}', Pong()),
    ],
)
def test_what_may_be_said(text: str, said: Any) -> None:
    assert read_message(text) == said
    assert Start() == Start(None, 0)
