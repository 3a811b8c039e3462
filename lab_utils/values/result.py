"""What one run of one check leaves: pure data, JSON in and out, so that it crosses a kernel's border unchanged."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal

import msgspec

from lab_utils.values.history import Op, OpType
from lab_utils.values.verdict import Finding, Outcome, Verdict

__all__ = ["Budget", "CheckResult", "Measurement", "Sample", "decode", "encode", "from_json", "to_json"]

Comparison = Literal["<=", "<", ">=", ">", "=="]

# A value that contains itself has no end; Python writes no integer of more than 4,300 digits.
_DEEPEST: Final = 50
_MOST_BITS: Final = 10_000


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

    `series` names what (`"uss"`, `"anonymous"`, `"live_objects:UserAgentSession"`, `"delivered"`, ...), `phase` when
    ("baseline", "work", "freed", ...), `x` and `y` are labels or positions: for "delivered" the sending and the
    receiving user; for a memory series `at_s` seconds since the trial began.
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
    """One run of one check against one target: its verdict and everything it was judged by."""

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
    operations: tuple[Op, ...] = ()
    samples: tuple[Sample, ...] = ()
    traceback: str = ""
    notes: tuple[str, ...] = field(default=())

    @property
    def outcome(self) -> Outcome:
        return self.verdict.outcome


def encode(result: CheckResult) -> bytes:
    """Return the result as one JSON text. Values of operations that JSON cannot hold are given by their repr.

    Raises `TypeError` for any other value that JSON cannot hold.
    """
    written = replace(result, operations=tuple(map(_writable, result.operations)))
    if _is_finite(result):
        try:
            return msgspec.json.encode(written, enc_hook=_exact)
        except UnicodeEncodeError:
            pass
    # Only Python's own encoder has a notation for numbers that are not finite and for lone surrogates.
    return json.dumps(msgspec.to_builtins(written, enc_hook=_exact)).encode()


def decode(text: bytes) -> CheckResult:
    """Return the result that `encode` described. Raises `ValueError` for anything else; its message names the place."""
    try:
        try:
            return msgspec.json.decode(text, type=CheckResult)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            return msgspec.convert(json.loads(text), CheckResult)
    except (msgspec.ValidationError, RecursionError) as error:
        raise ValueError(str(error)) from error


def to_json(result: CheckResult) -> dict[str, Any]:
    """Return the result as JSON data; values of operations that JSON cannot hold are given by their repr."""
    data = asdict(result)
    for operation in data["operations"]:
        operation["value"] = _plain(operation["value"])
    return data


def from_json(data: Mapping[str, Any]) -> CheckResult:
    """Return the result that `to_json` described. Raises `KeyError` or `TypeError` for anything else."""
    verdict = data["verdict"]
    findings = tuple(
        Finding(found["anomaly"], found["sentence"], tuple(found["witness"])) for found in verdict["findings"]
    )
    return CheckResult(
        **{
            **data,
            "verdict": Verdict(Outcome(verdict["outcome"]), verdict["reason"], findings),
            "measurements": tuple(
                Measurement(**{**row, "budget": Budget(**row["budget"]) if row["budget"] else None})
                for row in data["measurements"]
            ),
            "operations": tuple(Op(**{**row, "type": OpType(row["type"])}) for row in data["operations"]),
            "samples": tuple(Sample(**row) for row in data["samples"]),
            "notes": tuple(data["notes"]),
        }
    )


def _is_finite(result: CheckResult) -> bool:
    numbers = [sample.value for sample in result.samples]
    numbers += [measured.value for measured in result.measurements]
    numbers += [measured.budget.limit for measured in result.measurements if measured.budget is not None]
    return all(map(math.isfinite, numbers))


def _writable(op: Op) -> Op:
    """The operation, with a value that JSON can hold."""
    if type(op.value) is str:
        return op
    value = _plain(op.value)
    return op if value is op.value else replace(op, value=value)


def _plain(value: Any, depth: int = 0) -> Any:
    match value:
        case None | bool():
            return value
        case str():
            return _exact(value)
        case int() if value.bit_length() <= _MOST_BITS:
            return _exact(value)
        case float() if math.isfinite(value):
            return _exact(value)
        case list() | tuple() if depth < _DEEPEST:
            return [_plain(item, depth + 1) for item in value]
        case dict() if depth < _DEEPEST:
            return {_words(str, key): _plain(item, depth + 1) for key, item in value.items()}
    return _words(repr, value)


def _exact(value: Any) -> Any:
    """A value of a subclass of str, int or float, as one of the class itself."""
    match value:
        case str():
            return str.__str__(value)
        case int():
            return int.__int__(value)
        case float():
            return float.__float__(value)
    raise TypeError(f"{value!r} is a {type(value).__name__}, which JSON cannot hold")


def _words(wording: Callable[[Any], str], value: Any) -> str:
    try:
        return str.__str__(wording(value))
    except Exception as error:
        return f"<{type(value).__name__} whose {wording.__name__} raises {type(error).__name__}>"
