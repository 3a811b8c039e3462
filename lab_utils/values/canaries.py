"""Values that nobody else writes: their form in text, numbers, moments and rows of booleans, and the search for them in
everything that a user received."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

__all__ = ["Writers", "canary", "cookie_of", "cookies_in", "mark", "opening", "typed", "word", "writers_named"]

_EPOCH = datetime(2100, 1, 1, tzinfo=UTC)
_BITS = 40
_DIGITS = 12
_LEAST = 100_000_000_000
# Not within a longer number; a float's fraction may follow.
_NUMBER = re.compile(r"(?<!\d)\d{12,15}(?!\d)")
_OPENING = re.compile(r"canary<([^|]*)\|")
# Looked ahead for: a canary that is cut short must not hide the next one. No id of the lab's is longer.
_EVERY_OPENING = re.compile(r"(?=canary<([^|]{0,1000})\|)")
_COOKIE = re.compile(r"of-\d{12}(?!\d)")
# ISO, str and repr of a moment of the year 2100.
_MOMENT = re.compile(r"2100[-,] ?(\d\d?)[-,] ?(\d\d?)[T, ] ?(\d\d?)[:,] ?(\d\d?)[:,] ?(\d\d?)[.,] ?(\d{1,6})")


def canary(user: str, place: str, number: int) -> str:
    """A text that nobody else writes, and that names its writer and its place."""
    return f"{opening(user)}{place}|{number}>"


def opening(user: str) -> str:
    """The beginning of every text canary that this user wrote, and of no other user's."""
    return f"canary<{_written(user)}|"


def word(user: str, number: int) -> str:
    """A canary of letters and digits alone, which no server escapes, shortens or takes for markup."""
    return f"lab{mark(user)}x{number:06d}z"


def writers_named(text: str) -> frozenset[str]:
    """The users named as writers by the canaries in a text, known or not."""
    return frozenset(found.replace("%7C", "|").replace("%25", "%") for found in _OPENING.findall(text))


def _written(user: str) -> str:
    # Unwritten, the bar of "acme|eu" would end the name of "acme".
    return user.replace("%", "%25").replace("|", "%7C")


@cache
def mark(user: str) -> int:
    """Twelve digits that stand for a user in all canaries that are not texts; two users in 10¹² share them."""
    digest = hashlib.blake2b(user.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return _LEAST + int.from_bytes(digest) % (9 * _LEAST)


def cookie_of(user: str) -> str:
    """The value of the cookie that the lab's servers set for a user; letters that every cookie may hold."""
    return f"of-{mark(user)}"


def cookies_in(text: str) -> list[str]:
    """The values of all such cookies in a header."""
    return _COOKIE.findall(text)


def typed(user: str, number: int) -> dict[str, Any]:
    """Canaries that are not texts: a large int, a float, a moment, a row of booleans, and an int and a float as keys.
    `number`: 0 to 7, which of them."""
    own = mark(user)
    return {
        "int": own * 1_000 + number,
        "float": own + number / 8,
        "moment": _EPOCH + timedelta(microseconds=own),
        "flags": [own >> bit & 1 == 1 for bit in range(_BITS)],
        "keys": {own * 1_000 + number: "an int", own + 1 / 16: "a float"},
    }


class Writers:
    """The writers of the canaries inside a value, among these users."""

    def __init__(self, users: Iterable[str]) -> None:
        known = list(dict.fromkeys(users))
        self._by_name = {_written(user): user for user in known}
        self._by_mark = {mark(user): user for user in known}

    def of(self, value: Any) -> Iterator[tuple[str, str]]:
        """Each canary inside, dict keys, bytes and the reprs of unknown objects included: its writer, and the text or
        value that it stands in."""
        stack = [value]
        while stack:
            item = stack.pop()
            if isinstance(item, str):
                yield from self._of_text(item)
            elif isinstance(item, (bytes, bytearray)):
                yield from self._of_text(item.decode("utf-8", "replace"))
            elif isinstance(item, dict):
                stack.extend(item.keys())
                stack.extend(item.values())
            elif isinstance(item, (list, tuple, set, frozenset)):
                yield from self._of_flags(item)
                stack.extend(item)
            elif isinstance(item, (bool, type(None))):
                continue
            elif isinstance(item, (int, float)):
                yield from self._of_number(item)
            elif isinstance(item, datetime):
                yield from self._marked(_microseconds(item), repr(item))
            else:
                yield from self._of_text(repr(item))

    def _of_text(self, text: str) -> Iterator[tuple[str, str]]:
        if "canary<" in text:
            named = dict.fromkeys(_EVERY_OPENING.findall(text))
            yield from ((self._by_name[name], text) for name in named if name in self._by_name)
        for found in _NUMBER.finditer(text):
            yield from self._marked(int(found[0][:_DIGITS]), text)
        if "2100" in text:
            for found in _MOMENT.finditer(text):
                yield from self._marked(_read_moment(found), text)

    def _of_number(self, number: float) -> Iterator[tuple[str, str]]:
        # Infinity and NaN have no digits.
        with suppress(OverflowError, ValueError):
            digits = str(abs(int(number)))
            if len(digits) in (_DIGITS, _DIGITS + 3):
                yield from self._marked(int(digits[:_DIGITS]), repr(number))

    def _of_flags(self, items: Any) -> Iterator[tuple[str, str]]:
        if isinstance(items, (list, tuple)) and len(items) == _BITS and all(type(item) is bool for item in items):
            yield from self._marked(sum(item << bit for bit, item in enumerate(items)), "a row of booleans")

    def _marked(self, number: int | None, where: str) -> Iterator[tuple[str, str]]:
        user = self._by_mark.get(number) if number is not None else None
        if user is not None:
            yield user, where


def _microseconds(moment: datetime) -> int | None:
    if moment.year != _EPOCH.year:
        return None
    own = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return (own - _EPOCH) // timedelta(microseconds=1)


def _read_moment(found: re.Match[str]) -> int | None:
    month, day, hour, minute, second, rest = found.groups()
    try:
        # A repr writes the microseconds as a number, ISO as six digits of a fraction.
        return _microseconds(
            datetime(2100, int(month), int(day), int(hour), int(minute), int(second), int(rest), tzinfo=UTC)
        )
    except (TypeError, ValueError):
        return None
