"""What one run of one check leaves: pure data, JSON in and out, so that it crosses a kernel's border unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from lab_utils.values.history import Op, OpType
from lab_utils.values.verdict import Finding, Outcome, Verdict

__all__ = ["Budget", "CheckResult", "Measurement", "Sample", "from_json", "to_json"]

Comparison = Literal["<=", "<", ">=", ">", "=="]


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


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return repr(value)
