"""Judges a run against a baseline: known findings pass, new ones and regressions do not."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from lab_utils.judges.comparison import Change, Comparison, MeasuredChange, compare
from lab_utils.values.digest import CheckDigest, Digest, FoundDigest
from lab_utils.values.verdict import Outcome

__all__ = ["Baseline", "Judged", "Known", "read_known", "written_known"]


@dataclass(frozen=True, slots=True)
class Known:
    """A finding that is known: why it may stay, and until when ("" for ever)."""

    fingerprint: str
    reason: str
    expires: str = ""
    anomaly: str = ""
    check: str = ""

    def has_expired(self, today: date) -> bool:
        """Whether its last day has passed."""
        return bool(self.expires) and date.fromisoformat(self.expires) < today


@dataclass(frozen=True, slots=True)
class Judged:
    """The judgement of a run by a baseline. `known` and `new`: the findings with the check; `expired`: new ones that
    were known; `gone`: known ones that a check looked for and did not find."""

    known: tuple[tuple[str, FoundDigest, Known], ...]
    new: tuple[tuple[str, FoundDigest], ...]
    expired: tuple[tuple[str, FoundDigest, Known], ...]
    gone: tuple[Known, ...]
    regressions: tuple[MeasuredChange, ...]

    def is_known(self, check: CheckDigest) -> bool:
        """Whether the check failed with known findings only."""
        known = {found.fingerprint for name, found, _ in self.known if name == check.check}
        return check.outcome is Outcome.FAIL and all(one.fingerprint in known for one in check.found)

    @property
    def passes(self) -> bool:
        """Whether nothing is new, has expired, or got worse."""
        return not (self.new or self.expired or self.regressions)


@dataclass(frozen=True, slots=True)
class Baseline:
    """The known state: findings by fingerprint, and a run to compare measurements with. `source` is its name."""

    source: str
    known: Mapping[str, Known]
    run: Digest | None = None

    @classmethod
    def of_run(cls, run: Digest) -> Baseline:
        """Everything that a run found is known."""
        known = {
            one.fingerprint: Known(one.fingerprint, f"already in run {run.run_id}", "", one.anomaly, check.check)
            for check in run.checks
            for one in check.found
        }
        return cls(f"run {run.run_id}", known, run)

    def judge(self, run: Digest, today: date, earlier: Sequence[Digest] = ()) -> Judged:
        """Judge a run. `earlier` runs show how much a measurement varies by itself."""
        known, new, expired = [], [], []
        for check in run.checks:
            for one in check.found:
                entry = self.known.get(one.fingerprint)
                if entry is None:
                    new.append((check.check, one))
                elif entry.has_expired(today):
                    expired.append((check.check, one, entry))
                else:
                    known.append((check.check, one, entry))
        compared: Comparison | None = compare(self.run, run, earlier) if self.run is not None else None
        found = {one.fingerprint for check in run.checks for one in check.found}
        judged = {check.check for check in run.checks if check.outcome in (Outcome.PASS, Outcome.FAIL)}
        gone = [one for one in self.known.values() if one.fingerprint not in found and one.check in judged]
        worse = tuple(one for one in compared.measured if one.change is Change.WORSE) if compared else ()
        return Judged(tuple(known), tuple(new), tuple(expired), tuple(gone), worse)


def read_known(text: str, source: str) -> Baseline:
    """Read a file of known findings. Raises `ValueError`, which names the entry and its fault."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{source} is not TOML: {error}") from error
    entries = data.get("known", [])
    if set(data) - {"known"} or not isinstance(entries, list):
        raise ValueError(f"{source}: it holds [[known]] entries and nothing else")
    known: dict[str, Known] = {}
    for number, entry in enumerate(entries, 1):
        where = f"{source}, entry {number}"
        if not isinstance(entry, dict) or set(entry) - {"fingerprint", "reason", "expires", "anomaly", "check"}:
            raise ValueError(f"{where}: an entry has fingerprint, reason, and if you like expires, anomaly and check")
        one = {name: _text(where, name, value) for name, value in entry.items()}
        if not one.get("fingerprint") or not one.get("reason", "").strip():
            raise ValueError(f"{where}: it needs a fingerprint and a reason")
        known[one["fingerprint"]] = Known(**one)
    return Baseline(source, known)


def written_known(found: Iterable[tuple[str, FoundDigest]], reason: str, expires: str) -> str:
    """A file of known findings, as `read_known` reads it."""
    lines = ["# Findings that are known. A run with `--baseline` of this file passes as long as it finds no others."]
    for check, one in found:
        lines += ["", "[[known]]", f"# {_comment(one.cause)}"]
        pairs = {"fingerprint": one.fingerprint, "anomaly": one.anomaly, "check": check, "reason": reason}
        lines += [f"{name} = {_quoted(value)}" for name, value in pairs.items()]
        lines += [f"expires = {expires}"] if expires else []
    return "\n".join(lines) + "\n"


def _text(where: str, name: str, value: object) -> str:
    if name == "expires":
        if isinstance(value, date) and not isinstance(value, datetime):
            return value.isoformat()
        raise ValueError(f"{where}: expires = {value!r} is not a date; write expires = 2027-01-31")
    if not isinstance(value, str):
        raise ValueError(f"{where}: {name} = {value!r} is not text")
    return value


def _comment(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(one if one.isprintable() else f"\\U{ord(one):08X}" for one in escaped) + '"'
