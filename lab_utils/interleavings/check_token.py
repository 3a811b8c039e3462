"""The token of a finding of a whole check: a short text that names all that is needed to run the check again."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, unquote

from lab_utils.interleavings.token import BadToken
from lab_utils.values.profiles import Value

__all__ = ["CheckToken"]

_VERSION: Final = "rc1"
_FIELDS: Final = 9
_NONE: Final = "-"


@dataclass(frozen=True, slots=True)
class CheckToken:
    """`rc1~CHECK~TARGET~PROFILE~SEED~PARAMETERS~ANOMALY~FINGERPRINT~CHECKSUM`, without a character that a shell reads.

    `parameters`: those that differ from the profile's. The schedule is asyncio's own, so a finding that depends on it
    may not come again: a finding with a schedule of its own has a `Token`.
    """

    check: str
    target: str
    profile: str
    seed: int
    anomaly: str
    fingerprint: str
    parameters: Mapping[str, Value] = field(default_factory=dict)

    def __str__(self) -> str:
        given = json.dumps(dict(self.parameters), sort_keys=True, separators=(",", ":")).encode()
        coded = base64.urlsafe_b64encode(given).decode().rstrip("=") if self.parameters else _NONE
        words = (self.check, self.target, self.profile, str(self.seed), coded, self.anomaly, self.fingerprint)
        body = "~".join((_VERSION, *map(_quoted, words)))
        return f"{body}~{_checksum(body)}"

    @classmethod
    def is_one(cls, text: str) -> bool:
        """Whether the text is meant to be such a token, whole or not."""
        return text.strip().startswith(f"{_VERSION}~")

    @classmethod
    def parse(cls, text: str) -> CheckToken:
        """Read a token. Raises `BadToken`."""
        body, _, checksum = text.strip().rpartition("~")
        parts = body.split("~")
        if len(parts) != _FIELDS - 1 or parts[0] != _VERSION or checksum != _checksum(body):
            raise BadToken(f"the token {text!r} was changed or cut: it has no valid checksum; copy it whole")
        check, target, profile, seed, coded, anomaly, fingerprint = map(unquote, parts[1:])
        try:
            given = {} if coded == _NONE else json.loads(base64.urlsafe_b64decode(coded + "=" * (-len(coded) % 4)))
            return cls(check, target, profile, int(seed), anomaly, fingerprint, given)
        except ValueError as error:
            raise BadToken(f"the token {text!r} has no seed or parameters that can be read: {error}") from error


def _quoted(text: str) -> str:
    return quote(text, safe=":", errors="backslashreplace").replace("~", "%7E")


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"
