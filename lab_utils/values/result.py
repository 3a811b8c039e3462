"""The result of one run of one check: pure data, JSON in and out, so that it crosses a kernel's border unchanged."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, takewhile
from typing import Any, Final, Literal, TypeVar

import msgspec

from lab_utils.values.decoding import decodable
from lab_utils.values.history import Op, Operations
from lab_utils.values.texts import cut, reported, reported_lines, shown, without_folders, worded
from lab_utils.values.verdict import Outcome, Verdict

__all__ = [
    "REST_OF_THE_CHECK",
    "Budget",
    "CheckResult",
    "Measurement",
    "Sample",
    "compact",
    "decode",
    "encode",
    "parsed",
    "plain",
    "read",
    "unparsed",
    "written",
]

REST_OF_THE_CHECK: Final = "the rest of the check"
"""So a claim names the part that was left out when a check ended early: it came to no verdict about that."""

T = TypeVar("T")

Comparison = Literal["<=", "<", ">=", ">", "=="]

# A value that contains itself has no end; Python writes no integer of more than 4,300 digits.
_DEEPEST: Final = 50
_MOST_BITS: Final = 10_000
_CHUNK: Final = 5_000
_LONGEST_VALUE: Final = 10_000
_LONGEST_NOTE: Final = 2_000


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit that a measurement is held against, and where it comes from.

    `source` is "asked" for a budget that the users asked for, "lab" for the lab's own tighter one.
    """

    comparison: Comparison
    limit: float
    source: Literal["asked", "lab"]

    def holds(self, value: float) -> bool:
        """True if the value keeps the budget. NaN keeps none."""
        match self.comparison:
            case "<=":
                return value <= self.limit
            case "<":
                return value < self.limit
            case ">=":
                return value >= self.limit
            case ">":
                return value > self.limit
            case "==":
                return value == self.limit

    def __str__(self) -> str:
        return f"{self.comparison} {self.limit:g} ({self.source})"


@dataclass(frozen=True, slots=True)
class Measurement:
    """One measured value with its unit. With a budget it is judged; `decides=False` shows the judgement only.

    The same metric may stand twice, once for each source of a budget.
    """

    metric: str
    value: float
    unit: str
    budget: Budget | None = None
    decides: bool = True

    @property
    def outcome(self) -> Outcome | None:
        """PASS or FAIL by the budget; None without one."""
        if self.budget is None:
            return None
        return Outcome.PASS if self.budget.holds(self.value) else Outcome.FAIL


@dataclass(frozen=True, slots=True)
class Sample:
    """One point of a series, for the figures.

    `series` names the quantity (`"uss"`, `"anonymous"`, `"live_objects:UserAgentSession"`, `"delivered"`, ...), `phase`
    the time ("baseline", "work", "freed", ...). `x` and `y` are labels or positions: for "delivered" the sending and
    the receiving user; for a memory series `at_s` seconds since the trial began.
    """

    series: str
    value: float
    unit: str
    at_s: float = 0.0
    phase: str = ""
    x: str = ""
    y: str = ""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One run of one check against one target: its verdict and everything it was judged by.

    `printed`: head and tail of its process's output. Its texts are escaped and cut, and name no folder of this machine.
    """

    check: str
    category: str
    claim: str
    protects: str
    target: str
    profile: str
    seed: int
    parameters: Mapping[str, int | float | str | bool]
    verdict: Verdict
    duration_s: float
    started_at: str
    measurements: tuple[Measurement, ...] = ()
    samples: tuple[Sample, ...] = ()
    traceback: str = ""
    notes: tuple[str, ...] = ()
    printed: str = ""
    operations: Sequence[Op] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "target", shown(self.target))
        parameters = {
            name: without_folders(value) if isinstance(value, str) else value for name, value in self.parameters.items()
        }
        object.__setattr__(self, "parameters", parameters)
        object.__setattr__(self, "traceback", reported_lines(self.traceback))
        object.__setattr__(self, "notes", tuple(reported(note, _LONGEST_NOTE) for note in self.notes))
        object.__setattr__(self, "printed", reported_lines(self.printed))

    @property
    def outcome(self) -> Outcome:
        return self.verdict.outcome


def encode(result: CheckResult) -> bytes:
    """Return the result as JSON. Values of operations that JSON cannot hold are given by their repr.

    Raises `TypeError` for any other value that JSON cannot hold.
    """
    return b"".join(written(result))


def decode(text: bytes) -> CheckResult:
    """Return the result that `encode` described. Raises `ValueError` for anything else; its message names the place."""
    lines = io.BytesIO(text)
    try:
        return read(lines.readline(), lines)
    except ValueError:
        # In whatever lines: it is the same result, or the message names the place in the whole of it.
        return compact(parsed(text, CheckResult))


def written(result: CheckResult) -> Iterator[bytes]:
    """The JSON of a result in pieces, with a line for each operation."""
    yield unparsed(replace(result, operations=())).removesuffix(b"]}")
    operations = map(_writable, result.operations)
    comma = b""
    while chunk := list(islice(operations, _CHUNK)):
        yield comma + b"\n"
        try:
            yield _ENCODER.encode_lines(chunk).removesuffix(b"\n").replace(b"\n", b",\n")
        except UnicodeEncodeError:
            yield b",\n".join(map(unparsed, chunk))
        comma = b","
    yield b"\n]}"


def read(head: bytes, lines: Iterator[bytes]) -> CheckResult:
    """Read the output of `written`: `head` is its first line, `lines` begins with the second and is read to the last.

    Raises `ValueError` if that is not there.
    """
    if not head.endswith(b'"operations":[\n'):
        raise ValueError("the operations have no lines of their own")
    return replace(parsed(head + b"]}", CheckResult), operations=Operations(chain.from_iterable(_blocks(lines))))


def compact(result: CheckResult) -> CheckResult:
    """The result with its operations as columns."""
    kept = result.operations
    return result if isinstance(kept, Operations) else replace(result, operations=Operations(kept))


def plain(result: CheckResult) -> CheckResult:
    """The result with values of operations that JSON can hold."""
    return replace(result, operations=[*map(_writable, result.operations)])


def _blocks(lines: Iterator[bytes]) -> Iterator[list[Op]]:
    # At the end of the input stands a line that is no JSON, so that operations without an end are refused.
    remaining = takewhile(_IS_INSIDE, chain(lines, (b"the operations have no end",)))
    while block := list(islice(remaining, _CHUNK)):
        yield parsed(b"[%b]" % b"".join(block).rstrip(b",\n"), list[Op])


def unparsed(value: object) -> bytes:
    """The JSON of a value of these types. Raises `TypeError` for a value that JSON cannot hold."""
    # Python's own encoder has a notation for lone surrogates and for numbers that are not finite; msgspec has none.
    return json.dumps(msgspec.to_builtins(value, enc_hook=_exact), separators=(",", ":")).encode()


def parsed(text: bytes, kind: type[T]) -> T:
    """The value of this type that JSON describes. Raises `ValueError`; its message names the place."""
    try:
        try:
            return msgspec.json.decode(text, type=kind)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            return msgspec.convert(json.loads(text), kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise ValueError(str(error)) from error


def _writable(op: Op) -> Op:
    """The operation, with a value that JSON can hold."""
    if type(op.value) is str and len(op.value) <= _LONGEST_VALUE:
        return op
    value = _plain(op.value)
    return op if value is op.value else msgspec.structs.replace(op, value=value)


def _plain(value: Any, depth: int = 0) -> Any:
    match value:
        case None | bool():
            return value
        case str():
            return cut(str.__str__(value), _LONGEST_VALUE)
        case int() if value.bit_length() <= _MOST_BITS:
            return _exact(value)
        case float() if math.isfinite(value):
            return _exact(value)
        case list() | tuple() if depth < _DEEPEST:
            return [_plain(item, depth + 1) for item in value]
        case dict() if depth < _DEEPEST:
            return {cut(worded(str, key), _LONGEST_VALUE): _plain(item, depth + 1) for key, item in value.items()}
    return cut(worded(repr, value), _LONGEST_VALUE)


def _exact(value: Any) -> Any:
    """A value of a subclass of str, int or float, as one of that class."""
    match value:
        case str():
            return str.__str__(value)
        case int():
            return int.__int__(value)
        case float():
            return float.__float__(value)
    raise TypeError(f"{value!r} is of type {type(value).__name__}, which JSON cannot hold")


_IS_INSIDE: Final = re.compile(rb"[^\]]").match
_ENCODER: Final = msgspec.json.Encoder(enc_hook=_exact)

decodable(CheckResult)
