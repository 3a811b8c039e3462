"""The events of a client, received and due: the data that the judges of events work on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from lab_utils.judges.speech import Said

__all__ = ["Arrived", "Received", "decoded", "found_in", "repeated_names"]


class Arrived(Protocol):
    """An event as a client received it; `body` is the payload's JSON text.

    An id that a target never sends is "" in every event, and judges ignore it. `greeted`: the stream that the server
    named when the connection began, "" where it names none. `flaws`: faults of the text itself, each an anomaly and a
    sentence.
    """

    @property
    def user(self) -> str: ...
    @property
    def seq(self) -> int: ...
    @property
    def type(self) -> str: ...
    @property
    def agent(self) -> str: ...
    @property
    def run(self) -> str: ...
    @property
    def body(self) -> str: ...
    @property
    def stream(self) -> str: ...
    @property
    def thread(self) -> str: ...
    @property
    def agent_id(self) -> str: ...
    @property
    def greeted(self) -> str: ...
    @property
    def flaws(self) -> tuple[tuple[str, str], ...]: ...


@dataclass(frozen=True, slots=True)
class Received:
    """The events that one client received, and those that were due: `said`, in the order of each agent's runs.

    `first_seq`: the number of the first event that the client could have received; None if that is not known.
    `cut_off`: the target disconnected this client; it must then have received a beginning without a gap, no more.
    `gaps`: how often the client itself met a number, or a stream, that was not the next.
    """

    client: str
    user: str
    events: Sequence[Arrived]
    said: Sequence[Said]
    first_seq: int | None = 1
    cut_off: bool = False
    gaps: int = 0


def found_in(event: Arrived) -> str:
    """The event in a line, for a witness."""
    body = event.body if len(event.body) <= 160 else f"{event.body[:130]}... ({len(event.body)} characters)"
    return f"#{event.seq} of {event.user!r}, {event.agent}: {event.type} {body}"


def decoded(body: str) -> Any:
    """A payload's JSON text as data; for invalid JSON a text that names the fault."""
    try:
        return json.loads(body)
    except ValueError:
        return f"no JSON: {body!r}"


def repeated_names(body: str) -> tuple[str, ...]:
    """The names that stand twice within one object of a payload's JSON text: decoded, only the last would be left."""
    repeated: list[str] = []

    def unique(pairs: list[tuple[str, Any]]) -> None:
        if len({name for name, _ in pairs}) == len(pairs):
            return
        names = [name for name, _ in pairs]
        repeated.extend(name for name in dict.fromkeys(names) if names.count(name) > 1)

    try:
        json.loads(body, object_pairs_hook=unique)
    except ValueError:
        return ()
    return tuple(repeated)
