"""Everything that the lab sends to a service: counted against its bounds, and written down with its secrets masked."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import time
from collections.abc import Mapping
from functools import cache
from io import TextIOWrapper
from pathlib import Path
from typing import Final

import httpx

from lab_utils.service.file import Bounds

__all__ = ["OutOfBounds", "Traffic", "masked_headers", "trusted"]

_LONGEST: Final = 2_000
_SECRET_HEADERS: Final = re.compile(r"authorization|cookie|key|token|secret", re.IGNORECASE)
_MASK: Final = "***"


class OutOfBounds(Exception):
    """The lab would send more than the service file allows."""


class Traffic:
    """Counts requests to one start of a service, and writes each with its answer as a line of JSON.

    Texts known as secrets, and headers whose names say so, are written as `***`. Without a path nothing is written.
    """

    def __init__(self, bounds: Bounds, path: Path | None, secrets: tuple[str, ...]) -> None:
        self._bounds = bounds
        self._secrets = set(filter(None, secrets))
        self._began = time.monotonic()
        self._next_at = 0.0
        self.sent = 0
        self._file: TextIOWrapper | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a", encoding="utf-8", errors="backslashreplace", buffering=1)

    def learn(self, secret: str) -> None:
        """Mask this text from now on."""
        if len(secret) >= 4:
            self._secrets.add(secret)

    async def admit(self) -> int:
        """Return the request's number once it may be sent. Raises `OutOfBounds`."""
        bounds = self._bounds
        if self.sent >= bounds.requests:
            raise OutOfBounds(f"bounds.requests = {bounds.requests:,} are sent; raise it in the service file")
        if time.monotonic() - self._began > bounds.seconds:
            raise OutOfBounds(f"bounds.seconds = {bounds.seconds:g} are over; raise it in the service file")
        self.sent += 1
        number = self.sent
        # No await from here to the reservation: two requests never share a place.
        now = time.monotonic()
        at = max(now, self._next_at)
        self._next_at = at + 1 / bounds.per_second
        if at > now:
            await asyncio.sleep(at - now)
        return number

    def log(self, number: int, who: str, what: Mapping[str, object], answer: str) -> None:
        """Write one request and its answer."""
        if self._file is not None:
            row = {"number": number, "user": who, **what, "answer": answer[:_LONGEST]}
            self._file.write(self.masked(json.dumps(row, ensure_ascii=False)) + "\n")

    def masked(self, text: str) -> str:
        """The text without the secrets that are known."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, _MASK)
        return text

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def masked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers as they may be written: those that carry credentials are masked."""
    return {name: _MASK if _SECRET_HEADERS.search(name) else value for name, value in headers.items()}


@cache
def trusted() -> ssl.SSLContext:
    """The certificates that every client of this process trusts. Reading them costs 50 ms of CPU, a hundred times all
    else of a client, so it is done once."""
    return httpx.create_ssl_context(trust_env=False)
