"""Seeded users, data and values; every written value is unique and names its writer."""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final

from lab_utils.values.canaries import canary, typed

__all__ = ["LONG_IDS", "PLAIN", "TRICKY", "canary", "hostile_pairs", "neighbours", "nested", "rows_for", "user_ids"]

_MODELS = ("atlas-large", "atlas-small", "beryl-large", "beryl-small")


TRICKY = (
    *("acme", "acme:1", "ACME", "acme-1"),
    "acm\u0435",  # Cyrillic e
    *("caf\u00e9", "cafe\u0301", "1", "01", "acme:1:helper"),
)
"""Ids that a careless key mixes up: case, prefix, separator, look-alike letters, composed and decomposed accents."""

PLAIN = frozenset(user for user in TRICKY if re.fullmatch("[A-Za-z][A-Za-z0-9-]*", user))
"""Those of them that every target takes."""


def user_ids(count: int, rng: random.Random, without: Collection[str] = ()) -> list[str]:
    """`count` distinct user ids, the first of them tricky ones, as far as they are not among those `without`."""
    drawn = list(TRICKY)
    rng.shuffle(drawn)
    tricky = [user for user in drawn if user not in without]
    ids = tricky[:count]
    while len(ids) < count:
        name = f"user-{rng.randrange(10**9):09d}"
        if name not in ids[len(tricky) :]:
            ids.append(name)
    return ids


def neighbours(count: int, rng: random.Random, without: Collection[str] = ()) -> list[str]:
    """`count` distinct user ids. Those at even places and those at odd ones begin or read alike, "acme" and "acme:1"
    first: an action on one half by prefix or without case would hit the other too."""
    first = [user for user in ("acme", "acme:1", "ACME", "acme-1") if user not in without]
    return [*first, *(user for user in user_ids(count + len(first), rng, without) if user not in first)][:count]


LONG_IDS: Final = ("n" * 255 + "1", "n" * 255 + "2", "n" * 256)
"""Ids that a key cut to 255 characters makes one."""


def hostile_pairs() -> Sequence[tuple[str, str]]:
    """Pairs of ids that must be kept apart although a careless comparison would merge them."""
    return (
        ("acme", "ACME"),
        ("acme", "acme:1"),
        ("acme", "acm\u0435"),
        ("caf\u00e9", "cafe\u0301"),
        ("1", "01"),
        ("stra\u00dfe", "strasse"),
        ("user", "user\u200b"),
        ("\ufb01t", "fit"),
    )


def nested(user: str, place: str, *, any_values: bool = True) -> dict[str, Any]:
    """Data with canaries of every type, at every depth and in every kind of place a copy may forget: keys, lists,
    tuples, bytes. Without `any_values`, as far as JSON holds them."""
    if not any_values:
        return {
            "flat": canary(user, place, 0),
            "list": [canary(user, place, 1), [canary(user, place, 2)]],
            "dict": {"inner": {canary(user, place, 3): canary(user, place, 4)}},
        }
    return {
        "flat": canary(user, place, 0),
        "list": [canary(user, place, 1), [canary(user, place, 2)]],
        "dict": {"inner": {canary(user, place, 3): canary(user, place, 4)}},
        "tuple": (canary(user, place, 5), {"deep": [canary(user, place, 6)]}),
        "bytes": canary(user, place, 7).encode(),
        "set": {canary(user, place, 8)},
        "typed": typed(user, len(place) % 8),
    }


def rows_for(user: str, count: int, rng: random.Random) -> list[dict[str, Any]]:
    """AI-usage records of one user. `feature` holds a canary; about one in six repeats an earlier call, and a third
    of those for another feature."""
    rows: list[dict[str, Any]] = []
    for number in range(count):
        if rows and rng.random() < 1 / 6:
            again: dict[str, Any] = {"at": _moment(rng), "latency_ms": round(rng.lognormvariate(6.0, 0.6), 3)}
            if number % 3 == 0:
                again["feature"] = canary(user, "row", number)
            rows.append(rng.choice(rows) | again)
            continue
        tokens_in = rng.randrange(20, 4_000)
        tokens_out = rng.randrange(5, 1_500)
        rows.append(
            {
                "at": _moment(rng),
                "model": rng.choice(_MODELS),
                "tokens_in": tokens_in,
                "tokens_out": tokens_out,
                "latency_ms": round(rng.lognormvariate(6.0, 0.6), 3),
                "cost_usd": round((tokens_in * 3 + tokens_out * 15) * rng.uniform(0.5, 1.5) / 1e6, 9),
                "feature": canary(user, "row", number),
            }
        )
    return rows


def _moment(rng: random.Random) -> str:
    day = f"2026-{rng.randrange(1, 13):02d}-{rng.randrange(1, 29):02d}"
    return f"{day}T{rng.randrange(24):02d}:{rng.randrange(60):02d}:00+00:00"


def texts_in(value: Any) -> Iterator[str]:
    """Every text inside a value, dict keys, bytes and the reprs of unknown objects included."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, (bytes, bytearray)):
            yield item.decode("utf-8", "replace")
        elif isinstance(item, dict):
            stack.extend(item.keys())
            stack.extend(item.values())
        elif isinstance(item, (list, tuple, set, frozenset)):
            stack.extend(item)
        elif item is not None and not isinstance(item, (bool, int, float)):
            yield repr(item)
