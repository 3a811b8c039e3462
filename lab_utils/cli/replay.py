"""`registry-lab replay`: runs again what a replay token names, and prints the interleaving with what is found now."""

from __future__ import annotations

import argparse

from lab_utils.cli.exits import Exit, missing
from lab_utils.cli.terminal import say
from lab_utils.values.profiles import UsageError
from lab_utils.values.texts import shown

__all__ = ["arguments", "replay", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `replay`."""
    parser.epilog = (
        "exit codes: 0 nothing was found, 1 the finding came again, 2 no token that can be run here, 3 the lab itself "
        "failed, 4 another finding came instead"
    )
    parser.add_argument("token", metavar="TOKEN", help="the text after `registry-lab replay` in a finding's witness")


def run(options: argparse.Namespace) -> int:
    if absent := missing(("detangle",)):
        say(absent)
        return Exit.LAB_FAILED
    return replay(options.token)


def replay(text: str) -> Exit:
    """Run the token's workload under its schedule and print it; return what was found: nothing (PASSED), the token's
    own finding (FINDINGS, beside others or not), or others only (ANOTHER_FINDING).

    Raises `UsageError` for a token that is none, of another version, or whose workload or target is not known, and
    `lab_utils.interleavings.Missing` where schedules cannot be run.
    """
    from lab_utils.checks.registration.callers import workload_of
    from lab_utils.checks.registration.cores import Core
    from lab_utils.interleavings import BadToken, NotExplorable, Token, run_schedule
    from lab_utils.runner import capabilities_of
    from lab_utils.target import NotSupported
    from lab_utils.targets import target_factory

    try:
        token = Token.parse(text)
    except BadToken as bad:
        raise UsageError(str(bad)) from bad
    core = Core.parse(token.workload)
    # In a process of its own first: from here on it is this one that a target would end.
    capabilities_of(token.target)
    make = target_factory(token.target)
    try:
        outcome = run_schedule(workload_of(core, make, token.seed), token.schedule, trace=True)
    except (NotExplorable, NotSupported) as impossible:
        raise UsageError(f"{token.workload} cannot be run on {token.target}: {impossible}") from impossible
    deviations = f"{len(token.schedule)} deviation(s) from asyncio's own order"
    print(f"{shown(token.workload)} on {shown(token.target)}, seed {token.seed}, {deviations} (marked *)\n")
    print(*map(shown, outcome.interleaving), sep="\n")
    print()
    if not outcome.followed:
        print("The schedule could not be followed to its end: the code takes other steps than when it was found.")
    for problem in outcome.problems:
        print(shown(f"{problem.anomaly}: {problem.sentence}"))
    found = [problem.anomaly for problem in outcome.problems]
    if token.anomaly in found:
        print(f"The finding came again: {shown(token.anomaly)}.")
        return Exit.FINDINGS
    if found:
        print(shown(f"Another finding: {', '.join(dict.fromkeys(found))}; the token's was {token.anomaly}."))
        return Exit.ANOTHER_FINDING
    print(f"Nothing was found: {shown(token.anomaly)} did not come again.")
    return Exit.PASSED
