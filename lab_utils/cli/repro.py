"""`registry-lab repro`: prints a script that shows a finding against the framework's own interface, without the lab."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from lab_utils.cli.exits import Exit
from lab_utils.cli.replay import finding_in_run
from lab_utils.cli.terminal import say
from lab_utils.values.texts import shown
from lab_utils.values.verdict import LONGEST_TOKEN

__all__ = ["arguments", "reproductions_folder", "run"]

_PACKAGE: Final = Path(__file__).resolve().parents[1]


def reproductions_folder() -> Path:
    """Where the scripts are: beside the package in a clone, inside it in an installed wheel."""
    beside = _PACKAGE.parent / "examples" / "reproductions"
    return beside if beside.is_dir() else _PACKAGE / "_reproductions"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `repro`."""
    parser.epilog = (
        "exit codes: 0 the script was printed, 2 there is none, and the message names the command that runs it "
        "again. The script itself ends with 0 where it shows the finding, and with 1 where the finding is gone"
    )
    parser.add_argument("run_name", metavar="RUN", help="a run (its name, its folder, or latest)")
    parser.add_argument("finding", metavar="FINDING", help="the key of a finding in it, as F1")
    parser.add_argument("--out", default="outputs", metavar="FOLDER", help="where runs are (default: %(default)s)")


def run(options: argparse.Namespace) -> int:
    """Print the script of a finding. Raises `UsageError` for an unknown run or finding."""
    from lab_utils.runner.again import token_of
    from lab_utils.targets.frameworks import FRAMEWORKS

    _, one = finding_in_run(options.run_name, options.finding, Path(options.out))
    target, anomaly = one.result.target, one.finding.anomaly
    framework = next((each for name, each in FRAMEWORKS.items() if target in (name, each.spec)), None)
    promise = framework.promises.get(anomaly) if framework else None
    script = reproductions_folder() / f"{promise.reproduction}.py" if promise else None
    if script is not None and script.is_file():
        print(script.read_text(encoding="utf-8"), end="")
        return Exit.PASSED
    what = f"{anomaly} in {target}" if framework else f"{target}, which is no public framework"
    say(f"there is no script for {what}; this runs the finding again with the lab:")
    # To be copied whole.
    print(f"registry-lab replay {shown(token_of(one), LONGEST_TOKEN)}", file=sys.stderr)
    return Exit.WRONG_USAGE
