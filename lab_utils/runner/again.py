"""Runs a finding again, from the token that names all that is needed for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from lab_utils.checks.replaying import replayable
from lab_utils.interleavings import BadToken, CheckToken, NotExplorable, Token, run_schedule
from lab_utils.judges.identity import Identified, identified
from lab_utils.runner.conduct import Progress
from lab_utils.runner.runner import AnyTarget, capabilities_of, run_check
from lab_utils.target import NotSupported
from lab_utils.targets import target_factory
from lab_utils.values.profiles import CATEGORIES, UsageError, Value
from lab_utils.values.result import CheckResult
from lab_utils.values.verdict import REPLAY, Outcome

__all__ = ["Replayed", "Return", "read_token", "replay", "token_of"]


class Return(StrEnum):
    """Whether a finding came again."""

    SAME = "same"
    OTHERS = "others"
    NOTHING = "nothing"
    UNKNOWN = "unknown"
    """The check could not be run to a verdict."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """The outcome of a token this time.

    `steps`: the interleaving, where the token has a schedule; then `result` is None. `followed`: whether the schedule
    could be followed to its end. `found`: the findings, as `anomaly: sentence`, the one looked for first.
    """

    token: Token | CheckToken
    came: Return
    found: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    followed: bool = True
    result: CheckResult | None = None


def token_of(one: Identified) -> Token | CheckToken:
    """The token that runs the finding again: that of its schedule, where it was found under one."""
    for line in one.finding.witness:
        if line.startswith(REPLAY):
            try:
                return Token.parse(line.removeprefix(REPLAY))
            except BadToken:
                # The token is of another Python or an older version: the check as a whole can be run all the same.
                break
    result = one.result
    return CheckToken(
        result.check,
        result.target,
        result.profile,
        result.seed,
        one.finding.anomaly,
        one.fingerprint,
        _given(result.category, result.profile, result.parameters),
    )


def read_token(text: str) -> Token | CheckToken:
    """Read either kind of token. Raises `BadToken`."""
    return CheckToken.parse(text) if CheckToken.is_one(text) else Token.parse(text)


def replay(
    token: Token | CheckToken, *, target: AnyTarget | None = None, on_progress: Progress | None = None
) -> Replayed:
    """Run a token's workload again, a whole check in a process of its own. `target` stands in for the token's, where
    that has no name, as one of a notebook's cell.

    Raises `UsageError` where check, workload, target or a parameter is not known, and
    `lab_utils.interleavings.Missing` where schedules cannot be run.
    """
    if isinstance(token, Token):
        return _replay_schedule(token, target)
    result = run_check(
        token.check,
        target=token.target if target is None else target,
        profile=token.profile,
        seed=token.seed,
        parameters=token.parameters,
        on_progress=on_progress,
    )
    found = identified([result])
    if any(one.fingerprint == token.fingerprint for one in found):
        came = Return.SAME
    elif found:
        came = Return.OTHERS
    else:
        came = Return.NOTHING if result.outcome is Outcome.PASS else Return.UNKNOWN
    found.sort(key=lambda one: (one.fingerprint != token.fingerprint, one.finding.anomaly != token.anomaly))
    words = tuple(f"{one.finding.anomaly}: {one.finding.sentence}" for one in found)
    return Replayed(token, came, words, result=result)


def _replay_schedule(token: Token, target: AnyTarget | None) -> Replayed:
    make_workload = replayable(token.workload)
    # In a process of its own first: from here on it is this one that a target would end.
    capabilities_of(token.target if target is None else target)
    make = target_factory(token.target) if target is None or isinstance(target, str) else target
    try:
        outcome = run_schedule(make_workload(make, token.seed), token.schedule, trace=True)
    except (NotExplorable, NotSupported) as impossible:
        raise UsageError(f"{token.workload} cannot be run on {token.target}: {impossible}") from impossible
    found = sorted(outcome.problems, key=lambda problem: problem.anomaly != token.anomaly)
    came = Return.NOTHING if not found else Return.OTHERS
    if any(problem.anomaly == token.anomaly for problem in found):
        came = Return.SAME
    words = tuple(f"{problem.anomaly}: {problem.sentence}" for problem in found)
    return Replayed(token, came, words, tuple(outcome.interleaving), outcome.followed)


def _given(category: str, profile: str, parameters: Mapping[str, Value]) -> dict[str, Value]:
    """The parameters that differ from the profile's; one that a category has lost since is left out."""
    known = {one.name: one.value(profile) for one in CATEGORIES[category].parameters} if category in CATEGORIES else {}
    return {name: value for name, value in parameters.items() if name in known and value != known[name]}
