"""Carries out the plan of `registry-lab run`: the notebooks, the overview, the report, the summary."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Final

from rich.console import Console

from lab_utils.batch import (
    KERNEL_MODE,
    Ended,
    Job,
    Status,
    check_parameters,
    notebooks_folder,
    publish,
    run_notebooks,
)
from lab_utils.batch.errand import lab_here
from lab_utils.checks import CHECKS
from lab_utils.cli import display
from lab_utils.cli.baseline import baseline_lines, baseline_record
from lab_utils.cli.checks_display import Progress
from lab_utils.cli.plan import Plan, environment
from lab_utils.cli.terminal import say
from lab_utils.judges.baseline import Judged
from lab_utils.notebook.lab import CHECKS_VARIABLE, RESUME_VARIABLE
from lab_utils.notebook.progress import PROGRESS_VARIABLE
from lab_utils.output import pages
from lab_utils.output.store import PARTIAL, RUN_VARIABLE, OpenRun, Run, Store, StoreError, find_run, provenance
from lab_utils.output.store.digests import digest_of
from lab_utils.output.store.record import read_record
from lab_utils.runner.calibrations import KEPT_VARIABLE, MODE_VARIABLE
from lab_utils.runner.forkserver import is_available
from lab_utils.runner.runner import JOBS_VARIABLE
from lab_utils.runner.server import OTHER_SERVER_VARIABLE, SERVER_VARIABLE, server
from lab_utils.service import LOG_VARIABLE, PREFIX
from lab_utils.trial import protected
from lab_utils.values.profiles import CATEGORIES
from lab_utils.values.quantities import counted
from lab_utils.values.result import CheckResult
from lab_utils.values.texts import shown
from lab_utils.values.verdict import FINE, Outcome

__all__ = ["about_of", "checks_of", "ended_as_interrupted", "path_here", "resuming", "run", "status_of"]

OVERVIEW: Final = "overview"
PLANTED_DEFECTS: Final = "planted_defects"
FRAMEWORKS: Final = "frameworks"
# Pages of the run as a whole, once it is all there.
_OF_THE_RUN: Final = {
    OVERVIEW: "00_overview.ipynb",
    PLANTED_DEFECTS: "08_planted_defects.ipynb",
    FRAMEWORKS: "10_frameworks.ipynb",
}
_LAB_FAILED: Final = (Status.ERROR, Status.TIMEOUT, Status.DEAD_KERNEL)
# In the notebooks as they are kept, for a folder that is renamed when the run ends, and that their readers do not have.
_THIS_RUN: Final = f"${RUN_VARIABLE}"
_OWN_TEXTS: Final = "protects.toml"
# Beside the checks that run, so many notebooks draw and wait for their turn: in all there are six, and their kernels
# are forked from one process, so that one which waits costs little.
_WAITING: Final = 4


def run(plan: Plan, console: Console | None = None) -> str:
    """Run the plan; return how it ended: passed, findings or error. Prints the summary and the path of the report.

    Raises `UsageError` before anything runs if the notebooks do not take these parameters, and `StoreError` where
    nothing can be written. On KeyboardInterrupt, also that of a SIGTERM or of a terminal that is closed, the run stays
    as `<run_id>.partial`, with a report of the results so far, and the interrupt is raised again; the same happens on
    an error here. Once the run has finished, nothing changes how it ended.
    """
    console = console or Console(file=sys.stdout)
    folder = notebooks_folder()
    for job in _jobs(plan, folder):
        check_parameters(job.notebook, job.parameters)
    with ended_as_interrupted(), _shared(plan):
        opened = Store(plan.outputs).begin(about_of(plan))
        try:
            if plan.resumed is not None:
                opened.take_results(plan.resumed)
                display.line(
                    f"taken over from {plan.resumed.run_id}: the results of the checks that it has done", console
                )
            if plan.baseline is not None:
                known = counted(len(plan.baseline.known), "known finding")
                display.line(shown(f"baseline: {plan.baseline.source}: {known}"), console)
            ended = _notebooks(plan, folder, opened, console)
            read = opened.read()
            opened.note(seconds={result.check: round(result.duration_s, 2) for result in read.results})
            judged = _judged(plan, read)
            status = _status(read, ended, judged)
            if judged is not None and plan.baseline is not None:
                opened.note(baseline=baseline_record(plan.baseline.source, judged))
            publish(opened, status)
            _finish(opened, status)
        except KeyboardInterrupt:
            _abandon(opened, "cancelled", console)
            raise
        except BaseException:
            _abandon(opened, "error", console)
            raise
    try:
        _keep_in_history(plan, opened)
        _summarise(read, ended, status, console, judged)
        display.line(f"report: {path_here(opened.folder / 'index.html')}", console)
    except Exception as error:
        say(f"the summary cannot be shown ({type(error).__name__}: {error}); the report is in {opened.folder}")
    return status


def _judged(plan: Plan, read: Run) -> Judged | None:
    if plan.baseline is None:
        return None
    return plan.baseline.judge(digest_of(read), datetime.now(UTC).date(), plan.history.runs() if plan.history else ())


def _keep_in_history(plan: Plan, opened: OpenRun) -> None:
    """Keep the digest for comparisons; a history that cannot be written does not make it another run."""
    if plan.history is not None:
        try:
            plan.history.add(digest_of(opened.read()))
        except StoreError as error:
            say(f"{error}; `registry-lab history {plan.history.where} --add {opened.run_id}` keeps it later")


def _finish(opened: OpenRun, status: str) -> None:
    """End the run; a list of runs that cannot be written afterwards does not make it another run."""
    try:
        opened.finish(status, pages.runs_page)
    except Exception as error:
        if _is_partial(opened):
            raise
        say(f"the list of runs cannot be written ({type(error).__name__}: {error})")


def _abandon(opened: OpenRun, status: str, console: Console) -> None:
    """Keep an unfinished run with a report of its results, and print its path. An error here is not raised: another one
    is on its way, and a disk may be full."""
    report = ""
    if _is_partial(opened):
        display.line(
            "interrupted; keeping the results so far" if status == "cancelled" else "keeping the results so far",
            console,
        )
        with suppress(Exception):
            publish(opened, status)
            report = "index.html"
        with suppress(Exception):
            opened.abandon(status, pages.runs_page)
    if opened.folder.is_dir():
        words = "partial report" if report else "the unfinished run"
        display.line(f"{words}: {path_here(opened.folder / report)}", console)
        if report:
            display.line(f"{resuming(opened.folder.parent, opened.run_id)} makes what is missing", console)


def resuming(outputs: Path, name: str) -> str:
    """The command that takes up this run or grid, typed here."""
    out = "" if outputs.resolve() == Path("outputs").resolve() else f" --out {shlex.quote(path_here(outputs))}"
    return f"registry-lab run --resume {name}{out}"


def _is_partial(opened: OpenRun) -> bool:
    return opened.folder.name.endswith(PARTIAL)


def _shared(plan: Plan) -> AbstractContextManager[None]:
    """While inside, the processes below this one use its fork servers, and keep calibrations beside the runs."""
    python = plan.setting.python
    return environment(
        **{
            KEPT_VARIABLE: os.environ.get(KEPT_VARIABLE) or str(plan.outputs.absolute() / ".calibrations"),
            MODE_VARIABLE: plan.calibrate,
            JOBS_VARIABLE: str(plan.jobs),
            **plan.setting.environment,
            CHECKS_VARIABLE: ",".join(plan.checks),
            RESUME_VARIABLE: plan.resumed.run_id if plan.resumed else None,
            SERVER_VARIABLE: str(server().path) if is_available() else None,
            OTHER_SERVER_VARIABLE: f"{server(python).address}:{python}" if python and is_available() else None,
        }
    )


def _notebooks(plan: Plan, folder: Path, opened: OpenRun, console: Console) -> dict[str, Ended]:
    if plan.protects:
        lines = (f"{name} = {json.dumps(text)}" for name, text in plan.protects.items())
        opened.write(_OWN_TEXTS, "\n".join(lines) + "\n")
    jobs = _jobs(plan, folder)
    after = [Job(name, folder / file, {"run": _THIS_RUN}) for name, file in _of_the_run(plan).items()]
    with (
        tempfile.TemporaryDirectory(prefix="registry-lab-progress-") as scratch,
        environment(
            **{PROGRESS_VARIABLE: f"{scratch}/checks", LOG_VARIABLE: str(opened.folder.absolute() / "service")}
        ),
        display.live(
            [job.name for job in (*jobs, *after)],
            console,
            progress=Progress(checks_of(plan), Path(scratch, "checks"), time.monotonic, _usual_seconds(plan)),
        ) as show,
    ):
        # The longest first: begun last it would run alone, when the others have ended.
        by_length = sorted(jobs, key=lambda job: -CATEGORIES[job.name].weight)
        ended = run_notebooks(by_length, opened, at_once=plan.jobs + _WAITING, limit_s=plan.limit_s, on_event=show)
        ended = {job.name: ended[job.name] for job in jobs if job.name in ended}
        return ended | run_notebooks(after, opened, at_once=len(after), limit_s=plan.limit_s, on_event=show)


def checks_of(plan: Plan) -> list[str]:
    """The checks that the plan runs."""
    every = [name for name, check in CHECKS.items() if check.category in plan.categories]
    return [name for name in every if not plan.checks or name in plan.checks]


def _usual_seconds(plan: Plan) -> dict[str, float]:
    """How long each check took in the latest run of this target and profile."""
    try:
        about = read_record(find_run(plan.outputs))
    except StoreError:
        return {}
    is_like = (about["target"], about["profile"]) == (plan.setting.target, plan.setting.profile)
    return about.get("seconds", {}) if is_like else {}


def _jobs(plan: Plan, folder: Path) -> list[Job]:
    setting = plan.setting
    common: dict[str, int | float | str | bool] = {
        "target": setting.target,
        "profile": setting.profile,
        "seed": setting.seed,
        "protects": f"{_THIS_RUN}/{_OWN_TEXTS}" if plan.protects else "",
        "save_to": _THIS_RUN,
        "fail_on_findings": True,
    }
    return [
        Job(name, folder / CATEGORIES[name].notebook, {**setting.parameters[name], **common}, category=name)
        for name in plan.categories
    ]


def _of_the_run(plan: Plan) -> dict[str, str]:
    """The notebooks of the run as a whole. A service is not among the targets that frameworks are compared with, and a
    run without calibrations has no planted defects to show."""
    out = {FRAMEWORKS: plan.setting.target.startswith(PREFIX), PLANTED_DEFECTS: plan.calibrate == "never"}
    return {name: file for name, file in _OF_THE_RUN.items() if not out.get(name)}


def about_of(plan: Plan) -> dict[str, object]:
    """What run.json holds of a run before anything has run."""
    catalog = [CATEGORIES[name] for name in plan.categories]
    setting = plan.setting
    return {
        "command": plan.command,
        "target": setting.target,
        "profile": setting.profile,
        "seed": setting.seed,
        "categories": list(plan.categories),
        "only_checks": list(plan.checks),
        "parameters": setting.parameters,
        "catalog": [{"name": one.name, "question": one.question, "notebook": one.notebook} for one in catalog],
        "checks": [
            {
                "check": check.name,
                "category": check.category,
                "claim": check.claim,
                "looks_like": check.looks_like,
                "protects": plan.protects.get(check.name)
                or plan.protects.get(check.protects)
                or protected(check.protects, setting.target),
            }
            for check in CHECKS.values()
            if check.category in plan.categories and (not plan.checks or check.name in plan.checks)
        ],
        "files": {**{one.name: one.notebook for one in catalog}, **_of_the_run(plan)},
        "kernel_mode": KERNEL_MODE,
        "calibrate": plan.calibrate,
        "lab": lab_here(),
        **({"shard": plan.shard} if plan.shard else {}),
        **({"resumed_from": plan.resumed.run_id} if plan.resumed else {}),
        "provenance": provenance(),
    }


def _status(run: Run, ended: Mapping[str, Ended], judged: Judged | None = None) -> str:
    statuses = [one.status for one in ended.values()]
    if any(status in _LAB_FAILED for status in statuses):
        return "error"
    known = _known_checks(run, judged)
    outcomes = [result.outcome for result in run.results]
    # Where nothing passed, nothing was shown, even if every check says that it does not apply.
    if not (Outcome.PASS in outcomes or known):
        return "findings"
    bad = [result for result in run.results if result.outcome not in FINE and result.check not in known]
    if bad or not all(one.caught for one in run.calibrations) or (judged is not None and not judged.passes):
        return "findings"
    # A notebook's gate knows of no baseline: it fails for a known finding too.
    excused = {result.category for result in run.results if result.check in known}
    failed = {name for name, one in ended.items() if one.status is Status.FAILED}
    return "findings" if failed - excused else "passed"


def status_of(run: Run) -> str:
    """How a run ended, by its files: its results, its calibrations, and how its notebooks ended."""
    notebooks = run.about.get("notebooks", {})
    return _status(run, {name: Ended(Status(one["status"]), one["seconds"]) for name, one in notebooks.items()})


def _known_checks(run: Run, judged: Judged | None) -> set[str]:
    """The checks that failed with known findings only."""
    if judged is None:
        return set()
    return {one.check for one in digest_of(run).checks if judged.is_known(one)}


def _summarise(
    run: Run, ended: Mapping[str, Ended], status: str, console: Console, judged: Judged | None = None
) -> None:
    rows, remarks = [], list(baseline_lines(judged) if judged else ())
    known = _known_checks(run, judged)
    for name, one in ended.items():
        results = [result for result in run.results if result.category == name]
        planted = [calibration for calibration in run.calibrations if calibration.result.category == name]
        passed = _passed([result.outcome for result in results])
        caught = f"{sum(calibration.caught for calibration in planted)}/{len(planted)}" if planted else ""
        rows.append((name, one.status.value, passed, caught, f"{one.seconds:.1f}"))
        remarks += _not_fine(results, known)
        remarks += [
            f"NOT CAUGHT {calibration.planted} by {calibration.result.check}: a pass of this check means nothing"
            for calibration in planted
            if not calibration.caught
        ]
        if one.status in _LAB_FAILED:
            remarks.append(f"{one.status.upper()} {name}: {one.message}")
        elif one.status is Status.FAILED and not any(result.outcome not in FINE for result in results):
            remarks.append(f"FAILED {name}: {one.message}")
    # Findings speak for themselves.
    if not known and not any(result.outcome in (Outcome.PASS, Outcome.FAIL) for result in run.results):
        remarks.append("no check passed, so nothing was shown")
    only = run.about.get("only_checks", [])
    display.summary(rows, [*remarks, *([f"only: {', '.join(only)}"] if only else [])], console)
    passed = "passed, except for known findings" if known else "all passed"
    words = {"passed": passed, "findings": "not passed", "error": "the lab itself failed"}
    display.line(f"\n{words[status]}: run {run.run_id}", console)


def _not_fine(results: Iterable[CheckResult], known: Collection[str]) -> Iterator[str]:
    """A line for each check that did not pass; one line for all that have the same reason, as where nothing starts."""
    checks: dict[tuple[str, str], list[str]] = {}
    for result in results:
        if result.outcome not in FINE:
            word = "KNOWN" if result.check in known else str(result.outcome)
            checks.setdefault((word, _brief(result)), []).append(result.check)
    for (word, reason), (first, *others) in checks.items():
        also = f" and {counted(len(others), 'other check')}" if others else ""
        yield f"{word} {first}{also}: {reason}"


def _brief(result: CheckResult) -> str:
    """The reason. Of a FAIL with the number of the parts that were left out, which the report names: they are long, and
    decide nothing there."""
    found, *parts = result.verdict.reason.split("; left out: ")
    is_short = parts and result.outcome is Outcome.FAIL
    return f"{found}; {counted(len(parts), 'part')} left out" if is_short else result.verdict.reason


def _passed(outcomes: Sequence[Outcome]) -> str:
    """How many of the applicable checks passed; those that do not apply are counted beside."""
    beside = outcomes.count(Outcome.NOT_APPLICABLE)
    of = len(outcomes) - beside
    words = [f"{outcomes.count(Outcome.PASS)}/{of}"] if of else []
    return ", ".join([*words, *([f"{beside} n/a"] if beside else [])])


def path_here(path: Path) -> str:
    """A path as one would type it here."""
    return shown(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


@contextmanager
def ended_as_interrupted() -> Iterator[None]:
    """While inside, a SIGTERM or a SIGHUP is a KeyboardInterrupt: the end of the lab must not leave its kernels behind.
    One that is ignored, as under nohup, stays so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        # The second one, of a shell beside its terminal's, would come amid the report of the results.
        for each in taken:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    numbers = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    before = {number: signal.getsignal(number) for number in numbers}
    taken = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    for number in taken:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in taken.items():
            signal.signal(number, handler)
