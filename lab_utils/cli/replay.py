"""Runs again what a replay token names, and prints the interleaving with what is found now."""

from __future__ import annotations

from enum import Enum, auto

from lab_utils.checks.registration.callers import workload_of
from lab_utils.checks.registration.cores import Core
from lab_utils.interleavings import BadToken, NotExplorable, Token, run_schedule
from lab_utils.target import NotSupported
from lab_utils.targets import target_factory
from lab_utils.values.profiles import UsageError

__all__ = ["Replayed", "replay"]


class Replayed(Enum):
    """What a replay found: nothing, the token's own finding (beside others or not), or others only."""

    NOTHING = auto()
    SAME = auto()
    ANOTHER = auto()


def replay(text: str) -> Replayed:
    """Run the token's workload under its schedule and print it; return what was found.

    Raises `UsageError` for a token that is none, of another version, or whose workload or target is not known, and
    `lab_utils.interleavings.Missing` where schedules cannot be run.
    """
    try:
        token = Token.parse(text)
    except BadToken as bad:
        raise UsageError(str(bad)) from bad
    core = Core.parse(token.workload)
    make = target_factory(token.target)
    try:
        outcome = run_schedule(workload_of(core, make, token.seed), token.schedule, trace=True)
    except (NotExplorable, NotSupported) as impossible:
        raise UsageError(f"{token.workload} cannot be run on {token.target}: {impossible}") from impossible
    deviations = f"{len(token.schedule)} deviation(s) from asyncio's own order"
    print(f"{token.workload} on {token.target}, seed {token.seed}, {deviations} (marked *)\n")
    print(*outcome.interleaving, sep="\n")
    print()
    if not outcome.followed:
        print("The schedule could not be followed to its end: the code takes other steps than when it was found.")
    for problem in outcome.problems:
        print(f"{problem.anomaly}: {problem.sentence}")
    found = [problem.anomaly for problem in outcome.problems]
    if token.anomaly in found:
        print(f"The finding came again: {token.anomaly}.")
        return Replayed.SAME
    if found:
        print(f"Another finding: {', '.join(dict.fromkeys(found))}; the token's was {token.anomaly}.")
        return Replayed.ANOTHER
    print(f"Nothing was found: {token.anomaly} did not come again.")
    return Replayed.NOTHING
