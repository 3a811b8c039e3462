"""Plans of agents as graphs, and how their steps ended: pure data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from registry.agent import AgentResult
from registry.errors import InvalidIdentifier, PlanError
from registry.identity import check_id

__all__ = ["GOLDEN_PATH", "Plan", "PlanResult", "Step", "StepOutcome", "StepStatus"]


@dataclass(frozen=True, slots=True)
class Step:
    """One run of one agent. `after`: the steps that must be completed before, whose outputs it gets as parameters under
    their names. `timeout`: seconds for getting the agent and running it; None is no limit. `text`: what the agent is
    asked, "" for the plan's own request. Raises `PlanError` for a field that holds no such thing."""

    name: str
    agent_type: str
    after: tuple[str, ...] = ()
    timeout: float | None = None
    text: str = ""

    def __post_init__(self) -> None:
        try:
            check_id("step name", self.name)
            check_id("agent type", self.agent_type)
        except InvalidIdentifier as error:
            raise PlanError(str(error)) from None
        if _is_text(self.after):
            raise PlanError(f"step {self.name!r}: after={self.after!r} is a single string; pass ({self.after!r},)")
        object.__setattr__(self, "after", tuple(self.after))
        limit = self.timeout
        if limit is not None and (type(limit) not in (int, float) or not 0 < limit < math.inf):
            raise PlanError(f"step {self.name!r}: timeout={limit!r} is not a positive number of seconds, nor None")
        if not _is_text(self.text):
            raise PlanError(f"step {self.name!r}: text is a {type(self.text).__name__}; pass a str")


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps that make a graph without a cycle, in any order. Raises `PlanError`, naming every step at fault."""

    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))
        problems = _problems(self.steps)
        if problems:
            raise PlanError("; ".join(problems))


class StepStatus(StrEnum):
    """How a step ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"  # It was running when another step failed.
    SKIPPED = "skipped"  # It never began.


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """How one step ended. `started` and `finished` are the supervisor's clock, in seconds, None where it never began.
    `error` is the text of what it raised, "" where it raised nothing."""

    name: str
    agent_type: str
    status: StepStatus
    started: float | None = None
    finished: float | None = None
    result: AgentResult | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class PlanResult:
    """How every step of a plan ended, in the order of the plan."""

    outcomes: tuple[StepOutcome, ...]
    start_order: tuple[str, ...]
    finish_order: tuple[str, ...]

    def __getitem__(self, name: str) -> StepOutcome:
        """The outcome of the step of this name; `KeyError` if the plan has none."""
        for outcome in self.outcomes:
            if outcome.name == name:
                return outcome
        raise KeyError(name)

    @property
    def results(self) -> Mapping[str, AgentResult]:
        """The results of the completed steps by name."""
        return MappingProxyType({each.name: each.result for each in self.outcomes if each.result is not None})

    @property
    def outputs(self) -> Mapping[str, Any]:
        """The outputs of the completed steps by name."""
        return MappingProxyType({name: result.output for name, result in self.results.items()})


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _problems(steps: tuple[Any, ...]) -> Iterable[str]:
    """Everything that keeps the steps from being a graph that can be run."""
    problems: list[str] = []
    if not steps:
        return ["a plan without steps does nothing; pass at least one Step"]
    for step in steps:
        if not isinstance(step, Step):
            return [f"{step!r} is a {type(step).__name__}; a plan is made of Step values"]
    names = [step.name for step in steps]
    problems += [f"two steps are named {name!r}" for name in sorted(set(names)) if names.count(name) > 1]
    for step in steps:
        unknown = [name for name in step.after if name not in names]
        problems += [f"step {step.name!r} comes after {name!r}, which is no step of the plan" for name in unknown]
        problems += [
            f"step {step.name!r} names {name!r} twice" for name in set(step.after) if step.after.count(name) > 1
        ]
    cycle = [] if problems else _cycle({step.name: step.after for step in steps})
    if cycle:
        problems.append(f"the steps wait for each other: {' after '.join(map(repr, cycle))}")
    return problems


def _cycle(after: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Names along one cycle, the first repeated at the end; empty where there is none."""
    left = dict(after)
    while free := [name for name, needed in left.items() if not any(each in left for each in needed)]:
        for name in free:
            del left[name]
    if not left:
        return []
    # Every step that is left waits for another that is left, so this walk must come back to where it was.
    path = [min(left)]
    while True:
        following = next(name for name in left[path[-1]] if name in left)
        if following in path:
            return [*path[path.index(following) :], following]
        path.append(following)


GOLDEN_PATH: Final = Plan(
    (
        Step("triage", "triage"),
        Step("data_helper", "data_helper", after=("triage",)),
        Step("optimization", "optimization", after=("triage", "data_helper")),
        Step("goals_triage", "goals_triage", after=("triage", "data_helper")),
        Step("actions", "actions", after=("optimization", "goals_triage")),
        Step("reporting", "reporting", after=("data_helper", "optimization", "goals_triage", "actions")),
    )
)
"""From a user's request to the report: triage, data, then optimization beside goals, then actions, then reporting."""
