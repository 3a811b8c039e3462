"""`registry-lab baseline`: writes the findings of a run as a file of known findings, for `run --baseline`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from lab_utils.cli.compare import known_run
from lab_utils.cli.exits import Exit
from lab_utils.values.profiles import UsageError
from lab_utils.values.quantities import counted, quantity
from lab_utils.values.texts import shown

if TYPE_CHECKING:
    from lab_utils.cli.plan import Setting
    from lab_utils.judges.baseline import Baseline, Judged
    from lab_utils.output.store.history import History
    from lab_utils.output.store.record import BaselineRecord
    from lab_utils.values.digest import Digest

__all__ = ["arguments", "baseline_lines", "baseline_record", "read_baseline", "run"]

_MOST = 20
_FINISHED = ("passed", "findings")


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
    print(f"{counted(len(found), 'known finding')} of run {shown(digest.run_id)}: {shown(options.file)}")
    return Exit.PASSED


def read_baseline(
    text: str, outputs: Path, history: History | None, *, like: Setting, checks: Sequence[str]
) -> Baseline:
    """The baseline that a file of known findings or the name of a run stands for.

    `latest` is a finished run of the same target and profile, here or in the history: of those that ran the most of
    `checks`, the newest. Without one nothing is known. Raises `UsageError`.
    """
    from lab_utils.judges.baseline import Baseline, read_known
    from lab_utils.output.store import LATEST, StoreError

    path = Path(text)
    try:
        if path.is_file():
            return read_known(path.read_text(encoding="utf-8"), text)
        if text == LATEST:
            found = _latest(outputs, history, like, frozenset(checks))
            kind = f"{like.target}, profile {like.profile}"
            return Baseline.of_run(found) if found else Baseline(f"{LATEST} (no earlier run of {kind})", {})
        return Baseline.of_run(known_run(text, outputs, history))
    except StoreError as error:
        raise UsageError(f"--baseline: no file {text!r}, and {error}") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"--baseline: {error}") from error


def _latest(outputs: Path, history: History | None, like: Setting, checks: frozenset[str]) -> Digest | None:
    from lab_utils.output.store import read_run, summaries
    from lab_utils.output.store.digests import digest_of

    kind = like.target, like.profile
    found = [
        (len(checks & {check.check for check in one.checks}), one.started_at, one.run_id, one)
        for one in (history.runs() if history else ())
        if (one.target, one.profile) == kind and one.status in _FINISHED
    ]
    best = max(found, key=lambda one: one[:3], default=None)
    here = [
        (len(checks & {row["check"] for row in about["checks"]}), about["started_at"], one.run_id, one.path)
        for one in (summaries(outputs) if outputs.is_dir() else ())
        if (about := one.about) and (about["target"], about["profile"]) == kind and one.state in _FINISHED
    ]
    place = max(here, key=lambda one: one[:3], default=None)
    if place is not None and place[3] is not None and (best is None or place[:3] >= best[:3]):
        return digest_of(read_run(place[3]))
    return best[3] if best else None


def baseline_lines(judged: Judged) -> Iterator[str]:
    """A baseline's judgement of a run, findings that do not pass first."""
    for check, one in judged.new[:_MOST]:
        about = f"{one.key}, {counted(one.count, 'finding')}, {one.fingerprint}"
        yield f"NEW {one.anomaly} in {check}: {one.cause} ({about})"
    if len(judged.new) > _MOST:
        yield f"and {len(judged.new) - _MOST} more that are new"
    for check, one, entry in judged.expired[:_MOST]:
        yield f"EXPIRED {one.anomaly} in {check}: known until {entry.expires} ({entry.reason})"
    for change in judged.regressions[:_MOST]:
        values = f"{quantity(change.before, change.unit)} -> {quantity(change.after, change.unit)}"
        yield f"WORSE {change.metric} of {change.check}: {values}"
    for check, one, entry in judged.known[:_MOST]:
        until = f", until {entry.expires}" if entry.expires else ""
        yield f"known: {one.anomaly} in {check}, {counted(one.count, 'finding')}: {entry.reason}{until}"
    for entry in judged.gone[:_MOST]:
        yield f"gone: {entry.anomaly or entry.fingerprint} in {entry.check} was known and was not found"


def baseline_record(source: str, judged: Judged) -> BaselineRecord:
    """The part of it that run.json keeps."""
    return {
        "source": source,
        "known": [
            {"check": check, "fingerprint": one.fingerprint, "reason": entry.reason, "expires": entry.expires}
            for check, one, entry in judged.known
        ],
        "new": len(judged.new),
        "expired": len(judged.expired),
        "regressions": len(judged.regressions),
        "gone": len(judged.gone),
    }
