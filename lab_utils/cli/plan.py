"""Turns the words of a command line into a plan, or says what is wrong with them."""

from __future__ import annotations

import argparse
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lab_utils.checks import CHECKS
from lab_utils.cli.usage import take_usage, without_usage
from lab_utils.runner import DEFAULT_SEED, capabilities_of
from lab_utils.runner.calibrations import calibration_mode
from lab_utils.trial import PROTECTS
from lab_utils.values.profiles import CATEGORIES, PROFILES, Parameter, UsageError, parameters_for, unknown

__all__ = ["Plan", "make_plan", "read_value"]

Value = int | float | str | bool
# Far beyond what each profile needs on two busy cores: a limit is for what hangs.
_LIMITS: Final[Mapping[str, float]] = {"smoke": 600.0, "standard": 1_800.0, "stress": 7_200.0}


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to run: every name in it is known and every value of the right type."""

    categories: tuple[str, ...]
    profile: str
    target: str
    seed: int
    parameters: Mapping[str, Mapping[str, Value]]
    given: tuple[str, ...]
    protects: Mapping[str, str]
    outputs: Path
    jobs: int
    limit_s: float
    calibrate: str

    @property
    def command(self) -> str:
        """The command line that does the same again."""
        words = ["registry-lab", "run", *(() if self.categories == tuple(CATEGORIES) else self.categories)]
        words += ["--profile", self.profile, "--target", self.target, "--seed", str(self.seed)]
        if usage := self.parameters.get("golden_path", {}).get("usage_csv"):
            words += ["--usage-csv", str(usage)]
        return shlex.join([*words, *(word for text in self.given for word in ("--param", text))])


def make_plan(options: argparse.Namespace) -> Plan:
    """Raises `UsageError`, naming the nearest valid name, before anything has run."""
    for name in options.categories:
        if name not in CATEGORIES:
            raise UsageError(unknown("category", name, CATEGORIES))
    # In the order of the notebooks, each once, whatever the order of the words.
    chosen = tuple(name for name in CATEGORIES if not options.categories or name in options.categories)
    if options.profile not in PROFILES:
        raise UsageError(unknown("profile", options.profile, PROFILES))
    capabilities_of(options.target)
    seed = DEFAULT_SEED if options.seed is None else options.seed
    if not 0 <= seed < 2**63:
        raise UsageError(f"--seed {seed} is not between 0 and 2**63 - 1")
    if options.jobs < 1:
        raise UsageError(f"--jobs {options.jobs}: at least one check must run")
    limit_s = _LIMITS[options.profile] if options.timeout is None else options.timeout
    if not (math.isfinite(limit_s) and limit_s > 0):
        raise UsageError(f"--timeout {limit_s:g}: give a number of seconds above 0")
    short = [f"{name}={value}" for name in ("transport", "llm") if (value := getattr(options, name)) is not None]
    given = (*options.param, *short)
    overrides = _overrides(given, chosen)
    take_usage(options.usage_csv, overrides)
    return Plan(
        categories=chosen,
        profile=options.profile,
        target=options.target,
        seed=seed,
        parameters={name: parameters_for(name, options.profile, overrides[name]) for name in chosen},
        given=without_usage(given),
        protects=_protects(options.protects),
        outputs=options.out,
        jobs=options.jobs,
        limit_s=limit_s,
        calibrate=calibration_mode(options.calibrate),
    )


def _protects(path: Path | None) -> dict[str, str]:
    if path is None:
        return {}
    from lab_utils.notebook.protects import read_protects

    return read_protects(path, (*CHECKS, *PROTECTS))


def _overrides(given: Sequence[str], chosen: Sequence[str]) -> dict[str, dict[str, Value]]:
    found: dict[str, dict[str, Value]] = {name: {} for name in chosen}
    for text in given:
        full, equals, value = text.partition("=")
        if not equals or not full:
            raise UsageError(f"--param {text!r}: write name=value or category.name=value")
        category, dot, name = full.rpartition(".")
        if dot and category not in CATEGORIES:
            raise UsageError(unknown("category", category, CATEGORIES))
        if dot and category not in chosen:
            raise UsageError(f"--param {text!r}: {category} is not among the categories to run")
        known = {one: _parameters(one) for one in ([category] if dot else chosen)}
        takers = [one for one, parameters in known.items() if name in parameters]
        if not takers:
            every = tuple(dict.fromkeys(known_name for parameters in known.values() for known_name in parameters))
            raise UsageError(unknown("parameter", name, every))
        for one in takers:
            found[one][name] = read_value(known[one][name], value)
    return found


def _parameters(category: str) -> dict[str, Parameter]:
    return {parameter.name: parameter for parameter in CATEGORIES[category].parameters}


def read_value(parameter: Parameter, text: str) -> Value:
    """Return the text as a value of the parameter's own type. Raises `UsageError` for any other."""
    kind = type(parameter.smoke)
    if kind is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    # 007 may be a name or an octal number of somebody's; it is not a number that a person would type for 7.
    if kind is int and re.fullmatch(r"-?(0|[1-9][0-9]*)", text):
        return int(text)
    if kind is float and re.fullmatch(r"-?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?", text) and math.isfinite(float(text)):
        return float(text)
    if kind is str:
        return text
    examples = {bool: "true or false", int: f"a whole number such as {parameter.smoke}", float: "a number such as 0.5"}
    raise UsageError(f"parameter {parameter.name}={text!r} ({parameter.unit}): write {examples[kind]}")
