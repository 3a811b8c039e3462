"""A run's digest, kept to compare it with others: small, and JSON in and out."""

from __future__ import annotations

from typing import Final

import msgspec

from lab_utils.values.decoding import decodable
from lab_utils.values.verdict import Outcome

__all__ = ["DIGEST_FORMAT", "CheckDigest", "Digest", "FoundDigest", "MeasuredDigest", "read_digest", "written_digest"]

DIGEST_FORMAT: Final = 1


class FoundDigest(msgspec.Struct, frozen=True, omit_defaults=True):
    """The findings of one fingerprint: how many, the key and the sentence of the first, and its cause in a sentence."""

    fingerprint: str
    anomaly: str
    count: int
    key: str
    sentence: str
    cause: str


class MeasuredDigest(msgspec.Struct, frozen=True, omit_defaults=True):
    """One measured value; `comparison` is "" and `limit` 0 where it has no budget."""

    metric: str
    value: float | None
    unit: str
    comparison: str = ""
    limit: float = 0.0
    source: str = ""
    decides: bool = False


class CheckDigest(msgspec.Struct, frozen=True, omit_defaults=True):
    """One check of a run."""

    check: str
    category: str
    outcome: Outcome
    reason: str
    seconds: float
    found: tuple[FoundDigest, ...] = ()
    measured: tuple[MeasuredDigest, ...] = ()


class Digest(msgspec.Struct, frozen=True):
    """One run. `parameters`: by category. `commit` is "" where it is not known."""

    format: int
    run_id: str
    status: str
    started_at: str
    seconds: float
    target: str
    profile: str
    seed: int
    commit: str
    python: str
    machine: str
    parameters: dict[str, dict[str, int | float | str | bool]]
    checks: tuple[CheckDigest, ...]

    def is_like(self, other: Digest) -> bool:
        """Whether measurements of the two may be compared: one target, profile and Python, and the same values of the
        parameters that both have. A parameter that only one has came with another version of the lab."""
        mine, theirs = self._values, other._values
        return (
            (self.target, self.profile, self.python.rpartition(".")[0])
            == (other.target, other.profile, other.python.rpartition(".")[0])
            and all(mine[name] == theirs[name] for name in mine.keys() & theirs.keys())
        )  # fmt: skip

    @property
    def _values(self) -> dict[tuple[str, str], int | float | str | bool]:
        return {(of, name): value for of, values in self.parameters.items() for name, value in values.items()}


def written_digest(digest: Digest) -> bytes:
    """The digest as JSON."""
    return msgspec.json.encode(digest)


def read_digest(text: bytes) -> Digest:
    """Read it back. Raises `ValueError`, which names a newer format or the place that does not fit."""
    try:
        digest = msgspec.json.decode(text, type=Digest)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    if digest.format != DIGEST_FORMAT:
        raise ValueError(f"it has format {digest.format}, this version reads {DIGEST_FORMAT}")
    return digest


decodable(Digest)
