"""Makes a finding smaller: the least parameters, or the least schedule, with which it still comes again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from lab_utils.checks import CHECKS
from lab_utils.interleavings import CheckToken, Token
from lab_utils.runner.again import Replayed, Return, replay
from lab_utils.runner.conduct import Progress
from lab_utils.runner.runner import AnyTarget
from lab_utils.values.profiles import CATEGORIES, UsageError, unknown

__all__ = ["MOST_RUNS", "Shrunk", "shrink"]

MOST_RUNS: Final = 16


@dataclass(frozen=True, slots=True)
class Shrunk:
    """The smallest token that was found, and its outcome. `came.came` is not SAME where the finding did not come again
    even unchanged; then nothing was made smaller. `runs`: how many were tried."""

    before: Token | CheckToken
    came: Replayed
    runs: int

    @property
    def token(self) -> Token | CheckToken:
        return self.came.token


def shrink(
    token: Token | CheckToken,
    *,
    target: AnyTarget | None = None,
    most: int = MOST_RUNS,
    on_progress: Progress | None = None,
) -> Shrunk:
    """Try smaller tokens as long as the finding comes again, in `most` runs at most. Raises as `replay` does."""
    best = replay(token, target=target)
    runs = 1
    candidates = _smaller(token)
    while best.came is Return.SAME and runs < most:
        smaller = next(candidates, None)
        if smaller is None:
            break
        if on_progress is not None:
            on_progress(f"try {runs} of at most {most}", runs / most)
        came = replay(smaller, target=target)
        runs += 1
        if came.came is Return.SAME:
            best, candidates = came, _smaller(smaller)
    return Shrunk(token, best, runs)


def _smaller(token: Token | CheckToken) -> Iterator[Token | CheckToken]:
    """Tokens that ask for less than this one, the greatest step first."""
    if isinstance(token, Token):
        for place in range(len(token.schedule)):
            yield replace(token, schedule=token.schedule[:place] + token.schedule[place + 1 :])
        return
    if token.check not in CHECKS:
        raise UsageError(unknown("check", token.check, CHECKS))
    for parameter in CATEGORIES[CHECKS[token.check].category].parameters:
        value = token.parameters.get(parameter.name, parameter.value(token.profile))
        # A share or a time is not a size, and a smaller one does not mean less work.
        if type(value) is not int or parameter.unit in ("s", "seconds"):
            continue
        for lesser in dict.fromkeys((max(int(parameter.least), value // 4), max(int(parameter.least), value // 2))):
            if lesser < value:
                yield replace(token, parameters={**token.parameters, parameter.name: lesser})
