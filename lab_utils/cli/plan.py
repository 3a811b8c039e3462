"""Turns the words of a command line into a plan, or raises an error that names the fault."""

from __future__ import annotations

import argparse
import math
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lab_utils.cli.baseline import read_baseline
from lab_utils.cli.choosing import choose, share_of
from lab_utils.cli.usage import COLUMNS_HELP, take_usage, without_usage
from lab_utils.service import ALLOWED_VARIABLE, PREFIX, require_extra
from lab_utils.usage.csv_file import USAGE_VARIABLE
from lab_utils.values.profiles import (
    CATEGORIES,
    DEFAULT_PROFILE,
    PROFILES,
    Parameter,
    UsageError,
    Value,
    parameters_for,
    unknown,
)

if TYPE_CHECKING:
    from lab_utils.judges.baseline import Baseline
    from lab_utils.output.store import Run
    from lab_utils.output.store.history import History

__all__ = [
    "Plan",
    "Setting",
    "add_python",
    "add_setting",
    "environment",
    "known_checks",
    "make_plan",
    "of_target",
    "overrides_of",
    "python_of",
    "read_setting",
    "read_value",
    "target_of",
]

_TARGET: Final = "agent_registry"
_RIGHT_SERVICE: Final = "right_service"
# For a notebook that hangs outside of its checks, which have limits of their own: a machine ten times slower than usual
# must not reach it.
_LIMITS: Final[Mapping[str, float]] = {"smoke": 1_800.0, "standard": 3_600.0, "stress": 7_200.0}
# Each check that waits for its turn holds a lock file open for each that may run.
_MOST_JOBS: Final = 128


@dataclass(frozen=True, slots=True)
class Setting:
    """The judged target, checks and parameters: every name is known and every value of the right type."""

    target: str
    allow_hosts: tuple[str, ...]
    profile: str
    seed: int
    parameters: Mapping[str, Mapping[str, Value]]
    given: tuple[str, ...]
    python: str
    check_limit_s: float | None
    usage_csv: str = ""
    """The whole path of the user's own records, "" without."""

    @property
    def usage_folder(self) -> str | None:
        """The folder of the user's own records."""
        return str(Path(self.usage_csv).parent) if self.usage_csv else None

    @property
    def words(self) -> list[str]:
        """The options that say the same again, here."""
        return self._words(self.usage_csv)

    @property
    def words_for_others(self) -> list[str]:
        """The options that say the same again, without a folder of this machine."""
        return self._words(Path(self.usage_csv).name)

    def _words(self, usage_csv: str) -> list[str]:
        what = ["--target", self.target]
        if self.target.startswith(PREFIX):
            what = ["--service", self.target.removeprefix(PREFIX)]
            what += [word for host in self.allow_hosts for word in ("--allow-host", host)]
        words = ["--profile", self.profile, *what, "--seed", str(self.seed)]
        if self.python:
            words += ["--python", self.python]
        if self.check_limit_s is not None:
            words += ["--check-timeout", f"{self.check_limit_s:g}"]
        if usage_csv:
            words += ["--usage-csv", usage_csv]
        return [*words, *(word for text in self.given for word in ("--param", text))]

    @property
    def environment(self) -> dict[str, str | None]:
        """The environment variables that the processes of checks need."""
        from lab_utils.runner.runner import LIMIT_VARIABLE

        limit = None if self.check_limit_s is None else str(self.check_limit_s)
        return {
            LIMIT_VARIABLE: limit,
            ALLOWED_VARIABLE: ",".join(self.allow_hosts) or None,
            USAGE_VARIABLE: self.usage_folder,
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """The work of `run`. `checks` names the only ones to run; none for all of the categories.

    `baseline`: the known findings; `history`: where the run is kept too; `shard`: which share of the checks these are,
    as `2/3`; `resumed`: the interrupted run whose results are kept.
    """

    categories: tuple[str, ...]
    checks: tuple[str, ...]
    setting: Setting
    protects: Mapping[str, str]
    outputs: Path
    jobs: int
    limit_s: float
    calibrate: str
    baseline: Baseline | None = None
    history: History | None = None
    shard: str = ""
    resumed: Run | None = None

    @property
    def command(self) -> str:
        """The command line that does the same again, as it may be given to others."""
        words = ["registry-lab", "run", *(() if self.categories == of_target(self.setting.target) else self.categories)]
        words += [word for name in self.checks for word in ("--check", name)]
        return shlex.join([*words, *self.setting.words_for_others])


def add_setting(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that choose target, checks and parameters."""
    parser.add_argument(
        "--profile", default=DEFAULT_PROFILE, help=f"one of {', '.join(PROFILES)} (default: {DEFAULT_PROFILE})"
    )
    parser.add_argument("--target", default=_TARGET, help=f"the registry to judge (default: {_TARGET})")
    parser.add_argument("--service", metavar="FILE", help="judge the service of this file in place of a registry")
    parser.add_argument(
        *("--allow-host",),
        action="append",
        default=[],
        metavar="HOST",
        help="a host beside this machine that the service file may name; may be repeated",
    )
    add_python(parser)
    parser.add_argument(
        *("--param", "-p"),
        action="append",
        default=[],
        metavar="[CATEGORY.]NAME=VALUE",
        help="a parameter, for every category that has it or for one; may be repeated",
    )
    for name, choices in (("transport", "inprocess or websocket"), ("llm", "scripted or http")):
        parser.add_argument(f"--{name}", metavar="NAME", help=f"{choices}; the same as --param {name}=NAME")
    parser.add_argument("--usage-csv", metavar="FILE", help=f"golden_path on your own usage records; {COLUMNS_HELP}")
    parser.add_argument("--seed", type=int, help="the seed of the workloads (default: always the same)")
    parser.add_argument(
        "--check-timeout", type=float, metavar="S", help="seconds that each check may take (default: by profile)"
    )


def add_python(parser: argparse.ArgumentParser) -> None:
    """Add the argument that names the interpreter of a target's processes."""
    parser.add_argument(
        "--python",
        default="",
        metavar="PATH",
        help="the interpreter that runs the target, with its packages and cloudpickle, msgspec, psutil (default: this)",
    )


def python_of(options: argparse.Namespace) -> dict[str, str | None]:
    """The environment that has the target run by the interpreter of the options. Raises `UsageError` for none."""
    from lab_utils.runner.interpreter import PYTHON_VARIABLE, interpreter

    # Looked at before anything runs.
    interpreter(options.python)
    return {PYTHON_VARIABLE: options.python or None}


def read_setting(options: argparse.Namespace, categories: Sequence[str]) -> Setting:
    """Raises `UsageError`, naming the nearest valid name. The target is not looked at."""
    from lab_utils.runner import DEFAULT_SEED

    if options.profile not in PROFILES:
        raise UsageError(unknown("profile", options.profile, PROFILES))
    target = target_of(options)
    seed = DEFAULT_SEED if options.seed is None else options.seed
    if not 0 <= seed < 2**63:
        raise UsageError(f"--seed {seed} is not between 0 and 2**63 - 1")
    if options.check_timeout is not None:
        _seconds("--check-timeout", options.check_timeout)
    short = [f"{name}={value}" for name in ("transport", "llm") if (value := getattr(options, name)) is not None]
    given = (*options.param, *short)
    overrides = overrides_of(given, categories)
    # Before the file is read: it may be large.
    for name in categories:
        parameters_for(name, options.profile, overrides[name])
    usage_csv = take_usage(options.usage_csv, overrides)
    return Setting(
        target=target,
        allow_hosts=tuple(options.allow_host),
        profile=options.profile,
        seed=seed,
        parameters={name: parameters_for(name, options.profile, overrides[name]) for name in categories},
        given=without_usage(given),
        python=options.python,
        check_limit_s=options.check_timeout,
        usage_csv=usage_csv,
    )


def target_of(options: argparse.Namespace) -> str:
    """The target that is named. Raises `UsageError` for one of each kind, and for a service file with a problem."""
    if options.service is None:
        if options.allow_host:
            raise UsageError("--allow-host is for a service file; add --service FILE")
        return str(options.target)
    if options.target != _TARGET:
        raise UsageError(f"--service {options.service}: --target {options.target} is given too; leave one of them out")
    require_extra()
    from lab_utils.service.file import read_service

    read_service(options.service, allowed_hosts=options.allow_host)
    return f"{PREFIX}{options.service}"


def of_target(target: str) -> tuple[str, ...]:
    """The categories that judge a target of its kind: a service, or a registry."""
    is_service = target.startswith(PREFIX) or target == _RIGHT_SERVICE
    return tuple(name for name, category in CATEGORIES.items() if category.of_services == is_service)


def make_plan(options: argparse.Namespace) -> Plan:
    """Raises `UsageError`, naming the nearest valid name, before anything has run."""
    for name in options.categories:
        if name not in CATEGORIES:
            raise UsageError(unknown("category", name, CATEGORIES))
    outputs = _writable("--out", options.out)
    if not 1 <= options.jobs <= _MOST_JOBS:
        raise UsageError(f"--jobs {options.jobs} is not between 1 and {_MOST_JOBS}")
    resumed = choose(options)
    checks = known_checks(options.checks, of_services=options.service is not None)
    target = target_of(options)
    categories = _chosen(options.categories, checks, target)
    if options.shard is not None:
        checks = known_checks(share_of(options.shard, checks or _all_of(categories)))
        categories = _chosen((), checks, target)
    setting = read_setting(options, categories)
    limit_s = _LIMITS[setting.profile] if options.timeout is None else options.timeout
    _seconds("--timeout", limit_s)
    from lab_utils.runner import calibrations, capabilities_of

    calibrate = calibrations.calibration_mode(options.calibrate)
    protects = _protects(options.protects)
    history = _history(options.history)
    baseline = None
    if options.baseline:
        wanted = checks or _all_of(categories)
        baseline = read_baseline(options.baseline, outputs, history, like=setting, checks=wanted)
    with environment(**setting.environment):
        capabilities_of(setting.target, limit_s=setting.check_limit_s)
    return Plan(
        categories=categories,
        checks=checks,
        setting=setting,
        protects=protects,
        outputs=outputs,
        jobs=options.jobs,
        limit_s=limit_s,
        calibrate=calibrate,
        baseline=baseline,
        history=history,
        shard=options.shard or "",
        resumed=resumed,
    )


def known_checks(names: Iterable[str], *, of_services: bool = False) -> tuple[str, ...]:
    """The checks that are named, each once, in the order of the notebooks. Raises `UsageError` for any other name; it
    lists those of services alone, where a service is judged."""
    wanted = list(names)
    if not wanted:
        return ()
    from lab_utils.checks import CHECKS

    for name in wanted:
        if name in CATEGORIES:
            raise UsageError(f"{name!r} is a category, not a check: registry-lab run {name}")
        if name not in CHECKS:
            suited = {one: check for one, check in CHECKS.items() if CATEGORIES[check.category].of_services}
            raise UsageError(unknown("check", name, suited if of_services else CHECKS))
    return tuple(name for category in CATEGORIES for name in CHECKS if name in wanted and _of(name) == category)


def _all_of(categories: Iterable[str]) -> tuple[str, ...]:
    from lab_utils.checks import CHECKS

    return known_checks(name for name, check in CHECKS.items() if check.category in categories)


def _history(where: str | None) -> History | None:
    if where is None:
        return None
    if "://" not in where:
        _writable("--history", where)
    from lab_utils.output.store import StoreError
    from lab_utils.output.store.history import open_history

    try:
        history = open_history(where)
        # A place that cannot be read is said before anything runs, and not after.
        history.runs()
    except StoreError as error:
        raise UsageError(f"--history: {error}") from error
    return history


def _of(check: str) -> str:
    from lab_utils.checks import CHECKS

    return CHECKS[check].category


def _chosen(named: Sequence[str], checks: Sequence[str], target: str) -> tuple[str, ...]:
    """The categories to run, in the order of the notebooks, each once, whatever the order of the words."""
    have = {_of(name): name for name in checks}
    for category in named if checks else ():
        if category not in have:
            raise UsageError(f"none of the checks asked for is of {category}; leave it out, or add one of its checks")
    for category, name in have.items():
        if named and category not in named:
            raise UsageError(f"--check {name}: its category {category} is not among the categories to run")
    return tuple(name for name in CATEGORIES if name in (named or have or of_target(target)))


def _seconds(option: str, given: float) -> None:
    if not (math.isfinite(given) and given > 0):
        raise UsageError(f"{option} {given:g}: give a number of seconds above 0")


def _writable(option: str, text: str) -> Path:
    """The folder that an option names, which is there or can be made."""
    if not text:
        raise UsageError(f"{option} is empty; give the path of a folder")
    path = Path(text)
    try:
        # Its name stands in reports, and not every file system takes every name.
        os.fsencode(path).decode()
        there = next(one for one in (path.absolute(), *path.absolute().parents) if one.exists())
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{option} {text}: {getattr(error, 'strerror', None) or error}; name another folder"
        ) from error
    if not there.is_dir():
        raise UsageError(f"{option} {text}: {there} is not a folder; name another one")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"{option} {text}: nothing can be written to {there}; name another folder")
    return path


@contextmanager
def environment(**names: str | None) -> Iterator[None]:
    """While inside, this process and those below it have these environment variables; None leaves one as it is."""
    given = {name: text for name, text in names.items() if text is not None}
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _protects(path: Path | None) -> dict[str, str]:
    if path is None:
        return {}
    from lab_utils.checks import CHECKS
    from lab_utils.notebook.protects import read_protects
    from lab_utils.trial import PROTECTS

    return read_protects(path, (*CHECKS, *PROTECTS))


def overrides_of(given: Sequence[str], chosen: Sequence[str], option: str = "--param") -> dict[str, dict[str, Value]]:
    """The values that the texts `[category.]name=value` set, by category. Raises `UsageError`, naming the nearest valid
    name."""
    found: dict[str, dict[str, Value]] = {name: {} for name in chosen}
    for text in given:
        full, equals, value = text.partition("=")
        if not equals or not full:
            raise UsageError(f"{option} {text!r}: write name=value or category.name=value")
        category, dot, name = full.rpartition(".")
        if dot and category not in CATEGORIES:
            raise UsageError(unknown("category", category, CATEGORIES))
        if dot and category not in chosen:
            raise UsageError(f"{option} {text!r}: {category} is not among the categories to run")
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
    if kind is int and re.fullmatch(r"-?(0|[1-9][0-9]{0,99})", text):
        return int(text)
    if kind is float and re.fullmatch(r"-?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?", text) and math.isfinite(float(text)):
        return float(text)
    if kind is str:
        return text
    examples = {bool: "true or false", int: f"a whole number such as {parameter.smoke}", float: "a number such as 0.5"}
    raise UsageError(f"parameter {parameter.name}={text!r} ({parameter.unit}): write {examples[kind]}")
