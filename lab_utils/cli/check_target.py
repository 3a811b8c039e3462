"""`registry-lab check-target`: tries a target itself, method by method, and prints every problem with its remedy."""

from __future__ import annotations

import argparse
import io
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Final

from lab_utils.cli.exits import Exit
from lab_utils.cli.plan import add_python, environment, python_of
from lab_utils.cli.terminal import progress, say
from lab_utils.runner.server import begin
from lab_utils.values.profiles import UsageError
from lab_utils.values.quantities import counted
from lab_utils.values.texts import shown

if TYPE_CHECKING:
    from lab_utils.target import Capability
    from lab_utils.values.result import CheckResult

__all__ = ["arguments", "run"]

_PATIENCE_S: Final = 5.0
_MOST_LETTERS: Final = 600
_WITNESSES: Final = 3


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `check-target`."""
    parser.epilog = "exit codes: 0 no problem, 1 problems, 2 wrong usage, 3 the lab itself failed, 130 interrupted"
    add_python(parser)
    parser.add_argument("target", metavar="TARGET", help="package.module:Name, or a name that `list targets` shows")


def run(options: argparse.Namespace) -> int:
    """Print each problem in one line, under the method that has it."""
    begin()
    with environment(**python_of(options)):
        return _run(options.target)


def _run(target: str) -> int:
    from lab_utils.checks import CONTRACT
    from lab_utils.runner import capabilities_of, run_check

    try:
        capabilities = capabilities_of(target)
    except UsageError as error:
        if "does not fit" not in str(error):
            raise
        say(str(error))
        return Exit.FINDINGS
    printed = io.StringIO()
    with progress("trying the target") as show, redirect_stdout(printed):
        result = run_check(CONTRACT.name, target=target, stuck_after=_PATIENCE_S, still_after=30.0, on_progress=show)
    for line in printed.getvalue().splitlines():
        print(f"printed: {shown(line, _MOST_LETTERS)}")
    return _printed(target, capabilities, result)


def _printed(target: str, capabilities: frozenset[Capability], result: CheckResult) -> int:
    print(f"{shown(target)} has: {', '.join(sorted(capabilities)) or 'create and run, no capability beside them'}")
    findings = result.verdict.findings
    for call in dict.fromkeys(finding.anomaly for finding in findings):
        print(f"\n{shown(call)}")
        for finding in findings:
            if finding.anomaly == call:
                print(f"  {shown(finding.sentence, _MOST_LETTERS)}")
                # The sentence of one method's problem is complete; of others the witness has the error and its line.
                for line in () if call.endswith("()") else finding.witness[:_WITNESSES]:
                    print(f"    {shown(line, _MOST_LETTERS)}")
    for note in result.notes:
        print(f"\nnote: {shown(note, _MOST_LETTERS)}")
    for line in result.traceback.splitlines():
        print(f"      {shown(line, _MOST_LETTERS)}")
    if findings:
        print(
            f"\n{counted(len(findings), 'problem')}. Mend the faults of the adapter: until then a check may blame your "
            "registry for it. What your registry itself does is its own finding, which the checks show as well."
        )
        return Exit.FINDINGS
    if result.outcome != "PASS":
        print(f"\n{result.outcome}: {shown(result.verdict.reason)}")
        return Exit.FINDINGS
    print(f"\nno problem: {shown(result.verdict.reason)}. Next: registry-lab list checks --target {shown(target)}")
    return Exit.PASSED
