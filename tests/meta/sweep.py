"""Runs the checks on targets that lack capabilities: each set of them only where it can make a difference.

As a program, in a process of its own (a test session's million objects would be counted with every check): the file
that takes the results, the first check of every second one, "singles" or "adapters", the base, and the capabilities to
do without, if not each in turn; or "one", and the path of a target's class.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

from lab_utils.checks import CHECKS
from lab_utils.checks.isolation.exploration import Exploration
from lab_utils.checks.memory import incidents, leak_hunt
from lab_utils.checks.registration import absent, keys
from lab_utils.runner import run_check
from lab_utils.target import Capability
from lab_utils.targets import TARGETS
from lab_utils.values.profiles import CATEGORIES
from tests.meta.lesser import Lesser, named

__all__ = ["ADAPTERS", "OF_REGISTRIES", "Swept", "adapters", "capabilities_of", "one", "singles"]

_PARAMETERS: Mapping[str, Mapping[str, int | str]] = MappingProxyType(
    {
        "user_isolation": {"users": 3, "agents_per_user": 2, "cycles": 4},
        "registration_management": {"users": 2, "threads": 2, "racers": 3, "deviations": 0},
        "websocket_bridge": {"users": 4, "runs_per_user": 1, "reconnects": 1, "transport": "inprocess"},
        "enterprise_multi_user": {
            "users": 6,
            "operations_per_user": 2,
            "records_per_user": 5,
            "transport": "inprocess",
            "llm": "scripted",
        },
        "golden_path": {"users": 2, "records_per_user": 10, "transport": "inprocess", "llm": "scripted"},
        "memory_management": {
            "users": 3,
            "operations_per_user": 10,
            "cycles": 4,
            "operations_per_cycle": 2,
            "long_cycles": 10,
            "interruptions": 2,
        },
        "limits_and_time": {"users": 20, "agents_per_user": 3, "places": 3, "racers": 3, "refusals": 5},
    }
)

_C = Capability
ADAPTERS = tuple(
    frozenset(has)
    for has in (
        (_C.END,),
        (_C.CREATE_ANEW, _C.END),
        (_C.LOOKUP, _C.END, _C.POPULATION),
        (_C.GET_OR_CREATE, _C.END, _C.POPULATION),
        (_C.REMOVE, _C.END),
        (_C.CREATE_ANEW, _C.EVENTS, _C.END, _C.POPULATION, _C.REMOVE),
        (_C.CREATE_ANEW, _C.TOOLS, _C.CONTEXT_DATA, _C.EVENTS, _C.END),
    )
)
"""The capabilities of an adapter that somebody writes in an hour."""


@dataclass(frozen=True, slots=True)
class Swept:
    """How one check went on a target that lacks these."""

    check: str
    lacks: tuple[str, ...]
    outcome: str
    anomalies: tuple[str, ...]
    text: str
    asked_about: tuple[str, ...]


OF_REGISTRIES = tuple(name for name, check in CHECKS.items() if not CATEGORIES[check.category].of_services)


def capabilities_of(base: str) -> frozenset[Capability]:
    """The capabilities of the target of this name."""
    return TARGETS[base]().capabilities


def singles(base: str, *only: str, checks: Iterable[str]) -> Iterator[Swept]:
    """Every check on the whole target, and without each capability (of these) that it had to do with. One of the
    reference's is tried on another target where the check asks for more than the reference can do."""
    tried = capabilities_of(base) & frozenset(only or Capability)
    # Every trial asks whether there is a model.
    more = capabilities_of(base) - capabilities_of("reference") - {Capability.MODEL}
    for check in checks:
        whole, asked = _run(base, check, frozenset())
        yield whole
        of_here = asked & tried if base == "reference" or asked & more else asked & tried - capabilities_of("reference")
        for one in sorted(of_here):
            yield _run(base, check, frozenset({one}))[0]


def adapters(base: str, *, checks: Iterable[str]) -> Iterator[Swept]:
    """Every check on targets that can do nothing but each of `ADAPTERS`."""
    has = capabilities_of(base)
    for check in checks:
        known: list[tuple[frozenset[Capability], frozenset[Capability]]] = []
        for can in ADAPTERS:
            lacks = has - can
            # A run that asked for nothing in which this one differs was the same run.
            if any(lacks & asked == lacked for asked, lacked in known):
                continue
            swept, asked = _run(base, check, lacks)
            known.append((asked, lacks & asked))
            yield swept


def one(target: str, *, checks: Iterable[str]) -> Iterator[Swept]:
    """Every check on the target of this path."""
    for check in checks:
        yield _tried(check, target, _PARAMETERS[CHECKS[check].category], ())


def _run(base: str, check: str, lacks: frozenset[Capability]) -> tuple[Swept, frozenset[Capability]]:
    Lesser.asked.clear()
    Lesser.asked_about.clear()
    parameters = dict(_PARAMETERS[CHECKS[check].category])
    if base == "agent_registry" and not lacks:
        # Once over real sockets, for which a check asks about more.
        parameters.pop("transport", None)
    swept = _tried(check, named(base, lacks), parameters, lacks)
    return swept, frozenset(Lesser.asked)


def _tried(check: str, target: str, parameters: Mapping[str, int | str], lacks: Iterable[Capability]) -> Swept:
    # Left out of collections: each of a check's would walk through all imports.
    gc.collect()
    gc.freeze()
    # In this process, where the requests to the target can be seen.
    result = run_check(check, target=target, parameters=parameters, in_process=True)
    text = "\n".join([result.verdict.reason, *map(str, result.verdict.findings[:2]), result.traceback])
    anomalies = tuple(sorted({finding.anomaly for finding in result.verdict.findings}))
    about = tuple(sorted(Lesser.asked_about))
    return Swept(check, tuple(sorted(lacks)), str(result.outcome), anomalies, text, about)


if __name__ == "__main__":
    # Each question is asked of each target, but a few times: what is asked for here is which ones can be.
    Exploration.own_s = 0.0
    Exploration.besides = lambda self, call: ("nobody", "after")  # type: ignore[method-assign]
    absent._OFTEN = absent._LEAST
    keys.SEPARATORS = keys.SEPARATORS[:2]  # type: ignore[assignment]
    # Interruptions keep their warm-up: after fewer cycles memory still rises by some bytes, and nothing is decided.
    incidents._WARM_UPS, leak_hunt._LEAST_CYCLES = 6, 6
    _ways = {"singles": singles, "adapters": adapters, "one": one}
    _file, _first, _way, *_arguments = sys.argv[1:]
    _found = _ways[_way](*_arguments, checks=OF_REGISTRIES[int(_first) :: 2])
    Path(_file).write_text(json.dumps([asdict(one) for one in _found]), encoding="utf-8")
