"""`registry-lab baseline`: writes the findings of a run as a file of known findings, for `run --baseline`."""

from __future__ import annotations

import argparse
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from lab_utils.cli.compare import known_run
from lab_utils.cli.exits import Exit
from lab_utils.values.profiles import UsageError
from lab_utils.values.texts import shown

if TYPE_CHECKING:
    from lab_utils.judges.baseline import Baseline
    from lab_utils.output.store.history import History

__all__ = ["arguments", "read_baseline", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `baseline`."""
    parser.add_argument("run", metavar="RUN", help="the run whose findings are known: its name, its folder, or latest")
    parser.add_argument("file", type=Path, metavar="FILE", help="where to write them, as TOML")
    parser.add_argument("--reason", required=True, help="why they may stay, as a ticket's number")
    parser.add_argument("--expires", default="", metavar="DATE", help="their last day, as 2027-01-31 (default: none)")
    parser.add_argument("--out", default="outputs", metavar="FOLDER", help="where runs are (default: %(default)s)")


def run(options: argparse.Namespace) -> int:
    from lab_utils.judges.baseline import written_known
    from lab_utils.output.store import StoreError
    from lab_utils.output.store.files import write

    if not options.reason.strip():
        raise UsageError("--reason is empty; say why the findings may stay")
    if options.expires:
        try:
            date.fromisoformat(options.expires)
        except ValueError as error:
            raise UsageError(f"--expires {options.expires}: {error}; write a date as 2027-01-31") from error
    try:
        digest = known_run(options.run, Path(options.out))
    except StoreError as error:
        raise UsageError(str(error)) from error
    found = [(check.check, one) for check in digest.checks for one in check.found]
    write(options.file, written_known(found, options.reason, options.expires))
    print(f"{len(found)} known findings of run {shown(digest.run_id)}: {shown(options.file)}")
    return Exit.PASSED


def read_baseline(text: str, outputs: Path, history: History | None) -> Baseline:
    """The baseline that a file of known findings or the name of a run stands for. Raises `UsageError`."""
    from lab_utils.judges.baseline import Baseline, read_known
    from lab_utils.output.store import StoreError

    path = Path(text)
    try:
        if path.is_file():
            return read_known(path.read_text(encoding="utf-8"), text)
        return Baseline.of_run(known_run(text, outputs, history))
    except (OSError, ValueError, StoreError) as error:
        raise UsageError(f"--baseline: {error}") from error
