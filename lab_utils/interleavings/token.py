"""The replay token: a short text that names a workload, a target, a seed, a schedule and its findings."""

from __future__ import annotations

import re
import sys
import zlib
from dataclasses import dataclass

from lab_utils.interleavings.simulation import Schedule

__all__ = ["BadToken", "Token"]

_VERSION = "rl2"
_PYTHON = f"py{sys.version_info.major}.{sys.version_info.minor}"
_FIELDS = 8


class BadToken(ValueError):
    """The text is not a token that can be run here; the message gives the reason."""


@dataclass(frozen=True, slots=True)
class Token:
    """`rl2~py3.11~WORKLOAD~TARGET~ANOMALY~SEED~SCHEDULE~CHECKSUM`, without a character that a shell would read.

    Of version 1, which did not name its anomaly, none is read: whether its finding came again could not be said.
    The schedule is the decisions that deviate, `number-place`, joined by dots, or `fifo`. asyncio takes different steps
    in different versions of Python, so a token is of the one it was made under.
    """

    workload: str
    target: str
    anomaly: str
    seed: int
    schedule: Schedule

    def __str__(self) -> str:
        choices = ".".join(f"{number}-{taken}" for number, taken in self.schedule) or "fifo"
        body = "~".join((_VERSION, _PYTHON, self.workload, self.target, self.anomaly, str(self.seed), choices))
        return f"{body}~{_checksum(body)}"

    @classmethod
    def parse(cls, text: str) -> Token:
        """Read a token. Raises `BadToken`."""
        body, _, checksum = text.strip().rpartition("~")
        parts = [*body.split("~"), checksum]
        if parts[0] != _VERSION:
            if re.fullmatch(r"rl\d+", parts[0]):
                raise BadToken(
                    f"the token {text!r} is of version {parts[0]}, this lab reads {_VERSION}; run the check again for "
                    "one, or replay it with the version of the lab that found it"
                )
            raise BadToken(
                f"{text!r} is not a token: a token begins with {_VERSION}~ or rc1~; copy it whole from the finding"
            )
        if len(parts) != _FIELDS:
            raise BadToken(f"the token {text!r} has {len(parts)} parts, not {_FIELDS}; copy it whole from the finding")
        if checksum != _checksum(body):
            raise BadToken(f"the token {text!r} was changed or cut: its checksum is wrong; copy it whole")
        _, python, workload, target, anomaly, seed, choices, _ = parts
        if python != _PYTHON:
            raise BadToken(f"the token was made under {python}, this is {_PYTHON}; run it under that Python")
        try:
            pairs = [pair.split("-") for pair in ([] if choices == "fifo" else choices.split("."))]
            return cls(
                workload, target, anomaly, int(seed), tuple((int(number), int(taken)) for number, taken in pairs)
            )
        except ValueError as error:
            raise BadToken(f"the token {text!r} has no seed or schedule that can be read: {error}") from error


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"
