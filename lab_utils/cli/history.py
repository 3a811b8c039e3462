"""`registry-lab history`: shows the runs that a history keeps, takes over those of another one, and prunes it."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from lab_utils.cli.exits import Exit
from lab_utils.cli.terminal import say
from lab_utils.values.profiles import UsageError
from lab_utils.values.quantities import counted
from lab_utils.values.texts import shown

__all__ = ["arguments", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `history`."""
    parser.add_argument("where", metavar="FOLDER|URL", help="the history that `run --history` was given")
    parser.add_argument("--merge", action="append", default=[], metavar="FOLDER|URL", help="take over its runs first")
    parser.add_argument(
        "--add", action="append", default=[], metavar="RUN", help="add this run of --out; may be repeated"
    )
    parser.add_argument("--out", default="outputs", metavar="FOLDER", help="where runs are (default: %(default)s)")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page of the runs and their measurements")
    parser.add_argument("--keep", type=int, metavar="N", help="remove all but the newest N of each target and profile")


def run(options: argparse.Namespace) -> int:
    from lab_utils.cli.compare import known_run
    from lab_utils.output.store import StoreError
    from lab_utils.output.store.history import open_history

    if options.keep is not None and options.keep < 1:
        raise UsageError(f"--keep {options.keep}: give a number of runs above 0")
    is_written = options.merge or options.add
    if "://" not in options.where and not is_written and not Path(options.where).is_dir():
        remedy = f"`registry-lab run --history {options.where}` makes one"
        raise UsageError(f"no history in {options.where}, which is no folder; {remedy}")
    try:
        history = open_history(options.where)
        for other in options.merge:
            print(f"{counted(history.merge(open_history(other)), 'run')} taken over from {shown(other)}")
        for name in options.add:
            print(f"added {shown(history.add(known_run(name, Path(options.out))))}")
        if options.keep is not None:
            print(f"{counted(history.prune(options.keep), 'run')} removed")
        runs = history.runs()
    except StoreError as error:
        raise UsageError(str(error)) from error
    for one in runs:
        words = Counter(check.outcome.value for check in one.checks)
        found = sum(each.count for check in one.checks for each in check.found)
        counts = " ".join(f"{count} {word}" for word, count in words.items())
        about = f"{one.target}, {one.profile}, seed {one.seed}, lab commit {one.commit[:10] or 'none'}"
        print(shown(f"{one.run_id}  {one.status}: {counts}; {counted(found, 'finding')}; {one.seconds:.0f} s; {about}"))
    print(f"{counted(len(runs), 'run')} in {shown(options.where)}")
    if options.html is not None:
        from lab_utils.output.pages import trends_page
        from lab_utils.output.store.files import write

        write(options.html, trends_page(runs))
        print(f"page: {shown(options.html)}")
    for problem in history.unreadable:
        say(f"not a run: {problem}")
    return Exit.PASSED
