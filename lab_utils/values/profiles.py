"""Every parameter of every category, with its unit and its value in each profile."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from types import MappingProxyType
from typing import Final

__all__ = [
    "CATEGORIES",
    "DEFAULT_PROFILE",
    "PROFILES",
    "Category",
    "Parameter",
    "UsageError",
    "Value",
    "parameters_for",
]

Value = int | float | str | bool
"""The value of a parameter."""
PROFILES: Final = ("smoke", "standard", "stress")
DEFAULT_PROFILE: Final = "smoke"


class UsageError(ValueError):
    """A name or value from the caller is invalid; the message names the nearest valid one."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a category: its unit, its lowest and highest sensible value, and its value in each profile.

    A text is one of `choices`, where there are any. One that does not `calibrates` has its profile's value where a
    check runs on planted registries.
    """

    name: str
    unit: str
    smoke: Value
    standard: Value
    stress: Value
    least: float = 1
    meaning: str = ""
    choices: tuple[str, ...] = ()
    calibrates: bool = True
    highest: float = 0
    """0 stands for a hundred times the largest of the profiles."""

    @property
    def most(self) -> float:
        """The highest value that is not a slip of the keys."""
        of_profiles = [self.value(name) for name in PROFILES]
        return self.highest or 100 * max(float(value) for value in of_profiles if not isinstance(value, str))

    def value(self, profile: str) -> Value:
        """This parameter's value in a profile."""
        values: Mapping[str, Value] = {"smoke": self.smoke, "standard": self.standard, "stress": self.stress}
        return values[profile]


@dataclass(frozen=True, slots=True)
class Category:
    """One category of checks: its notebook, its parameters, and how long it takes beside the others in smoke.

    `of_services`: whether its checks judge services behind a URL, and not registries.
    """

    name: str
    notebook: str
    question: str
    parameters: tuple[Parameter, ...]
    weight: int = 1
    of_services: bool = False


_MOST_LETTERS: Final = 400
"""The most letters of the names that a message lists."""
_TRANSPORT = Parameter(
    *("transport", "name", "websocket", "websocket", "websocket"),
    meaning="how events reach clients: inprocess, or websocket where the target can serve them",
    choices=("inprocess", "websocket"),
)
_LLM = Parameter(
    *("llm", "name", "scripted", "http", "http"),
    meaning="the source of the agents' texts: scripted, or http where the target can ask an endpoint",
    choices=("scripted", "http"),
)
_PATIENCE = Parameter(
    *("patience", "seconds", 30, 30, 30),
    meaning="an operation that lasts longer, while nothing else moves, is a finding",
    calibrates=False,
    highest=86_400,
)

_CATEGORIES = (
    Category(
        "user_isolation",
        "01_user_isolation.ipynb",
        "Can one user's data reach another user?",
        (
            Parameter("users", "users", 8, 20, 1_000, 2, "users at once"),
            Parameter("agents_per_user", "agents", 4, 10, 10, 1, "agents of each user"),
            Parameter("cycles", "cycles", 6, 10, 12, 4, "fill-and-end cycles in the leak check"),
            _PATIENCE,
        ),
        weight=5,
    ),
    Category(
        "registration_management",
        "02_registration_management.ipynb",
        "Is every agent registered, found, used and closed exactly as asked?",
        (
            Parameter("users", "users", 6, 20, 1_000, 2, "users at once"),
            Parameter("threads", "threads", 3, 3, 5, 2, "conversation threads of each user"),
            Parameter("racers", "callers", 8, 20, 50, 2, "callers that race for one agent"),
            Parameter(
                "deviations",
                "deviations",
                2,
                3,
                3,
                0,
                "from asyncio's order: every schedule of up to so many",
                highest=9,
            ),
            _PATIENCE,
        ),
        weight=3,
    ),
    Category(
        "websocket_bridge",
        "03_websocket_bridge.ipynb",
        "Does each user receive exactly their own events?",
        (
            Parameter("users", "users", 25, 25, 1_000, 2, "users at once"),
            Parameter("runs_per_user", "runs", 4, 10, 10, 1, "agent runs of each user"),
            Parameter("reconnects", "reconnects", 3, 10, 10, 1, "times each client drops and comes back"),
            _TRANSPORT,
            _PATIENCE,
        ),
        weight=7,
    ),
    Category(
        "enterprise_multi_user",
        "04_enterprise_multi_user.ipynb",
        "Do many tenants at once stay correct, private and undelayed?",
        (
            Parameter("users", "users", 25, 25, 1_000, 6, "users at once; at least two in each of three tiers"),
            Parameter("operations_per_user", "operations", 8, 20, 20, 2, "updates of each user's agent"),
            Parameter("records_per_user", "records", 20, 200, 200, 5, "usage records of each user"),
            _TRANSPORT,
            _LLM,
            _PATIENCE,
        ),
        weight=3,
    ),
    Category(
        "golden_path",
        "05_golden_path.ipynb",
        "Does every user's whole flow end in the right figures?",
        (
            Parameter("users", "users", 5, 25, 200, 2, "users at once"),
            Parameter("records_per_user", "records", 60, 1_000, 1_000, 10, "usage records of each user"),
            _TRANSPORT,
            _LLM,
            Parameter(
                *("usage_csv", "path", "", "", ""),
                meaning="your own usage records, a CSV file; empty: made-up ones",
                calibrates=False,
            ),
            _PATIENCE,
        ),
        weight=4,
    ),
    Category(
        "memory_management",
        "06_memory_resources.ipynb",
        "Does the registry give back everything it took?",
        (
            Parameter("users", "users", 25, 25, 1_000, 2, "users at once"),
            Parameter("operations_per_user", "operations", 15, 15, 15, 1, "operations of each user"),
            Parameter("cycles", "cycles", 10, 10, 20, 4, "cycles of the long-running session that are shown"),
            Parameter("operations_per_cycle", "operations", 20, 20, 20, 1, "operations in each cycle"),
            Parameter("long_cycles", "cycles", 60, 300, 1_000, 10, "cycles over which the slope is judged"),
            Parameter("interruptions", "interruptions", 200, 200, 500, 2, "times that one call is interrupted"),
            _PATIENCE,
        ),
        weight=8,
    ),
    Category(
        "limits_and_time",
        "07_limits_and_time.ipynb",
        "Does each limit hold for the right user, and does each session end when it is due?",
        (
            Parameter("users", "users", 40, 40, 1_000, 2, "users who are at their own limit at once"),
            Parameter("agents_per_user", "agents", 4, 10, 50, 2, "that one user may have"),
            Parameter("places", "users", 5, 25, 100, 3, "that may be there at once"),
            Parameter("racers", "callers", 8, 20, 50, 2, "callers that race for the last place"),
            Parameter("refusals", "attempts", 50, 200, 1_000, 1, "in a full house, and each leaves nothing"),
            _PATIENCE,
        ),
        weight=2,
    ),
    Category(
        "service",
        "11_services.ipynb",
        "Does a server behind a URL keep its users apart?",
        (
            Parameter("users", "users", 4, 8, 50, 2, "users at once"),
            Parameter("requests_per_user", "requests", 6, 20, 50, 2, "requests of each user under way at once"),
            Parameter("burst", "requests", 30, 100, 500, 10, "requests of one user's burst"),
            Parameter("cycles", "cycles", 6, 12, 30, 6, "cycles of users who come, work and leave, for each slope"),
            Parameter("payload_kb", "kB", 256, 256, 256, 1, "written by each user in a cycle"),
            _PATIENCE,
        ),
        weight=6,
        of_services=True,
    ),
)
CATEGORIES: Final[Mapping[str, Category]] = MappingProxyType({category.name: category for category in _CATEGORIES})


def parameters_for(category: str, profile: str, overrides: Mapping[str, object] | None = None) -> dict[str, Value]:
    """Return the category's parameters in a profile with the overrides applied.

    Raises `UsageError` for an unknown category, profile or parameter, a wrong type, and a value below the least or
    above the most.
    """
    if category not in CATEGORIES:
        raise UsageError(unknown("category", category, CATEGORIES))
    if profile not in PROFILES:
        raise UsageError(unknown("profile", profile, PROFILES))
    known = {parameter.name: parameter for parameter in CATEGORIES[category].parameters}
    values = {name: parameter.value(profile) for name, parameter in known.items()}
    for name, value in (overrides or {}).items():
        if name not in known:
            raise UsageError(f"{unknown('parameter', name, known)} (category {category})")
        parameter = known[name]
        expected = type(parameter.smoke)
        # bool is an int to Python, but a person never means it as one.
        if type(value) is not expected:
            raise UsageError(f"parameter {name}={value!r} is of type {type(value).__name__}; pass {expected.__name__}")
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            if value < parameter.least:
                raise UsageError(f"parameter {name}={value!r} is below {parameter.least:g} {parameter.unit}")
            if value > parameter.most:
                raise UsageError(f"parameter {name}={value!r} is above {parameter.most:,.0f} {parameter.unit}")
        if parameter.choices and value not in parameter.choices:
            raise UsageError(unknown(name, value, parameter.choices))
        values[name] = value
    return values


def unknown(kind: str, value: object, known: Mapping[str, object] | tuple[str, ...]) -> str:
    """Return the message for an unknown name, with the valid ones, as many as fit in a few lines, and the nearest."""
    names = sorted(known)
    near = [name for name in names if value and name.startswith(str(value))][:1]
    near = near or difflib.get_close_matches(str(value), names, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    fits = sum(length <= _MOST_LETTERS for length in accumulate(len(name) + 2 for name in names))
    more = f", and {len(names) - fits} more, see `registry-lab list`" if fits < len(names) else ""
    return f"unknown {kind} {value!r}; known: {', '.join(names[:fits])}{more}{hint}"
