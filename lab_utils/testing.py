"""The checks as tests of somebody's own pytest suite: `parametrize_with_checks`, and `pytest --lab-target`.

This module is also the pytest plugin, which every pytest of an environment imports: so it imports the lab only at the
point of use.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import pytest

if TYPE_CHECKING:
    from lab_utils.runner import AnyTarget
    from lab_utils.values.result import CheckResult
    from lab_utils.values.verdict import Finding

__all__ = ["FindingsError", "NoVerdictError", "TargetCheck", "checks_of", "parametrize_with_checks"]

Test = TypeVar("Test", bound=Callable[..., Any])

MARKERS: Final = {
    "agent_registry_integration": "a check of the agent registry lab",
    "enterprise_critical": "a failure here would expose a customer's data",
    "user_isolation": "can one user's data reach another user?",
    "registration_management": "agents created, found, closed, each exactly once",
    "websocket_bridge": "events reach their own user, in order, and nobody else",
    "enterprise_multi_user": "many tenants working at once",
    "golden_path": "a whole orchestration, from a user's request to the report",
    "memory_management": "the memory that a registry takes, and whether it gives it back",
    "limits_and_time": "limits hold for whom they are meant, and endings come when they are due",
    "service": "a server behind a URL, judged from outside",
}
"""The markers of the tests: their category and their special needs."""

_SLOTS: Final = pytest.StashKey[Path]()
_MOST_ALIKE: Final = 2
_MOST_WITNESSES: Final = 12
_MOST_LETTERS: Final = 2_000


class FindingsError(AssertionError):
    """A check found something; the text is the findings with their witnesses."""


class NoVerdictError(Exception):
    """A check came to no verdict: it exercised nothing, or crashed. It is neither a pass nor an expected failure."""


@dataclass(frozen=True, slots=True)
class TargetCheck:
    """One check on one target. Calling it runs the check in a process of its own, and raises unless it passes.

    `in_process=True` runs it in the process of the tests, where a debugger sees it.
    """

    name: str
    target: AnyTarget = field(repr=False)
    profile: str
    seed: int
    parameters: Mapping[str, int | float | str | bool] = field(repr=False)

    def __str__(self) -> str:
        return self.name

    def __call__(self, *, in_process: bool = False) -> CheckResult:
        """Return the result of a pass. Raises `FindingsError` or `NoVerdictError`; no planted registry is run."""
        __tracebackhide__ = True
        from lab_utils.runner import run_check
        from lab_utils.values.profiles import CATEGORIES

        category = CATEGORIES[self._category()]
        known = {parameter.name for parameter in category.parameters}
        result = run_check(
            self.name,
            target=self.target,
            profile=self.profile,
            seed=self.seed,
            parameters={name: value for name, value in self.parameters.items() if name in known},
            in_process=in_process,
        )
        if result.outcome == "PASS":
            return result
        if result.outcome == "FAIL":
            raise FindingsError(_told(result, _spec(self.target)))
        raise NoVerdictError(_told(result, _spec(self.target)))

    def _category(self) -> str:
        from lab_utils.checks import CHECKS

        return CHECKS[self.name].category


def _spec(target: AnyTarget) -> str:
    """How the command line names a target, or "" where it has no name there, as one that a function made."""
    if isinstance(target, str):
        return target
    module, name = getattr(target, "__module__", ""), getattr(target, "__qualname__", "")
    return f"{module}:{name}" if name.isidentifier() and module != "__main__" else ""


def _told(result: CheckResult, spec: str) -> str:
    """A result as a person reads it, in the order of the reader's questions; a target's text cannot move a cursor."""
    from lab_utils.judges.remedies import REMEDIES
    from lab_utils.values.quantities import counted
    from lab_utils.values.texts import shown

    lines = [f"{result.outcome} {result.check} on {result.target}: {result.verdict.reason}"]
    groups: dict[str, list[Finding]] = {}
    for finding in result.verdict.findings:
        groups.setdefault(finding.anomaly, []).append(finding)
    for anomaly, alike in groups.items():
        for finding in alike[:_MOST_ALIKE]:
            lines += ["", f"{anomaly}: {finding.sentence}"]
            lines += [f"    {line}" for line in finding.witness[:_MOST_WITNESSES]]
            if (more := len(finding.witness) - _MOST_WITNESSES) > 0:
                lines.append(f"    and {counted(more, 'more line')}")
        if (more := len(alike) - _MOST_ALIKE) > 0:
            lines.append(f"and {more} more {anomaly}")
        if anomaly in REMEDIES:
            lines.append(f"remedy: {REMEDIES[anomaly].action}")
    lines += [f"note: {note}" for note in result.notes if result.outcome != "FAIL"]
    if result.traceback:
        lines += ["", result.traceback]
    seed = f"--profile {result.profile} --seed {result.seed}"
    lines += ["", f"again: registry-lab check {result.check} --target {spec} {seed}"] if spec else []
    return "\n".join(shown(one, _MOST_LETTERS) for line in lines for one in line.split("\n"))


def checks_of(
    target: AnyTarget,
    *,
    checks: Sequence[str] = (),
    profile: str = "smoke",
    seed: int | None = None,
    parameters: Mapping[str, int | float | str | bool] | None = None,
) -> Iterator[TargetCheck]:
    """Yield each check that applies to the target, in the order of the notebooks.

    `target`: a class or factory of one, or its import path. `checks`: the only ones wanted; one that does not apply is
    an error. `parameters` go to the checks that have them. Raises `UsageError` for a target that does not fit, and for
    an unknown name.
    """
    from lab_utils.checks import CHECKS
    from lab_utils.runner import DEFAULT_SEED, target_name
    from lab_utils.target import Capability
    from lab_utils.targets import target_factory
    from lab_utils.targets.loading import problems_of
    from lab_utils.values.profiles import CATEGORIES, PROFILES, UsageError, parameters_for, unknown

    name = target_name(target)
    made = target_factory(target)() if isinstance(target, str) else target()
    if problems := problems_of(made):
        raise UsageError(f"target {name!r} does not fit lab_utils.target.Target:\n  " + "\n  ".join(problems))
    if profile not in PROFILES:
        raise UsageError(unknown("profile", profile, PROFILES))
    given = dict(parameters or {})
    known = {one.name for category in CATEGORIES.values() for one in category.parameters}
    for one in given:
        if one not in known:
            raise UsageError(unknown("parameter", one, tuple(sorted(known))))
    for one in checks:
        if one not in CHECKS:
            raise UsageError(unknown("check", one, CHECKS))
        if lacks := CHECKS[one].lacking(made.capabilities):
            raise UsageError(f"check {one!r} does not apply to {name!r}, which lacks {', '.join(sorted(lacks))}")
    is_service = Capability.SERVICE in made.capabilities
    for check in CHECKS.values():
        is_of_its_kind = CATEGORIES[check.category].of_services == is_service
        if is_of_its_kind and not check.lacking(made.capabilities) and (not checks or check.name in checks):
            of_category = {parameter.name for parameter in CATEGORIES[check.category].parameters}
            parameters_for(check.category, profile, {key: given[key] for key in of_category & given.keys()})
            yield TargetCheck(check.name, target, profile, DEFAULT_SEED if seed is None else seed, given)


def parametrize_with_checks(
    *targets: AnyTarget,
    expected_failures: Mapping[str, str] | None = None,
    checks: Sequence[str] = (),
    profile: str = "smoke",
    seed: int | None = None,
    parameters: Mapping[str, int | float | str | bool] | None = None,
) -> Callable[[Test], Test]:
    """Make a test of each check that applies to the targets; the test takes it as the argument `check` and calls it.

    `expected_failures`: the name of a check and the reason why it fails today. It runs all the same: findings are
    reported as `xfail` with the reason, and a pass fails the test, so that the entry is removed. A name that is of no
    test is an error. Each test has the markers of its check. For the other arguments see `checks_of`.
    """
    from lab_utils.checks import CHECKS
    from lab_utils.runner import target_name
    from lab_utils.values.profiles import UsageError, unknown

    if not targets:
        raise UsageError("parametrize_with_checks needs a target: a class, a factory, or 'package.module:Name'")
    expected = dict(expected_failures or {})
    made: list[Any] = []
    met: set[str] = set()
    for target in targets:
        for one in checks_of(target, checks=checks, profile=profile, seed=seed, parameters=parameters):
            met.add(one.name)
            marks = [getattr(pytest.mark, marker) for marker in sorted(CHECKS[one.name].markers)]
            if one.name in expected:
                marks.append(pytest.mark.xfail(reason=expected[one.name], strict=True, raises=FindingsError))
            short = one.name if len(targets) == 1 else f"{target_name(target)}-{one.name}"
            made.append(pytest.param(one, marks=marks, id=short))
    for name in expected:
        if name not in met:
            raise UsageError(f"expected_failures: {unknown('check of these targets', name, tuple(sorted(met)))}")
    return pytest.mark.parametrize("check", made)


# ------------------------------------------------------------------------------------------------- pytest --lab-target


class _Checks(pytest.Collector):
    """The checks of one target, which stand in no file."""

    def collect(self) -> Iterator[_Item]:
        from lab_utils.checks import CHECKS
        from lab_utils.values.profiles import UsageError

        try:
            found = list(checks_of(self.name, profile=self.config.getoption("lab_profile")))
        except UsageError as error:
            raise pytest.UsageError(str(error)) from error
        for one in found:
            item = _Item.from_parent(self, name=one.name, check=one)
            for marker in sorted(CHECKS[one.name].markers):
                item.add_marker(marker)
            yield item


class _Item(pytest.Item):
    """One check on the target of the command line."""

    def __init__(self, *, check: TargetCheck, **others: Any) -> None:
        super().__init__(**others)
        self._check = check

    def runtest(self) -> None:
        self._check(in_process=bool(self.config.getoption("usepdb")))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, FindingsError | NoVerdictError):
            return str(excinfo.value)
        return super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[Any, None, str]:
        return self.path, None, f"{self._check.name} on {self._check.target}"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the lab."""
    group = parser.getgroup("registry-lab", "agent registry lab")
    group.addoption(
        "--lab-target",
        metavar="package.module:Name",
        help="run each check that applies to this target as a test; without paths, these tests alone",
    )
    group.addoption("--lab-profile", default="smoke", help="smoke, standard or stress (default: %(default)s)")


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers of the checks; with a target and no path, collect nothing else."""
    for name, meaning in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")
    if config.getoption("lab_target") and config.args_source is not config.ArgsSource.ARGS:
        config.args = []

    if worker := getattr(config, "workerinput", None):
        # Each worker of xdist has a fork server of its own; a check that measures memory has them all wait.
        os.environ["REGISTRY_LAB_SLOTS"] = worker["registry_lab_slots"]


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Make the folder of the locks that all workers of xdist share, and hand it to each. The next process of the lab
    removes it where this one is killed."""
    from lab_utils.runner.scratch import make_scratch

    stash = node.config.stash
    if _SLOTS not in stash:
        stash[_SLOTS] = make_scratch("slots")
    node.workerinput["registry_lab_slots"] = str(stash[_SLOTS])


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the folder that the workers shared."""
    if folder := config.stash.get(_SLOTS, None):
        from lab_utils.runner.scratch import remove_scratch

        remove_scratch(folder)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add the tests of the target that the command line names. First of all: `-k` and `-m` choose among them, too."""
    if target := config.getoption("lab_target"):
        here = str(config.invocation_params.dir)
        if here not in sys.path:
            sys.path.append(here)
        collector = _Checks.from_parent(session, name=target, nodeid=target)
        found: list[pytest.Item | pytest.Collector] = list(collector.collect())
        items += (item for item in found if isinstance(item, pytest.Item))
        # The terminal counts the collected tests by this.
        config.hook.pytest_collectreport(report=pytest.CollectReport(target, "passed", None, found))
        session.testscollected = len(items)
