"""Chooses the checks of a run: those that failed in an earlier run, those that an interrupted one lacks, or one share
of them all."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lab_utils.values.profiles import CATEGORIES, DEFAULT_PROFILE, UsageError

if TYPE_CHECKING:
    from lab_utils.output.store import Run

__all__ = ["add_choice", "choose", "share_of"]


def add_choice(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that choose. `target` and `profile` have no default here: `choose` fills them in."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--failed-from",
        metavar="RUN",
        help="run only the checks that did not pass in RUN, with its target, profile, seed and parameters",
    )
    group.add_argument(
        "--resume",
        metavar="RUN",
        help="run the checks that an interrupted RUN (or `latest`) lacks, and keep its results",
    )
    parser.add_argument("--shard", metavar="I/N", help="run the I-th of N shares; `registry-lab merge` joins them")
    parser.set_defaults(target=None, profile=None)


def choose(options: argparse.Namespace) -> Run | None:
    """Fill in the values that the options leave to an earlier run, or to the defaults. Returns the run to resume;
    raises `UsageError`."""
    named = options.failed_from or (options.resume and _interrupted(options.resume, Path(options.out)))
    earlier = _earlier(named, Path(options.out)) if named else None
    if earlier is not None:
        about = earlier.about
        others = (options.checks, options.categories, options.target, options.profile, options.param)
        if options.resume and any(others):
            raise UsageError("--resume: the interrupted run fixes the choice of checks; leave the other options out")
        if options.resume:
            _require_this_lab(earlier)
        options.target = options.target or about["target"]
        options.profile = options.profile or about["profile"]
        options.seed = about["seed"] if options.seed is None else options.seed
        options.param = [*_given(about["parameters"], about["profile"]), *options.param]
        if about["parameters"].get("golden_path", {}).get("usage_csv") and options.usage_csv is None:
            raise UsageError(
                f"run {earlier.run_id} was of somebody's own usage records; name them by --usage-csv again"
            )
        if options.failed_from:
            options.checks = _failed(earlier, options.checks, options.failed_from)
        else:
            options.checks, options.categories = list(about.get("only_checks", [])), list(about["categories"])
            options.calibrate = options.calibrate or about.get("calibrate", "")
    options.target = options.target or "agent_registry"
    options.profile = options.profile or DEFAULT_PROFILE
    return earlier if options.resume else None


def _require_this_lab(earlier: Run) -> None:
    """Refuse results of other code: the run's would be said to be of this one."""
    from lab_utils.batch.errand import lab_here

    if (lab := earlier.about.get("lab", lab_here())) != lab_here():
        raise UsageError(f"--resume: {earlier.run_id} is of {lab}, this is {lab_here()}; make a new run")


def share_of(text: str, checks: Sequence[str]) -> tuple[str, ...]:
    """The share that `2/3` names of these checks: all shares together have each check once. Raises `UsageError`."""
    found = re.fullmatch(r"([1-9]\d{0,3})/([1-9]\d{0,3})", text)
    if found is None or int(found[1]) > int(found[2]):
        raise UsageError(f"--shard {text!r}: write 2/3 for the second of three shares")
    number, shares = int(found[1]), int(found[2])
    # One by one, so that each share has some of every category: the long ones stand together.
    share = tuple(checks[number - 1 :: shares])
    if not share:
        raise UsageError(f"--shard {text}: there are only {len(checks)} checks to share")
    return share


def _earlier(name: str, outputs: Path) -> Run:
    from lab_utils.output.store import StoreError, open_run

    try:
        return open_run(outputs, name)
    except StoreError as error:
        raise UsageError(str(error)) from error


def _interrupted(name: str, outputs: Path) -> str:
    """The run to resume: `latest` is the newest that is over, where that was interrupted. Raises `UsageError`."""
    from lab_utils.output.store import LATEST, summaries

    if name != LATEST or not outputs.is_dir():
        return name
    over = [run for run in summaries(outputs) if run.about is not None and run.state != "running"]
    if over and over[0].state in ("passed", "findings"):
        raise UsageError(f"--resume latest: {over[0].run_id}, the newest run in {outputs}, was not interrupted")
    return over[0].run_id if over else name


def _failed(run: Run, asked: Sequence[str], name: str) -> list[str]:
    from lab_utils.values.verdict import Outcome

    missed = {one.result.check for one in run.calibrations if not one.caught}
    bad = [
        result.check
        for result in run.results
        if result.outcome in (Outcome.FAIL, Outcome.UNKNOWN) or result.check in missed
    ]
    chosen = [check for check in bad if not asked or check in asked]
    if not chosen:
        raise UsageError(f"--failed-from {name}: every check passed there{', of those asked for' if asked else ''}")
    return chosen


def _given(parameters: Mapping[str, Mapping[str, object]], profile: str) -> list[str]:
    """The differences from the profile, as `--param` takes them."""
    return [
        f"{category}.{one.name}={str(value).lower() if isinstance(value, bool) else value}"
        for category, values in parameters.items()
        if category in CATEGORIES
        for one in CATEGORIES[category].parameters
        # A run keeps the name of that file alone, not its folder.
        if one.name != "usage_csv" and (value := values.get(one.name, one.value(profile))) != one.value(profile)
    ]
