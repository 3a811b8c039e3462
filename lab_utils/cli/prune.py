"""`registry-lab prune`: removes the oldest runs and grids of the folder of runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from lab_utils.cli.exits import Exit
from lab_utils.values.profiles import UsageError
from lab_utils.values.texts import shown

__all__ = ["arguments", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `prune`."""
    parser.add_argument("--keep", type=int, required=True, metavar="N", help="how many of the newest stay")
    parser.add_argument("--out", default="outputs", metavar="FOLDER", help="where runs are (default: %(default)s)")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the names of those that would be removed, and remove nothing"
    )


def run(options: argparse.Namespace) -> int:
    from lab_utils.output import pages
    from lab_utils.output.store import Store

    if options.keep < 1:
        raise UsageError(f"--keep {options.keep}: give a number of runs above 0")
    outputs = Path(options.out)
    if not outputs.is_dir():
        raise UsageError(f"--out {options.out}: there is no such folder")
    removed = Store(outputs).prune(options.keep, pages.runs_page, is_dry=options.dry_run)
    for name in removed:
        print(f"{'would remove' if options.dry_run else 'removed'} {shown(name)}")
    print(f"{len(removed)} {'to remove' if options.dry_run else 'removed'}, {options.keep} newest kept")
    return Exit.PASSED
