"""A fault of event_delivery_isolation: clients that mean to hear another user, or come without a good token."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from lab_utils.judges.admission import Attempt
from lab_utils.sockets.transport import SocketSubscription, SocketTransport

__all__ = ["Strangers"]

_NO_TOKEN, _BAD_TOKEN, _EXPIRED, _OTHER_AUDIENCE, _WRONG_ORIGIN = 4401, 4402, 4403, 4404, 4405
"""The close codes of registry.events.wire, as a client sees them."""


_ORIGINS = {
    "another site": "https://elsewhere.example",
    "a site whose name begins with the server's": "http://{host}.elsewhere.example",
    "a site whose name ends with the server's": "http://elsewhere-{host}",
}


@dataclass(frozen=True, slots=True)
class _Try:
    """The data to present; `own`: the token is the attacker's own and valid."""

    what: str
    options: dict[str, Any] = field(default_factory=dict)
    refusal: int | None = None
    anomaly: str = "token-not-bound"
    own: bool = True


class Strangers:
    """Connected while runs are under way, they stay to the end of the trial: the events they received are judged
    then."""

    def __init__(self, sockets: SocketTransport) -> None:
        self._sockets = sockets
        self._made: list[tuple[_Try, str, str, SocketSubscription]] = []
        self._streams: dict[str, str | None] = {}

    async def arrive(self, attacker: str, victim: str, victims_stream: str | None) -> None:
        """Try everything as the attacker, all at once."""
        self._streams[victim] = victims_stream
        tries = list(_tries(self._sockets.target.token, attacker, victim, victims_stream))
        made = await asyncio.gather(*(self._sockets.attempt(attacker, **one.options) for one in tries))
        self._made += [(one, attacker, victim, subscription) for one, subscription in zip(tries, made, strict=True)]

    def settled(self) -> bool:
        """Whether everyone who must be refused has been."""
        return all(subscription.is_over for one, _, _, subscription in self._made if one.refusal is not None)

    def attempts(self) -> Sequence[Attempt]:
        """The outcome so far."""
        return [
            Attempt(
                one.what,
                attacker if one.own else "",
                victim,
                one.refusal,
                one.anomaly,
                subscription.client.has_been_greeted,
                subscription.close_code,
                subscription.received(),
                self._streams[victim] in [stream for _, stream in subscription.client.greetings],
                subscription.client.answered,
                _presented(one, subscription),
            )
            for one, attacker, victim, subscription in self._made
        ]


def _tries(token: Callable[..., str], attacker: str, victim: str, victims_stream: str | None) -> Sequence[_Try]:
    own, theirs = token(attacker), token(victim)
    named = {"user_id": victim, "user": victim}
    found = [
        _Try(
            "a client that asks to resume another user's stream",
            {"stream": victims_stream, "seq": 0},
            anomaly="foreign-event",
        ),
        _Try("a client with its own token as a subprotocol, as a browser has it", {"as_subprotocol": True}),
        _Try("a client that names another user in a header", {"headers": {"X-User-Id": victim, "X-User": victim}}),
        _Try("a client that names another user in its address", {"query": _query(named)}),
        _Try("a client that names another user in its first message", {"claims": named}),
        _Try("a client with another user's token in its address", {"query": _query({"token": theirs})}),
        _Try("a client without a token", {"token": ""}, _NO_TOKEN, own=False),
        _Try("a client without a token but in its address", {"token": "", "query": _query({"token": theirs})},
             _NO_TOKEN, own=False),
        _Try("a client with an altered token", {"token": _altered(theirs)}, _BAD_TOKEN, own=False),
        _Try("a client with its own token and another user's", {"token": own, "second_token": theirs}, _BAD_TOKEN,
             own=False),
        _Try("a client with an expired token", {"token": token(victim, max_age=0)}, _EXPIRED, own=False),
        _Try("a client with a token for another service", {"token": token(victim, audience="another service")},
             _OTHER_AUDIENCE, own=False),
        *(_Try(f"a page of {what}", {"token": theirs, "origin": origin}, _WRONG_ORIGIN, own=False)
          for what, origin in _ORIGINS.items()),
    ]  # fmt: skip
    head, dot, _ = theirs.rpartition(".")
    if dot:
        forged = head + dot + own.rpartition(".")[2]
        what = "a client with another user's claims and its own signature"
        found.append(_Try(what, {"token": forged}, _BAD_TOKEN, own=False))
    return found


def _presented(one: _Try, subscription: SocketSubscription) -> tuple[str, ...]:
    found = (subscription.client.token, one.options.get("token"), one.options.get("second_token"))
    return tuple(dict.fromkeys(token for token in found if token))


def _query(values: dict[str, str]) -> str:
    return "?" + "&".join(f"{name}={quote(value)}" for name, value in values.items())


def _altered(token: str) -> str:
    # In its middle: the last character of an encoding may hold bits that say nothing.
    place = len(token) - len(token.rpartition(".")[2]) // 2 - 1
    return token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]
