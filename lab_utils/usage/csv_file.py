"""Reads a user's own usage records from a CSV file, a row at a time, and names the line and column of a fault.

| column       | holds                                                                                             |
|--------------|---------------------------------------------------------------------------------------------------|
| `at`         | when, in ISO 8601 with an offset: `2026-01-31T12:00:00Z`, `2026-01-31 12:00:00.25+01:00`           |
| `model`      | the model's name: 1 to 256 characters, no control character, no white space at its ends           |
| `tokens_in`  | whole number, 0 to 10**12                                                                         |
| `tokens_out` | whole number, 0 to 10**12                                                                         |
| `latency_ms` | milliseconds, 0 to 1e12, with a point for decimals                                                |
| `cost_usd`   | US dollars as billed, 0 to 1e12, with a point for decimals                                        |
| `feature`    | optional: the purpose of the call, a text as `model`, or empty                                    |
| `user_id`    | optional: whose record it is, a text as `model`; without this column all are one user's           |

The first row names the columns, in any order; other columns are ignored, but for those whose names differ from one of
these in case, spaces or marks alone: they are an error. UTF-8, with or without a byte order mark; fields are separated
by commas and may be quoted; lines end in LF or CRLF.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import os
import re
import reprlib
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO, Final

from lab_utils.values.profiles import UsageError
from lab_utils.values.texts import shown

__all__ = [
    "COLUMNS",
    "MAX_USERS",
    "ONE_USER",
    "USAGE_VARIABLE",
    "Record",
    "UsageSummary",
    "check_usage_csv",
    "read_usage_csv",
    "usage_place",
]

COLUMNS: Final = ("at", "model", "tokens_in", "tokens_out", "latency_ms", "cost_usd", "feature", "user_id")
MAX_USERS: Final = 1_000
"""The most users that one file may hold: the flow runs for all of them at once."""
ONE_USER: Final = "user"
"""The owner of the records where no column names one."""

USAGE_VARIABLE: Final = "REGISTRY_LAB_USAGE"
"""The environment variable that names the folder of the file. A run records the file's name alone, for a folder may be
called after a customer."""

Record = tuple[str, str, str, int, int, float, float, str]
"""User, and then the values of the columns from `at` to `feature`; `at` as it stands in the file."""

_REQUIRED: Final = COLUMNS[:6]
_OPTIONAL: Final = COLUMNS[6:]
_LONGEST_LINE: Final = 1 << 20  # Bytes.
_REMEMBERED: Final = 10_000  # Texts.
_TIME: Final = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]([01]\d|2[0-3])(:?[0-5]\d)?)", re.ASCII
)
_AMOUNT: Final = re.compile(r"(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")
_SHORT: Final = reprlib.Repr()
_SHORT.maxstring = 60
_show = _SHORT.repr


@dataclass(slots=True)
class UsageSummary:
    """The content of a file: the number of records of each user, the columns that were ignored, the SHA-256 of its
    bytes.

    Complete once the file has been read to its end.
    """

    path: Path
    users: dict[str, int] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    sha256: str = ""

    @property
    def records(self) -> int:
        """The records of all users."""
        return sum(self.users.values())

    def __str__(self) -> str:
        ignored = f"; columns that mean nothing here: {shown(', '.join(self.ignored), 400)}" if self.ignored else ""
        users = f"{len(self.users):,} user{'s' if len(self.users) > 1 else ''}"
        return f"{self.records:,} records of {users} from {self.path.name} (SHA-256 {self.sha256[:16]}...){ignored}"


def usage_place(text: str) -> Path:
    """The path that the parameter `usage_csv` names; `$REGISTRY_LAB_USAGE` at its beginning is the file's folder.

    Raises `UsageError` where that is not known.
    """
    beginning, slash, name = text.partition("/")
    if beginning != f"${USAGE_VARIABLE}":
        return Path(text)
    if not slash or not (folder := os.environ.get(USAGE_VARIABLE)):
        raise UsageError(f"{text} is known only while `registry-lab` runs; give the path of the file")
    return Path(folder, name)


def check_usage_csv(path: Path) -> UsageSummary:
    """Read the whole file, a row at a time, and return its summary. Raises as `read_usage_csv`."""
    summary = UsageSummary(path)
    for _ in read_usage_csv(summary):
        pass
    return summary


def read_usage_csv(summary: UsageSummary) -> Iterator[Record]:
    """Yield the records of the file at `summary.path`, in its order, and fill the summary meanwhile.

    Raises `UsageError` for a file that cannot be read or is not as described above; the message names line, column
    and remedy. A row's line is the one in which it begins, and the header's is 1.
    """
    path = summary.path
    try:
        if path.exists() and not path.is_file():
            raise UsageError(f"cannot read {path}: no regular file, which it must be to be read more than once")
        with path.open("rb") as file:
            lines = _Lines(file, path)
            rows = _rows(lines)
            number, header = next(rows, (1, []))
            if not header:
                raise UsageError(f"{path} is empty; its first row must name the columns {', '.join(_REQUIRED)}")
            places = _places(header, f"{path}: line {number}")
            summary.ignored = tuple(name for name in header if name not in COLUMNS)
            yield from _records(rows, header, places, summary)
            if not summary.users:
                raise UsageError(f"{path} has a header and no records")
            summary.sha256 = lines.digest.hexdigest()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error


def _records(
    rows: Iterator[tuple[int, list[str]]], header: Sequence[str], places: Mapping[str, int], summary: UsageSummary
) -> Iterator[Record]:
    required = itemgetter(*(places[name] for name in _REQUIRED))
    feature_at, user_at = places.get("feature"), places.get("user_id")
    text, users, width, user = _Texts(), summary.users, len(header), ONE_USER
    for number, row in rows:
        try:
            if len(row) != width:
                raise _Malformed(f"{len(row)} fields, and the header has {width}; quote a value that holds a comma")
            at, model, tokens_in, tokens_out, latency_ms, cost_usd = required(row)
            if user_at is not None:
                user = text("user_id", row[user_at])
            feature = row[feature_at] if feature_at is not None else ""
            record = (
                user,
                _time(at),
                text("model", model),
                _count("tokens_in", tokens_in),
                _count("tokens_out", tokens_out),
                _amount("latency_ms", latency_ms),
                _amount("cost_usd", cost_usd),
                text("feature", feature) if feature else "",
            )
            if user not in users and len(users) == MAX_USERS:
                raise _Malformed(
                    f"column user_id: {_show(user)} is one user too many; at most {MAX_USERS:,} run at once: split the "
                    "file"
                )
        except _Malformed as error:
            raise UsageError(f"{summary.path}: line {number}: {error}") from None
        users[user] = users.get(user, 0) + 1
        yield record


class _Malformed(Exception):
    """Something about one row."""


class _Lines:
    """The physical lines of a file as text, counted and digested. Raises `UsageError` for bytes that are not UTF-8."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self.path = path
        self.number = 0
        self.digest = hashlib.sha256()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._file.readline(_LONGEST_LINE)
        if not line:
            raise StopIteration
        self.number += 1
        self.digest.update(line)
        if len(line) == _LONGEST_LINE and not line.endswith(b"\n"):
            raise UsageError(f"{self.path}: line {self.number} is longer than 1 MiB; is it a CSV file?")
        if self.number == 1:
            if line.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise UsageError(f"{self.path} looks like UTF-16; save it as UTF-8")
            line = line.removeprefix(b"\xef\xbb\xbf")
        try:
            return line.decode("utf-8")
        except UnicodeDecodeError as error:
            byte = f"byte 0x{line[error.start]:02x} at position {error.start + 1}"
            raise UsageError(f"{self.path}: line {self.number}: {byte} is not UTF-8; save the file as UTF-8") from None


def _rows(lines: _Lines) -> Iterator[tuple[int, list[str]]]:
    """Yield each row that is not blank with the number of the line in which it begins."""
    reader = csv.reader(lines, strict=True)
    while True:
        began = lines.number + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise UsageError(f"{lines.path}: line {began}: {_said(error)}") from None
        if row is None:
            return
        if row:
            yield began, row


def _said(error: csv.Error) -> str:
    text = str(error)
    if "unexpected end of data" in text:
        return "a quote is opened here and never closed"
    if "new-line character" in text:
        return "a carriage return stands alone; end lines in LF or CRLF, and quote a value that holds one"
    if "field larger" in text:
        return f"a field is longer than {csv.field_size_limit():,} characters; is a quote never closed?"
    return f"{text}; double a quote that is part of a quoted value"


def _places(header: Sequence[str], where: str) -> dict[str, int]:
    """Where each column stands. Raises `UsageError` for one that is missing, doubled, or perhaps misspelled."""
    found = ", ".join(map(_show, header))
    for name in COLUMNS:
        if header.count(name) > 1:
            raise UsageError(f"{where}: column {name!r} stands there {header.count(name)} times; keep one of them")
    others = [name for name in header if name not in COLUMNS]
    missing = [name for name in _REQUIRED if name not in header]
    alike = [(name, other) for name in COLUMNS for other in others if _bare(other) == _bare(name)]
    if missing:
        names = ", ".join(map(repr, missing))
        near = [(name, other) for name, other in alike if name in missing]
        near += [(name, close) for name in missing for close in difflib.get_close_matches(name, others, 1, 0.5)]
        hints = [f"; did you mean {name!r} by {_show(close)}?" for name, close in near[:1]]
        hints += ["; separate the columns with commas" for name in header[:1] if len(header) == 1]
        is_one = len(missing) == 1
        raise UsageError(
            f"{where}: column{'' if is_one else 's'} {names} {'is' if is_one else 'are'} missing; found: {found}"
            f"{''.join(hints)}"
        )
    # Ignored, one of these would silently give other figures.
    for name, other in alike:
        if name in header:
            raise UsageError(
                f"{where}: column {_show(other)} stands beside {name!r}, and only the spelling differs; keep one"
            )
        raise UsageError(f"{where}: column {_show(other)} is unknown; rename it to {name!r}, or leave it out")
    for name in _OPTIONAL:
        if name not in header and (close := difflib.get_close_matches(name, others, 1, 0.75)):
            raise UsageError(f"{where}: column {_show(close[0])} is unknown; rename it to {name!r}, or leave it out")
    return {name: header.index(name) for name in COLUMNS if name in header}


def _bare(name: str) -> str:
    """A column's name without the differences in how people and programs write it: case, width, spaces, marks, and
    dashes."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", name).casefold()))


def _time(value: str) -> str:
    if not _TIME.fullmatch(value):
        raise _Malformed(f"column at: {_show(value)} is not a time; write it as 2026-01-31T12:00:00Z or with +01:00")
    try:
        datetime.fromisoformat(value).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise _Malformed(f"column at: {_show(value)} is not a time: {error}") from None
    return value


def _count(column: str, value: str) -> int:
    if not (value.isdigit() and value.isascii() and len(value) <= 18 and (number := int(value)) <= 10**12):
        raise _Malformed(f"column {column}: {_show(value)} is not a count; write a whole number from 0 to 10**12")
    return number


def _amount(column: str, value: str) -> float:
    if not (_AMOUNT.fullmatch(value) and (number := float(value)) <= 1e12):
        remedy = "write a number from 0 to 1e12, with a point for decimals"
        raise _Malformed(f"column {column}: {_show(value)} is not an amount; {remedy}")
    return number


class _Texts:
    """Checks texts; those that come again and again are checked once."""

    def __init__(self) -> None:
        self._good: set[str] = set()

    def __call__(self, column: str, value: str) -> str:
        if value in self._good:
            return value
        if not value:
            problem = "is empty; write at least one character"
        elif len(value) > 256:
            problem = f"has {len(value)} characters; at most 256 are allowed"
        elif value[0].isspace() or value[-1].isspace():
            problem = "begins or ends with white space; strip it"
        elif found := _CONTROL.search(value):
            problem = f"holds the control character {found.group()!r}; take it out"
        else:
            if len(self._good) < _REMEMBERED:
                self._good.add(value)
            return value
        raise _Malformed(f"column {column}: {_show(value)} {problem}")
