"""`registry-lab run`: runs the notebooks of categories, or single checks of them, to a versioned report."""

from __future__ import annotations

import argparse
from pathlib import Path

from lab_utils.cli.choosing import add_choice
from lab_utils.cli.exits import LAB, Exit, missing
from lab_utils.cli.plan import Plan, add_setting, environment, make_plan, python_of
from lab_utils.cli.sweep import add_sweep
from lab_utils.cli.terminal import say
from lab_utils.runner.server import begin
from lab_utils.values.profiles import CATEGORIES, UsageError
from lab_utils.values.texts import shown

__all__ = ["arguments", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `run`."""
    parser.add_argument("categories", nargs="*", metavar="CATEGORY", help=f"all, or some of: {', '.join(CATEGORIES)}")
    parser.add_argument(
        "--check",
        action="append",
        default=[],
        dest="checks",
        metavar="NAME",
        help="run only this check; may be repeated",
    )
    add_setting(parser)
    add_choice(parser)
    add_sweep(parser)
    parser.add_argument(
        "--baseline",
        metavar="RUN|latest|FILE",
        help="the known findings, as a run or as a file of `registry-lab baseline`: known findings pass, new ones and "
        "measurements that got worse beyond noise do not; latest: the newest run of this target and profile",
    )
    parser.add_argument("--history", metavar="FOLDER|URL", help="keep the run's digest for comparisons there, too")
    parser.add_argument("--out", default="outputs", metavar="FOLDER", help="default: %(default)s")
    parser.add_argument(
        "--protects", type=Path, metavar="FILE", help="TOML with your own texts on the goods that checks protect"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=2,
        metavar="N",
        help="checks at once, beside those that measure memory, which run alone (default: %(default)s)",
    )
    parser.add_argument(
        "--calibrate",
        default="",
        metavar="WHEN",
        help="run checks on planted registries: changed (where the lab, Python, packages, profile or seed have changed "
        "since), always, all (always, and in the profile smoke on every one, not on one for each anomaly), or never "
        "(default: changed; in a grid, changed for its first run and never for the others)",
    )
    parser.add_argument("--timeout", type=float, metavar="S", help="seconds for each notebook (default: by profile)")


def run(options: argparse.Namespace) -> int:
    """Run the requested checks; the exit code holds the result, whether or not somebody reads the output."""
    begin()
    with environment(**python_of(options)):
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    if absent := missing(LAB):
        # Wrong words are said first, but reading own texts and grids needs the extra itself.
        if not (options.protects or options.resume):
            make_plan(options)
        say(absent)
        return Exit.LAB_FAILED
    from lab_utils.output.store import StoreError
    from lab_utils.output.store.grids import find_grid

    try:
        resumed = find_grid(Path(options.out), options.resume) if options.resume else None
    except StoreError as error:
        raise UsageError(str(error)) from error
    if resumed or options.sweep or options.repeat is not None or options.on:
        from lab_utils.cli import grid

        return grid.run(options, resumed)
    plan = make_plan(options)
    if options.dry_run:
        return _show(plan)
    from lab_utils.cli import running

    try:
        status = running.run(plan)
    except StoreError as error:
        say(str(error))
        return Exit.LAB_FAILED
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    ends = {"passed": Exit.PASSED, "findings": Exit.FINDINGS, "cancelled": Exit.INTERRUPTED}
    return ends.get(status, Exit.LAB_FAILED)


def _show(plan: Plan) -> int:
    from lab_utils.cli.running import checks_of

    names = checks_of(plan)
    print(f"{shown(plan.command)} would run {len(names)} checks:")
    for name in names:
        print(f"  {name}")
    return Exit.PASSED
