"""The wire format: the subprotocol, the close codes, the limits, and the few messages beside the events."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

__all__ = ["BEARER_PREFIX", "PING", "SUBPROTOCOL", "Ack", "CloseCode", "Pong", "SocketLimits", "Start", "Violation"]

SUBPROTOCOL: Final = "agent-registry.v1"
"""The subprotocol in the server's answer. A browser, which cannot set headers, offers it together with its token."""

BEARER_PREFIX: Final = "bearer."
"""Before the token, where it is offered as a subprotocol; such an offer is read and never answered."""

PING: Final = '{"type": "ping"}'


class CloseCode(IntEnum):
    """Why the server closed a connection. A client may come back after those that `is_retryable`."""

    # RFC 6455 leaves the range 4000 to 4999 to applications.
    MALFORMED = 4400  # Not JSON, or none of the known messages with exactly its fields.
    NO_TOKEN = 4401  # Neither in the Authorization header nor as a subprotocol; one in the URL is not looked at.
    BAD_TOKEN = 4402  # Not signed here, altered, or two different ones.
    EXPIRED_TOKEN = 4403  # At the connection, or since.
    FOREIGN_TOKEN = 4404  # A good one, for another audience.
    WRONG_ORIGIN = 4405  # A page of another host, or of none of the allowed origins.
    HANDSHAKE_TIMEOUT = 4408  # No `start` in time, or no answer from `authenticate`.
    OUT_OF_PLACE = 4409  # A message before `start`, a second `start`, an `ack` of an event that was not sent.
    SESSION_ENDED = 4410  # The user's session has ended; the events that it had emitted were sent before.
    SERVER_CLOSING = 4412  # The manager was closed.
    MESSAGE_TOO_LARGE = 4413  # Above `max_message_bytes`. A message above the server's own limit gets its 1009.
    BINARY = 4415  # A binary message.
    TOO_MANY_OF_USER = 4428  # Connections of this user.
    TOO_MANY = 4429  # Connections in all.
    SLOW_CONSUMER = 4430  # Fell further behind than is kept. One that reads nothing at all is cut off with no code.
    DEAD_PEER = 4431  # Did not answer a ping.
    INTERNAL_ERROR = 1011  # The server's own fault; its log says more.

    @property
    def reason(self) -> str:
        """The reason in the close frame; it holds only facts that the client knows already."""
        return self.name.lower()

    @property
    def is_retryable(self) -> bool:
        """True if the same client with the same token may succeed later."""
        return self in _RETRYABLE


_RETRYABLE: Final = frozenset(
    {
        CloseCode.HANDSHAKE_TIMEOUT,
        CloseCode.SESSION_ENDED,
        CloseCode.SERVER_CLOSING,
        CloseCode.TOO_MANY_OF_USER,
        CloseCode.TOO_MANY,
        CloseCode.SLOW_CONSUMER,
        CloseCode.DEAD_PEER,
        CloseCode.INTERNAL_ERROR,
    }
)


@dataclass(frozen=True, slots=True)
class SocketLimits:
    """The costs allowed to one socket, one user and all of them. Sizes in bytes, times in seconds.

    `max_events` and `max_bytes` bound the part of one user's stream that is kept. That is how far a connection may fall
    behind and how far back a client can resume. The newest event is kept whatever its size.
    """

    max_events: int = 1_000
    max_bytes: int = 1_048_576
    max_message_bytes: int = 4_096
    max_connections_per_user: int = 16
    max_connections: int = 10_000
    handshake_timeout: float = 10.0
    ping_interval: float = 20.0
    ping_timeout: float = 20.0
    close_timeout: float = 2.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if not value > 0:
                raise ValueError(f"{name}={value!r} is not above 0")


class Violation(Exception):
    """A client violated the protocol."""

    def __init__(self, code: CloseCode, detail: str) -> None:
        super().__init__(detail)
        self.code = code


@dataclass(frozen=True, slots=True)
class Start:
    """A client's first message: from now on, or from after `seq` of `stream`."""

    stream: str | None = None
    seq: int = 0


@dataclass(frozen=True, slots=True)
class Ack:
    """A client needs nothing up to `seq` any more."""

    seq: int


@dataclass(frozen=True, slots=True)
class Pong:
    """A client is alive."""


_FIELDS: Final = {
    frozenset({"type"}): frozenset({"start", "pong"}),
    frozenset({"type", "stream", "seq"}): frozenset({"start"}),
    frozenset({"type", "seq"}): frozenset({"ack"}),
}


def read_message(text: str) -> Start | Ack | Pong:
    """Return the parsed message of a client. Raises `Violation` for anything but the four forms, unknown fields
    included: an id that a client puts into a message is refused rather than believed."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Violation(CloseCode.MALFORMED, "not JSON") from error
    if type(said) is not dict:
        raise Violation(CloseCode.MALFORMED, "not a JSON object")
    kind = said.get("type")
    if type(kind) is not str or kind not in _FIELDS.get(frozenset(said), ()):
        raise Violation(CloseCode.MALFORMED, "none of the known messages with exactly its fields")
    if kind == "pong":
        return Pong()
    stream, seq = said.get("stream"), said.get("seq", 0)
    if type(seq) is not int or seq < 0:
        raise Violation(CloseCode.MALFORMED, "seq is not a number of an event")
    if kind == "ack":
        return Ack(seq)
    if "stream" in said and type(stream) is not str:
        raise Violation(CloseCode.MALFORMED, "stream is not a str")
    return Start(stream, seq)


def write_answer(kind: str, stream: str, seq: int, **more: object) -> str:
    """The answer to `Start`: the next event of `stream` to come is the one after `seq`."""
    return json.dumps({"type": kind, "stream": stream, "seq": seq, **more})
