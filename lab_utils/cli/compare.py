"""`registry-lab compare`: the changes from one run to another, in the terminal or as a page."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lab_utils.cli.exits import Exit, missing
from lab_utils.cli.terminal import say
from lab_utils.values.profiles import UsageError
from lab_utils.values.quantities import counted, quantity
from lab_utils.values.texts import shown

if TYPE_CHECKING:
    from lab_utils.judges.comparison import Comparison
    from lab_utils.output.store.history import History
    from lab_utils.values.digest import Digest

__all__ = ["arguments", "comparison_lines", "known_run", "run"]

_MOST = 20


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `compare`."""
    parser.epilog = (
        "exit codes: 0 nothing is new or got worse, 1 new findings, regressions, or a check that no longer comes to a "
        "verdict, 2 wrong usage, 3 the lab itself failed"
    )
    parser.add_argument("before", metavar="A", help="the earlier run: its name, its folder, or latest")
    parser.add_argument("after", metavar="B", help="the later run")
    parser.add_argument("--out", default="outputs", metavar="FOLDER", help="where runs are (default: %(default)s)")
    parser.add_argument(
        "--history",
        metavar="FOLDER|URL",
        help="where runs are looked for too; its earlier runs show how much a measurement varies by itself",
    )
    parser.add_argument(
        "--html", nargs="?", const="", metavar="FILE", help="write a page as well (default: beside the runs)"
    )


def run(options: argparse.Namespace) -> int:
    from lab_utils.judges.comparison import compare
    from lab_utils.output.store import StoreError
    from lab_utils.output.store.history import open_history

    if options.html is not None and (absent := missing(("jinja2",))):
        say(absent)
        return Exit.LAB_FAILED
    try:
        history = open_history(options.history) if options.history else None
        outputs = Path(options.out)
        before, after = (known_run(name, outputs, history) for name in (options.before, options.after))
        made = compare(before, after, history.runs() if history else ())
    except StoreError as error:
        raise UsageError(str(error)) from error
    for line in comparison_lines(made):
        print(shown(line))
    if options.html is not None:
        print(f"page: {shown(_page(made, options.html, outputs))}")
    return Exit.FINDINGS if made.is_worse else Exit.PASSED


def known_run(name: str, outputs: Path, history: History | None = None) -> Digest:
    """The digest of a run in the folder of runs, or else in a history, where `latest` is the newest one. Raises
    `StoreError`, naming the runs that there are."""
    from lab_utils.output.store import StoreError, open_run
    from lab_utils.output.store.digests import digest_of

    try:
        return digest_of(open_run(outputs, name))
    except StoreError as error:
        runs = history.runs() if history else []
        found = [one for one in runs if name in ("latest", one.run_id)]
        if not found:
            beside = f"; nor in the history {history.where}, of {len(runs)} runs" if history else ""
            raise StoreError(f"{error}{beside}") from error
        return found[-1]


def comparison_lines(made: Comparison) -> Iterator[str]:
    """The changes, the worst first."""
    from lab_utils.judges.comparison import Change

    yield f"from {_about(made.before)}"
    yield f"to   {_about(made.after)}"
    yield ""
    for change in (Change.NEW, Change.FIXED, Change.STILL, Change.UNSEEN):
        found = made.of(change)
        yield f"findings {change}: {len(found)}"
        for one in found[:_MOST] if change is not Change.STILL else found[:3]:
            key = f"{one.found.key}, " if one.after else ""
            yield f"  {one.found.cause} ({key}{one.found.anomaly} in {one.check}, {one.before} -> {one.after} times)"
        more = len(found) - (_MOST if change is not Change.STILL else 3)
        if more > 0:
            yield f"  and {more} more"
    for verdict in made.verdicts:
        yield f"verdict of {verdict.check}: {verdict.before or 'not run'} -> {verdict.after or 'not run'}"
    yield from _measured(made)
    yield ""
    yield _answer(made)


def _measured(made: Comparison) -> Iterator[str]:
    from lab_utils.judges.comparison import Change

    if made.why_not:
        yield f"measurements are not compared: {made.why_not}"
        return
    unlike = [one for one in made.measured if one.change is not Change.SAME]
    for one in unlike:
        values = f"{quantity(one.before, one.unit)} -> {quantity(one.after, one.unit)}"
        interval = f" (95%: {one.low:.3g} to {one.high:.3g}; {one.why})" if one.low < one.high else f" ({one.why})"
        ratio = "" if math.isnan(one.ratio) else f", x {one.ratio:.3g}{interval}"
        yield f"{one.change}: {one.metric} of {one.check}: {values}{ratio}"
    yield f"measurements: {len(made.measured)} compared, {len(unlike)} changed beyond noise"


def _answer(made: Comparison) -> str:
    from lab_utils.judges.comparison import Change

    new, worse = len(made.of(Change.NEW)), len(made.regressions)
    lost = sum(one.is_worse for one in made.verdicts)
    parts = [counted(new, "new finding")] * bool(new) + [counted(worse, "regression")] * bool(worse)
    parts += [f"{counted(lost, 'check')} without a verdict"] * bool(lost)
    return f"worse: {', '.join(parts)}" if parts else "not worse: no new finding and no regression"


def _about(run: Digest) -> str:
    code = f", lab commit {run.commit[:10]}" if run.commit else ""
    counts: dict[str, int] = {}
    for check in run.checks:
        counts[check.outcome.value] = counts.get(check.outcome.value, 0) + 1
    words = " ".join(f"{count} {word}" for word, count in counts.items())
    return f"{run.run_id}: {run.target}, {run.profile}, seed {run.seed}{code}: {words}"


def _page(made: Comparison, file: str, outputs: Path) -> Path:
    from lab_utils.output.pages.comparison import comparison_page
    from lab_utils.output.store.files import write

    path = Path(file) if file else outputs / f"compare-{made.before.run_id}-{made.after.run_id}.html"
    return write(path, comparison_page(made))
