"""The requests to the stand-in model, and the plan of its answers. Pure values."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

__all__ = ["Asked", "Fault", "Misbehaviour", "Plan", "Reply", "seeded_faults", "strings_in"]


class Fault(StrEnum):
    """How a server can go wrong."""

    RATE_LIMITED = "rate_limited"  # 429
    SERVER_ERROR = "server_error"  # 500
    SILENT = "silent"  # no answer before release()
    STALLED = "stalled"  # half an answer, and the rest after release()
    CUT_OFF = "cut_off"  # half an answer, then the connection is closed
    UNFINISHED = "unfinished"  # half an answer, well-formed to HTTP, without its end mark
    MALFORMED = "malformed"  # an answer whose JSON is none
    SLOW = "slow"  # half an answer, a pause, and the rest


@dataclass(frozen=True, slots=True)
class Misbehaviour:
    """One fault; `retry_after` is the header of that name that comes with a 429 or 500, "" for none; `pause_s`: the
    seconds of the pause of a slow answer."""

    fault: Fault
    retry_after: str = ""
    pause_s: float = 0.02


@dataclass(frozen=True, slots=True)
class Reply:
    """A model's answer, and the tokens that it counts."""

    text: str
    tokens_in: int = 0
    tokens_out: int = 0


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it arrived: `user` is who asked (the field `user`, or whom the key belongs to), `attempt` is 0 for
    the first try of a call, `messages` are (role, content), `strings` everything in it that is text."""

    number: int
    user: str
    attempt: int
    stream: bool
    messages: tuple[tuple[str, str], ...]
    fault: Fault | None = None
    strings: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The contents of all messages, one after another."""
        return "\n".join(content for _, content in self.messages)

    @property
    def whole(self) -> str:
        """Every text in the request, one after another: of its body at any depth, names as well as values and decoded,
        of its address, and of its headers but those that hold a key."""
        return "\n".join(self.strings)


Plan = Callable[[Asked], Misbehaviour | None]
"""Called with each request, returns the fault to produce; None for a plain answer. Called in the server's thread."""


def seeded_faults(
    seed: int,
    share: float,
    faults: tuple[Fault, ...] = (Fault.RATE_LIMITED, Fault.SERVER_ERROR),
    retry_after: str = "0.01",
) -> Plan:
    """A plan that makes `share` of the calls, drawn by user and question, go wrong at the first try and well at the
    next.

    The draw does not depend on the order in which concurrent requests arrive.
    """

    def plan(asked: Asked) -> Misbehaviour | None:
        rng = random.Random(f"{seed}/{asked.user}/{asked.text}")
        if asked.attempt or rng.random() >= share:
            return None
        return Misbehaviour(rng.choice(faults), retry_after)

    return plan


def strings_in(value: Any) -> Iterator[str]:
    """Every string in decoded JSON, at any depth, names as well; and those in a string that is itself JSON, where
    escapes would hide them."""
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, str):
            yield item
            if item[:1] in ("{", "[", '"'):
                with suppress(ValueError, RecursionError):
                    todo.append(json.loads(item))
        elif isinstance(item, dict):
            todo += [*item.values(), *item]
        elif isinstance(item, list):
            todo += reversed(item)
