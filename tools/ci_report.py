"""Reports a run to a hosted workflow: its step summary, an error at the line at fault for each cause, a comment's text.

`action.yml` calls it: `python tools/ci_report.py RUN_FOLDER --comment FILE`. The workflow's own variables
GITHUB_STEP_SUMMARY and GITHUB_OUTPUT name its files; without them it only prints.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from lab_utils.judges.causes import Cause, causes
from lab_utils.judges.identity import identified
from lab_utils.output.store import Run, read_run
from lab_utils.output.store.digests import digest_of
from lab_utils.runner.again import token_of
from lab_utils.values.quantities import counted
from lab_utils.values.verdict import Outcome

__all__ = ["comment", "errors", "main", "place_of"]

_PLACE: Final = re.compile(r"([\w./-]+\.py):(\d+)")
_MOST_ERRORS: Final = 10
"""A workflow shows no more than ten annotations of a kind and step."""
_LONGEST_COMMENT: Final = 60_000


def place_of(cause: Cause, root: Path) -> tuple[str, int] | None:
    """The file, relative to `root`, and the line that the evidence names of the user's own code: the first of its kind
    below `root`; None where it names none."""
    root = root.resolve()
    for one in cause.all:
        for text in (*one.finding.witness, one.finding.sentence, one.result.traceback):
            for found in _PLACE.finditer(text):
                for path in _paths(found[1], root):
                    if path.is_file() and path.is_relative_to(root):
                        return path.relative_to(root).as_posix(), int(found[2])
    return None


def _paths(name: str, root: Path) -> Iterator[Path]:
    """The files that a name may stand for: the end of a path, which may begin with folders above `root`."""
    parts = Path(name).parts
    for above in range(len(parts)):
        if above == 0 or parts[:above] == root.parts[-above:]:
            yield root.joinpath(*parts[above:]).resolve()


def errors(run: Run, root: Path) -> Iterator[str]:
    """A workflow command for each cause that is not known, the most serious first, and for each check without a
    verdict."""
    known = {one["fingerprint"] for one in run.about.get("baseline", {}).get("known", [])}
    for cause in causes(identified(run.results)):
        new = [one for one in cause.all if one.fingerprint not in known]
        if new:
            place = place_of(cause, root)
            where = {"file": place[0], "line": str(place[1])} if place else {}
            first = next(iter(one for one in cause.findings if one.fingerprint not in known), new[0])
            again = f"registry-lab replay {token_of(first)}"
            text = f"{cause.sentence} {cause.affected}\n{first.finding.sentence}\nRun it again: {again}"
            yield _command({**where, "title": f"{cause.anomaly} in {first.result.check}"}, text)
    for result in run.results:
        if result.outcome is Outcome.UNKNOWN:
            yield _command({"title": f"UNKNOWN {result.check}"}, result.verdict.reason)


def comment(run: Run, summary: str, report: str = "") -> str:
    """The text of a comment: the summary, and where the report is. Its first line is a mark by which a workflow finds
    its own comment, to change it in place of adding another one."""
    where = f"\n\n[The whole report]({report})" if report else ""
    text = (
        summary if len(summary) <= _LONGEST_COMMENT else f"{summary[:_LONGEST_COMMENT]}\n\nThe rest is in the report."
    )
    return f"<!-- agent-registry-lab {run.about['target']} -->\n{text}{where}\n"


def _command(properties: Mapping[str, str], text: str) -> str:
    words = ",".join(f"{name}={_escaped(value, ':,')}" for name, value in properties.items())
    return f"::error {words}::{_escaped(text)}"


def _escaped(text: str, others: str = "") -> str:
    """As a workflow command wants it: no line break, and in a property no sign that ends it."""
    # Text that could be read as another command at the beginning of a line cannot begin one.
    for sign in ("%", "\r", "\n", *others):
        text = text.replace(sign, f"%{ord(sign):02X}")
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Report the run; return 0, whatever was found: the exit code of the run itself decides."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("--comment", type=Path, help="where to write the text of a comment")
    parser.add_argument("--report", default="", help="the address of the whole report, for the comment")
    parser.add_argument("--root", type=Path, default=Path(os.environ.get("GITHUB_WORKSPACE", ".")))
    options = parser.parse_args(arguments)
    run = read_run(options.run.resolve())
    summary = (run.folder / "summary.md").read_text(encoding="utf-8")
    _append("GITHUB_STEP_SUMMARY", summary)
    found = list(errors(run, options.root))
    for line in found[:_MOST_ERRORS]:
        print(line)
    if len(found) > _MOST_ERRORS:
        print(f"{counted(len(found) - _MOST_ERRORS, 'more error')} in the step summary and in the report")
    if options.comment is not None:
        options.comment.write_text(comment(run, summary, options.report), encoding="utf-8")
    digest = digest_of(run)
    count = sum(one.count for check in digest.checks for one in check.found)
    outputs = {"run": run.run_id, "status": run.about["status"], "findings": str(count), "folder": str(run.folder)}
    _append("GITHUB_OUTPUT", "".join(f"{name}={value}\n" for name, value in outputs.items()))
    return 0


def _append(variable: str, text: str) -> None:
    if path := os.environ.get(variable):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text)


if __name__ == "__main__":
    sys.exit(main())
