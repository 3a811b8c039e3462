"""Judges public frameworks, each in an environment of its own, beside our registry, and prints the matrix.

    python -m tools.frameworks [TARGET ...] [--latest] [--keep]
    python -m tools.frameworks [TARGET ...] --check NAME [--keep]
    python -m tools.frameworks --recorded TARGET ...
    python -m tools.frameworks --reproduce [TARGET ...]

Environments are made in build/frameworks, with the recorded versions (`--latest`: with the newest). Each target has a
run of all checks, with its report, in outputs/frameworks. `--keep` makes what was found the record that comes with the
lab, and writes the matrix into docs/frameworks.md. `--check` judges by this check alone, after a change of it, and
leaves the rest of each row as it is recorded. `--recorded` writes nothing: it runs the checks that measure neither
memory nor time, and compares each verdict with the record. `--reproduce` runs the script of each recorded finding.
"""

from __future__ import annotations

import argparse
import html
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import msgspec

from lab_utils.checks import CHECKS
from lab_utils.cli import run as run_command
from lab_utils.cli.plan import make_plan
from lab_utils.cli.repro import reproductions_folder
from lab_utils.cli.running import about_of, status_of
from lab_utils.judges.anomalies import severity
from lab_utils.output import pages
from lab_utils.output.store import CategoryResults, Run, Store, read_run, save_category
from lab_utils.output.store.matrix import (
    FORMAT,
    LEGEND,
    RECORD,
    Cost,
    Found,
    Judged,
    Matrix,
    Row,
    cell,
    found_anomalies,
    judged,
    read_matrix,
    row_of,
    written_matrix,
)
from lab_utils.runner import capabilities_of, run_check
from lab_utils.runner.forkserver import is_available
from lab_utils.runner.interpreter import PYTHON_VARIABLE
from lab_utils.runner.runner import CHECKS_AT_ONCE
from lab_utils.runner.server import SERVER_VARIABLE, server
from lab_utils.targets.frameworks import FRAMEWORKS, Promise, Standing
from lab_utils.values.result import REST_OF_THE_CHECK, CheckResult
from lab_utils.values.verdict import Outcome, Verdict
from tools.bootstrap import ROOT, SetupFailed
from tools.environments import CORE, environment, installed

OURS: Final = "agent_registry"
TARGETS: Final = (OURS, *FRAMEWORKS)
ENVIRONMENTS: Final = ROOT / "build" / "frameworks"
OUTPUTS: Final = ROOT / "outputs" / "frameworks"
PAGE: Final = ROOT / "docs" / "frameworks.md"
BEGIN, END = "<!-- begin: written by `make frameworks ARGS=--keep` -->", "<!-- end -->"
_VARIANT: Final = "_client_ids"
"""A store's memory and speed are measured once, whoever chooses the ids."""
_LIMIT_S: Final = 80.0
"""Seconds with a processor at hand, beyond what a check needs. A long life of a target that loads a whole conversation
for each run would take hours."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"some of {', '.join(TARGETS)} (default: all)")
    parser.add_argument(
        "--unmeasured", action="store_true", help="leave out the checks that measure memory or time: UNKNOWN"
    )
    parser.add_argument("--latest", action="store_true", help="the newest versions in place of the recorded ones")
    parser.add_argument(
        "--check",
        action="append",
        default=[],
        choices=CHECKS,
        metavar="NAME",
        help="run this check only (may be given several times); the rest of a row stays as it is recorded",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--keep", action="store_true", help="make this the record, and write the page of the docs")
    what.add_argument("--reproduce", action="store_true", help="run the script of each recorded finding; judge nothing")
    what.add_argument("--page", action="store_true", help="write the page of the docs from the record; run nothing")
    what.add_argument(
        "--recorded", action="store_true", help="compare verdicts with the record; exit 1 where they differ"
    )
    options = parser.parse_args(arguments)
    for name in options.targets:
        if name not in TARGETS:
            parser.error(f"unknown target {name!r}; known: {', '.join(TARGETS)}")
    names = [name for name in TARGETS if not options.targets or name in options.targets]
    record = read_matrix() if RECORD.is_file() else Matrix(FORMAT, ())
    if is_available():
        # Each target is then imported once, and not by each check.
        os.environ[SERVER_VARIABLE] = server().address
    try:
        if options.recorded:
            return _recorded(names, record)
        if options.reproduce:
            return _reproduce(names, record)
        if not options.page:
            judging = partial(_row, only=options.check) if options.check else _row
            record = _judge(names, record, judging, latest=options.latest, measured=not options.unmeasured)
    except SetupFailed as failure:
        print(f"frameworks: {failure}", file=sys.stderr)
        return 1
    if options.keep:
        RECORD.write_bytes(written_matrix(record))
    if options.keep or options.page:
        PAGE.write_text(with_matrix(PAGE.read_text(encoding="utf-8"), record), encoding="utf-8")
    print("\n".join(matrix_lines(record)))
    return 0


# ------------------------------------------------------------------------------------------------------------- judging


def _judge(
    names: Sequence[str], record: Matrix, judging: Callable[..., Row], *, latest: bool, measured: bool
) -> Matrix:
    """Return the matrix of these targets; with some named, the others as they are recorded."""
    rows = {row.target: row for row in record.rows}
    for name in names:
        is_measured = measured and not name.endswith(_VARIANT)
        rows[name] = judging(name, None if latest else rows.get(name), is_measured=is_measured)
        made = Matrix(FORMAT, tuple(rows[one] for one in TARGETS if one in rows))
        # After each target, so that the findings outlive an interruption.
        (OUTPUTS / "matrix.json").write_bytes(written_matrix(made))
        print(f"frameworks: {name} {rows[name].version}: {_counts(rows[name])}", flush=True)
    return made


def _row(name: str, recorded: Row | None, *, is_measured: bool, only: Collection[str] = ()) -> Row:
    if only and recorded is None:
        raise SetupFailed(f"{name} is not in the record with these versions: run all of its checks, without --check")
    python = _python(name, recorded)
    chosen = [one for one, check in CHECKS.items() if one in (only or CHECKS) and (is_measured or not check.measures)]
    run = _run(name, python, chosen)
    packages = installed(python) if name in FRAMEWORKS else {}
    row = row_of(
        [one for one in run.results if not only or one.check in only],
        target=name,
        version=packages[FRAMEWORKS[name].package] if name in FRAMEWORKS else version("agent-registry-lab"),
        python=_version(python),
        made_on=run.about["started_at"][:10],
        cost=None if only or name.endswith(_VARIANT) else _cost(name, python),
        packages=packages,
    )
    if only and recorded is not None:
        return merged(recorded, row)
    capabilities = capabilities_of(name)
    left_out = [one for one, check in CHECKS.items() if one not in row.checks and not check.lacking(capabilities)]
    return msgspec.structs.replace(row, checks=row.checks | dict.fromkeys(left_out, Judged(Outcome.UNKNOWN)))


def merged(recorded: Row, again: Row) -> Row:
    """The recorded row with some checks as they were judged again.

    Raises `SetupFailed` if these and other checks find the same anomaly, and these found it only once: a row counts the
    findings of all its checks together.
    """
    found: dict[str, Found] = {}
    for anomaly in {*recorded.found, *again.found}:
        finders = {name for name, one in recorded.checks.items() if anomaly in one.anomalies}
        now = {name for name, one in again.checks.items() if anomaly in one.anomalies}
        if not finders - again.checks.keys():
            found |= {anomaly: again.found[anomaly]} if anomaly in again.found else {}
        elif finders & again.checks.keys() == now:
            found[anomaly] = recorded.found[anomaly]
        else:
            raise SetupFailed(f"{recorded.target}: other checks find {anomaly} too: run all of them, without --check")
    in_order = {anomaly: found[anomaly] for anomaly in sorted(found, key=severity)}
    return msgspec.structs.replace(recorded, checks=recorded.checks | again.checks, found=in_order)


def _run(name: str, python: Path, checks: Collection[str]) -> Run:
    """A run of these checks, with its report, as `registry-lab run` makes one, without notebooks: each of their kernels
    would import the framework anew."""
    parser = argparse.ArgumentParser()
    run_command.arguments(parser)
    words = ["--target", name, "--python", str(python), "--calibrate", "never", "--out", str(OUTPUTS)]
    os.environ[PYTHON_VARIABLE] = str(python)
    plan = make_plan(parser.parse_args(words))
    opened = Store(plan.outputs).begin({**about_of(plan), "files": {}})
    with ThreadPoolExecutor(CHECKS_AT_ONCE) as pool:
        asked = partial(_within_limit, target=name, seed=plan.setting.seed, limit_s=_LIMIT_S)
        for category in plan.categories:
            results = tuple(pool.map(asked, [one for one in checks if CHECKS[one].category == category]))
            save_category(opened.folder, CategoryResults(category, True, results, ()))
    status = status_of(opened.read())
    pages.publish(opened, status)
    return read_run(opened.finish(status, pages.runs_page))


def _within_limit(check: str, *, limit_s: float, **options: Any) -> CheckResult:
    """Run a check; without a verdict where it was too slow, which is no finding about a framework."""
    result = run_check(check, limit_s=limit_s, **options)
    late = f"did not end within its limit of {limit_s:g} s"
    others = tuple(one for one in result.verdict.findings if late not in one.sentence)
    if len(others) == len(result.verdict.findings):
        return result
    if not others:
        return replace(result, verdict=Verdict.unknown(f"the check {late}"))
    claim = f"{result.claim} Not part of this result: {REST_OF_THE_CHECK} after {limit_s:g} s."
    return replace(result, verdict=Verdict.of(others, 0, ""), claim=claim)


def _python(name: str, recorded: Row | None) -> Path:
    """The interpreter of a target, with the recorded versions if there are any."""
    if name not in FRAMEWORKS:
        return Path(sys.executable)
    package = FRAMEWORKS[name].package
    wanted = [f"{one}=={number}" for one, number in recorded.packages.items()] if recorded else [*requirements(name)]
    return environment(ENVIRONMENTS / package, wanted)


def requirements(name: str) -> Iterator[str]:
    """The packages of a framework's environment: its extra of the lab, and the lab's own needs beside a target."""
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    yield from extras[FRAMEWORKS[name].extra]
    yield from CORE


def _version(python: Path) -> str:
    code = "import platform; print(platform.python_version())"
    return subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def _cost(name: str, python: Path) -> Cost:
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder, "figures.json")
        command = [str(python), "-m", "benchmarks.target_speed", name, "--json", str(figures)]
        variables = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run(command, cwd=ROOT, env=variables, stdout=subprocess.DEVNULL, check=True)
        return msgspec.convert(json.loads(figures.read_text(encoding="utf-8")), Cost)


# ------------------------------------------------------------------------------------------- comparing with the record


def _recorded(names: Sequence[str], record: Matrix) -> int:
    differing = 0
    for name in names:
        row = record.row(name)
        if row is None:
            print(f"frameworks: {name} is not in the record; `make frameworks ARGS=--keep` writes it", file=sys.stderr)
            return 1
        os.environ[PYTHON_VARIABLE] = str(_python(name, row))
        problems = list(differences(row, (name for name in CHECKS)))
        for problem in problems:
            print(f"frameworks: {name} {row.version}: {problem}", file=sys.stderr, flush=True)
        differing += len(problems)
        if not problems:
            print(f"frameworks: {name} {row.version}: every verdict is as it was recorded on {row.made_on}", flush=True)
    if differing:
        print(
            f"frameworks: {differing} verdict(s) differ from {RECORD.relative_to(ROOT)}. If the lab or an adapter was "
            "meant to change them, `make frameworks ARGS=--keep` records them anew",
            file=sys.stderr,
        )
    return int(differing > 0)


def differences(row: Row, checks: Iterable[str]) -> Iterator[str]:
    """Run each check that measures neither memory nor time, and yield a sentence for each verdict that is another."""
    capabilities = capabilities_of(row.target)
    for name in checks:
        if CHECKS[name].measures or CHECKS[name].category == "service":
            continue
        recorded = row.checks.get(name)
        if CHECKS[name].lacking(capabilities):
            found = Judged(Outcome.NOT_APPLICABLE)
            reason = "it lacks what the check needs"
        else:
            result = run_check(name, target=row.target, profile=row.profile, seed=row.seed)
            found, reason = judged(result), result.verdict.reason
        if recorded is None or (found.outcome, found.anomalies) != (recorded.outcome, recorded.anomalies):
            yield f"{name}: recorded {_words(recorded)}, now {_words(found)} ({reason})"


def _words(one: Judged | None) -> str:
    return "nothing" if one is None else " ".join([one.outcome.replace("_", " "), ", ".join(one.anomalies)]).strip()


def _reproduce(names: Sequence[str], record: Matrix) -> int:
    """Run the script of each finding in its framework's environment; 1 if one does not show its fault."""
    absent = 0
    for row in (row for row in record.rows if row.target in names and row.found):
        python = _python(row.target, row)
        for script, anomalies in _scripts(row).items():
            path = reproductions_folder() / f"{script}.py"
            done = subprocess.run([str(python), str(path)], capture_output=True, text=True, check=False)
            said = (done.stdout or done.stderr).strip().splitlines()[-1:]
            word = "shows" if done.returncode == 0 else "does not show"
            print(f"{script}.py {word} {', '.join(anomalies)} in {row.version}: {' '.join(said)}", flush=True)
            absent += done.returncode != 0
    return int(absent > 0)


def _scripts(row: Row) -> dict[str, list[str]]:
    """The scripts of a row's findings, each with the anomalies that it shows."""
    scripts: dict[str, list[str]] = {}
    for anomaly in row.found:
        promise = _promise(row.target, anomaly)
        scripts.setdefault(promise.reproduction if promise else "", []).append(anomaly)
    return scripts


# ------------------------------------------------------------------------------------------------------------- the page


def with_matrix(page: str, matrix: Matrix) -> str:
    """The page with its generated part written anew."""
    before, _, rest = page.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise SystemExit(f"frameworks: {PAGE.name} lacks the marks of its generated part: {BEGIN} and {END}")
    return "\n".join([f"{before}{BEGIN}", "", *matrix_lines(matrix), "", f"{END}{after}"])


def matrix_lines(matrix: Matrix) -> Iterator[str]:
    """The whole matrix in Markdown: the targets, the cells, each finding beside its promise, the costs."""
    rows = matrix.rows
    yield f"Our own registry was judged on {rows[0].made_on}; the dates of the others stand above their findings."
    yield ""
    yield from _table(
        ["target", "judged", "version", *_COUNTED, "N/A"],
        [[f"`{row.target}`", summary(row.target), row.version, *_counts(row)] for row in rows],
    )
    yield from ("", f"Each anomaly that was found on any of them. {LEGEND}", "")
    yield from _table(
        ["", *(f"`{row.target}`" for row in rows)],
        [[f"`{anomaly}`", *(_cell(matrix, row, anomaly) for row in rows)] for anomaly in found_anomalies(matrix)],
    )
    for row in rows:
        if row.found:
            yield from ("", f"### `{row.target}` {row.version}", "", f"Judged on {row.made_on}.", "")
            yield from _table(
                ["anomaly", "what the lab found", "its documentation"],
                [_finding(row, anomaly) for anomaly in row.found],
            )
    yield from ("", "### Speed and size", "")
    yield from _table(
        ["", "create and note", "get", "end", "a live user", "left per ended user"],
        [_costs(row) for row in rows if row.cost] + [_floor(rows)],
    )


def summary(target: str) -> str:
    """A target's description, in a few words."""
    return FRAMEWORKS[target].summary if target in FRAMEWORKS else "our own registry"


def _counts(row: Row) -> list[str]:
    outcomes = [one.outcome for one in row.checks.values()]
    return [str(outcomes.count(word)) for word in (*_COUNTED, Outcome.NOT_APPLICABLE)]


_COUNTED: Final = (Outcome.PASS, Outcome.FAIL, Outcome.UNKNOWN)


def _cell(matrix: Matrix, row: Row, anomaly: str) -> str:
    shown = cell(matrix, row, anomaly)
    if shown.outcome is not Outcome.FAIL:
        return shown.sign
    promise = _promise(row.target, anomaly)
    return f"**{shown.sign}{promise.standing.letter if promise else ''}**"


def _finding(row: Row, anomaly: str) -> list[str]:
    found, promise = row.found[anomaly], _promise(row.target, anomaly)
    if promise is None:
        return [f"`{anomaly}`", _plain(found.sentence), "not looked up"]
    where = f"[there]({promise.document})" if promise.document.startswith("https:") else promise.document
    more = f" ({found.count:,} findings)" if found.count > 1 else ""
    said = f"{_plain(found.sentence)}{more}; `{promise.reproduction}.py`"
    nearest = "it is silent, and the nearest is " if promise.standing is Standing.UNSAFE else ""
    return [f"`{anomaly}`", said, f"*{promise.standing.capitalize()}*: {nearest}“{_plain(promise.quote)}” ({where})"]


def _promise(target: str, anomaly: str) -> Promise | None:
    return FRAMEWORKS[target].promises.get(anomaly) if target in FRAMEWORKS else None


def _plain(text: str) -> str:
    """Text that Markdown shows as it is: backslashes before what every dialect escapes so, entities for the rest."""
    escaped = re.sub(r"([\\`*_\[\]#])", r"\\\1", html.escape(text, quote=False))
    return escaped.replace("|", "&#124;").replace("~", "&#126;")


def _costs(row: Row) -> list[str]:
    cost = row.cost
    assert cost is not None
    times = (
        (cost.create_us, cost.floor_create_us),
        (cost.get_us, cost.floor_get_us),
        (cost.end_us, cost.floor_end_us),
    )
    sizes = (cost.live_bytes, cost.left_bytes)
    return [
        f"`{row.target}`",
        *("–" if us is None else f"{us:,.0f} µs" for us, _ in times),
        *("–" if size is None else f"{size:,.0f} B" for size in sizes),
    ]


def _floor(rows: Sequence[Row]) -> list[str]:
    """The plain dict, as it was measured beside the first target."""
    cost = next((row.cost for row in rows if row.cost), None)
    if cost is None:
        return ["a plain dict"] + ["–"] * 5
    times = (cost.floor_create_us, cost.floor_get_us, cost.floor_end_us)
    return ["a plain dict", *(f"{us:,.1f} µs" for us in times), "–", "–"]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    for line in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(line)} |"


if __name__ == "__main__":
    sys.exit(main())
