"""`registry-lab replay`: runs a finding again, from a run or from its token, and prints the findings of now."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lab_utils.cli.exits import Exit, missing
from lab_utils.cli.terminal import progress, say
from lab_utils.values.profiles import UsageError
from lab_utils.values.quantities import counted
from lab_utils.values.texts import shown
from lab_utils.values.verdict import LONGEST_TOKEN

if TYPE_CHECKING:
    from lab_utils.interleavings import CheckToken, Token
    from lab_utils.judges.identity import Identified
    from lab_utils.output.store import Run
    from lab_utils.runner.again import Replayed

__all__ = ["arguments", "finding_in_run", "replay", "run"]

_MOST_FOUND = 20


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `replay`."""
    parser.epilog = (
        "exit codes: 0 nothing was found, 1 the finding came again, 2 nothing that can be run here, 3 the lab itself "
        "failed, 4 another finding, or no verdict, came instead"
    )
    parser.add_argument(
        "what",
        nargs="+",
        metavar="RUN F1 | TOKEN",
        help="a run (its name, its folder, or latest) and the key of a finding in it, or a finding's token",
    )
    parser.add_argument("--out", default="outputs", metavar="FOLDER", help="where runs are (default: %(default)s)")


def run(options: argparse.Namespace) -> int:
    if absent := missing(("detangle",)):
        say(absent)
        return Exit.LAB_FAILED
    return replay(*options.what, outputs=Path(options.out))


def replay(*words: str, outputs: Path = Path("outputs")) -> Exit:
    """Run the finding again and print the result: nothing (PASSED), the finding itself (FINDINGS, beside others or
    not), or something else (ANOTHER_FINDING).

    Raises `UsageError` for an invalid run, finding or token, and for a token of another version or with an unknown
    check, workload or target; `lab_utils.interleavings.Missing` where schedules cannot be run.
    """
    from lab_utils.interleavings import BadToken, Token
    from lab_utils.runner import again

    if len(words) > 2:
        raise UsageError(f"replay {' '.join(words)}: give a run and the key of a finding, or one token")
    try:
        token = (
            again.read_token(words[0])
            if len(words) == 1
            else again.token_of(finding_in_run(words[0], words[1], outputs)[1])
        )
    except BadToken as bad:
        raise UsageError(str(bad)) from bad
    with progress("replaying") as show:
        came = again.replay(token, on_progress=show)
    _print(_interleaving(token, came) if isinstance(token, Token) else _check(token, came))
    return _ended(came)


def finding_in_run(run: str, key: str, outputs: Path) -> tuple[Run, Identified]:
    """The run and its finding of that key. Raises `UsageError` for an unknown run or key."""
    from lab_utils.judges.identity import identified
    from lab_utils.output.store import StoreError, open_run

    try:
        opened = open_run(outputs, run)
    except StoreError as error:
        raise UsageError(str(error)) from error
    found = {one.key: one for one in identified(opened.results)}
    if not found:
        raise UsageError(f"run {run} has no findings")
    name = key.upper()
    if name not in found:
        raise UsageError(f"unknown finding {key!r}; run {run} has F1 to F{len(found)}")
    return opened, found[name]


def _interleaving(token: Token, came: Replayed) -> Sequence[str]:
    deviations = f"{counted(len(token.schedule), 'deviation')} from asyncio's own order"
    lines = [f"{token.workload} on {token.target}, seed {token.seed}, {deviations} (marked *)", "", *came.steps, ""]
    if not came.followed:
        lines.append(
            "The schedule could not be followed to its end: the code takes other steps than when it was found."
        )
    return [*lines, *came.found]


def _check(token: CheckToken, came: Replayed) -> Sequence[str]:
    given = "".join(f", {name}={value}" for name, value in token.parameters.items())
    lines = [f"{token.check} on {token.target}, profile {token.profile}, seed {token.seed}{given}", ""]
    result = came.result
    if result is not None and not came.found:
        lines.append(f"{result.outcome}: {result.verdict.reason}")
    left_out = len(came.found) - _MOST_FOUND
    more = [f"and {left_out} more"] if left_out > 0 else []
    witness: list[str] = []
    if result is not None and came.found:
        first = next(one for one in result.verdict.findings if f"{one.anomaly}: {one.sentence}" == came.found[0])
        witness = [f"    {line}" for text in first.witness for line in text.splitlines()]
    return [*lines, *came.found[:1], *witness, *came.found[1:_MOST_FOUND], *more]


def _ended(came: Replayed) -> Exit:
    from lab_utils.runner.again import Return

    anomaly = came.token.anomaly
    match came.came:
        case Return.SAME:
            _print([f"The finding came again: {anomaly}."])
            return Exit.FINDINGS
        case Return.OTHERS:
            names = ", ".join(dict.fromkeys(text.partition(":")[0] for text in came.found))
            same = f", about other calls or types ({anomaly})" if names == anomaly else f": {names}"
            _print([f"Another finding{same}; the token's was {anomaly}."])
            return Exit.ANOTHER_FINDING
        case Return.NOTHING:
            _print([f"Nothing was found: {anomaly} did not come again."])
            return Exit.PASSED
        case Return.UNKNOWN:
            _print([f"No verdict: whether {anomaly} is still there is not known."])
            return Exit.ANOTHER_FINDING


def _print(lines: Sequence[str]) -> None:
    for line in lines:
        print(shown(line, LONGEST_TOKEN, only_ascii=True))
