"""When a call that a server refused is made again, and after how long. Pure."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Final

__all__ = ["LONGEST_ASKED", "is_passing", "pause_asked", "pause_before"]

LONGEST_ASKED: Final = 120.0
"""Seconds: a server that asks for a longer pause has refused."""

_FIRST, _LONGEST = 0.5, 8.0
_JITTER: Final = 0.25


def is_passing(status: int, headers: Mapping[str, str]) -> bool:
    """Whether a refusal may pass: time-out, conflict, too many requests, an error of the server; or what it says."""
    said = headers.get("x-should-retry", "")
    return said == "true" or (said != "false" and (status in (408, 409, 429) or status >= 500))


def pause_asked(headers: Mapping[str, str], now: float) -> float | None:
    """The seconds that the server asks for, in `retry-after-ms` or `retry-after` (seconds, or the date of their end);
    None where it asks for nothing that can be understood. `now`: seconds since 1970."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if seconds >= 0:
            return seconds
    try:
        seconds = parsedate_to_datetime(headers["retry-after"]).timestamp() - now
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return max(0.0, seconds)


def pause_before(retry: int, asked: float | None, rng: random.Random) -> float | None:
    """Seconds to wait before this retry (the first is 1); None for not to try again.

    What the server asks for and up to a quarter more, so that not all come back in the same moment; else half a second,
    doubled at each retry up to eight, and up to a quarter less.
    """
    if asked is not None:
        return asked * (1 + _JITTER * rng.random()) if asked <= LONGEST_ASKED else None
    return min(_FIRST * math.pow(2, min(retry - 1, 10)), _LONGEST) * (1 - _JITTER * rng.random())
