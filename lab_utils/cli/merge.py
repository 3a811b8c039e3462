"""`registry-lab merge`: joins the shares of a run, made on several machines, into one run with one report."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lab_utils.cli.exits import LAB, Exit, missing
from lab_utils.cli.terminal import say
from lab_utils.values.profiles import UsageError
from lab_utils.values.texts import shown

if TYPE_CHECKING:
    from lab_utils.output.store import OpenRun, Run

__all__ = ["arguments", "run"]

_SAME: Final = ("target", "profile", "seed", "kernel_mode")
_WORST: Final = ("dead-kernel", "timeout", "error", "cancelled", "failed", "ok")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `merge`."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a share's folder, or its name below --out")
    parser.add_argument("--out", default="outputs", metavar="FOLDER", help="default: %(default)s")


def run(options: argparse.Namespace) -> int:
    if absent := missing(LAB):
        say(absent)
        return Exit.LAB_FAILED
    from lab_utils.cli.running import status_of
    from lab_utils.output import pages
    from lab_utils.output.store import Store, StoreError, open_run

    outputs = Path(options.out)
    try:
        # The same share twice, as from a job that was run again, is one; the order does not matter.
        runs = sorted(
            {one.run_id: one for one in (open_run(outputs, name) for name in options.runs)}.values(), key=_order
        )
        _check(runs)
        opened = Store(outputs).begin(_about(runs))
        for one in runs:
            _take(one, opened)
        for notebook in _notebooks(runs):
            _copy(notebook, opened)
        status = status_of(opened.read())
        pages.publish(opened, status)
        folder = opened.finish(status, pages.runs_page)
    except StoreError as error:
        raise UsageError(str(error)) from error
    print(f"{len(runs)} runs merged, {status}: {shown(folder / 'index.html')}")
    ends = {"passed": Exit.PASSED, "findings": Exit.FINDINGS}
    return ends.get(status, Exit.LAB_FAILED)


def _order(one: Run) -> tuple[str, str]:
    return one.about.get("shard", ""), one.run_id


def _check(runs: Sequence[Run]) -> None:
    """Raise `UsageError` for runs that are not shares of one run, and for a missing share."""
    first = runs[0].about
    for one in runs[1:]:
        for name in _SAME:
            if one.about.get(name) != first.get(name):
                values = f"{first.get(name)!r} and {one.about.get(name)!r}"
                raise UsageError(
                    f"{runs[0].run_id} and {one.run_id} differ in {name}: {values}; merge shares of one run"
                )
        for category, given in one.about["parameters"].items():
            if first["parameters"].get(category, given) != given:
                raise UsageError(f"{runs[0].run_id} and {one.run_id} differ in the parameters of {category}")
    shares = {one.about.get("shard", "") for one in runs} - {""}
    if shares:
        number = max(int(share.partition("/")[2]) for share in shares)
        absent = [f"{each}/{number}" for each in range(1, number + 1) if f"{each}/{number}" not in shares]
        if absent:
            raise UsageError(f"shares are missing: {', '.join(absent)}")


def _about(runs: Sequence[Run]) -> dict[str, Any]:
    """The merged run's own record: the checks of all, in the order of the notebooks."""
    from lab_utils.checks import CHECKS
    from lab_utils.values.profiles import CATEGORIES

    records = [one.about for one in runs]
    modes = {about.get("calibrate", "changed") for about in records}
    categories = [name for name in CATEGORIES if any(name in about["categories"] for about in records)]
    rows = {row["check"]: row for about in records for row in about["checks"]}
    places = {name: place for place, name in enumerate(CHECKS)}
    checks = sorted(rows.values(), key=lambda row: (categories.index(row["category"]), places.get(row["check"], 0)))
    catalog = {row["name"]: row for about in records for row in about["catalog"]}
    is_all = {row["check"] for row in checks} == {name for name, one in CHECKS.items() if one.category in categories}
    return {
        "command": f"registry-lab merge {' '.join(one.run_id for one in runs)}",
        "target": records[0]["target"],
        "profile": records[0]["profile"],
        "seed": records[0]["seed"],
        "kernel_mode": records[0]["kernel_mode"],
        "provenance": records[0]["provenance"],
        "categories": categories,
        "only_checks": [] if is_all else [row["check"] for row in checks],
        "parameters": {name: values for about in records for name, values in about["parameters"].items()},
        "catalog": [catalog[name] for name in categories],
        "checks": checks,
        "files": {one.name: one.file for one in _notebooks(runs)},
        "notebooks": _ended(runs),
        # What holds of every share: with one of them of fewer planted registries, not all were run.
        "calibrate": modes.pop() if len(modes) == 1 else "changed",
        "merged_from": [one.run_id for one in runs],
    }


@dataclass(frozen=True, slots=True)
class _Notebook:
    """A notebook of a share: its name and file there, and those in the merged run, where other shares have it too."""

    run: Run
    old_name: str
    old_file: str
    name: str
    file: str


def _notebooks(runs: Sequence[Run]) -> list[_Notebook]:
    found = []
    for one in runs:
        share = one.about.get("shard", one.run_id)
        for name, file in one.about["files"].items():
            is_alone = sum(name in other.about["files"] for other in runs) == 1
            names = (name, file) if is_alone else (f"{name} {share}", f"{share.replace('/', '-of-')}-{file}")
            found.append(_Notebook(one, name, file, *names))
    return found


def _ended(runs: Sequence[Run]) -> dict[str, Any]:
    """How each notebook ended, and each category: as the worst of its notebooks."""
    ended: dict[str, Any] = {}
    for one in _notebooks(runs):
        record = one.run.about.get("notebooks", {}).get(one.old_name)
        if record is not None:
            worst = min(ended.get(one.old_name, record), record, key=lambda each: _WORST.index(each["status"]))
            ended |= {one.name: record, one.old_name: worst}
    return ended


def _take(one: Run, opened: OpenRun) -> None:
    """Take over a share's results, beside those already there."""
    from lab_utils.output.store import load_category, save_category

    for category in one.about["categories"]:
        new, there = load_category(one.folder, category), load_category(opened.folder, category)
        if new is not None:
            save_category(opened.folder, new.beside(there) if there is not None else new)


def _copy(one: _Notebook, opened: OpenRun) -> None:
    for old, new in ((one.old_file, one.file), (_page(one.old_file), _page(one.file))):
        path = one.run.folder / "notebooks" / old
        if path.is_file():
            shutil.copyfile(path, opened.path(f"notebooks/{new}"))


def _page(file: str) -> str:
    return file.removesuffix(".ipynb") + ".html"
