"""`registry-lab check`: runs single checks without any notebook and prints their findings."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lab_utils.cli.exits import Exit
from lab_utils.cli.plan import Setting, add_setting, environment, known_checks, python_of, read_setting
from lab_utils.cli.terminal import progress
from lab_utils.judges.difference import Line, witness_lines
from lab_utils.judges.remedies import remedy_for
from lab_utils.runner.server import begin
from lab_utils.service import LOG_VARIABLE, PREFIX
from lab_utils.values.profiles import CATEGORIES, UsageError
from lab_utils.values.quantities import counted, moment
from lab_utils.values.texts import shown
from lab_utils.values.verdict import LONGEST_TOKEN, REPLAY

if TYPE_CHECKING:
    from lab_utils.judges.identity import Identified
    from lab_utils.values.result import CheckResult, Measurement

__all__ = ["arguments", "run"]

_MOST_ALIKE: Final = 3
_MOST_WITNESSES: Final = 12
_MOST_LETTERS: Final = 400
_MOST_MEASURED: Final = 20
_MOST_LINES: Final = 40
_WIDEST: Final = 120
_MISSED: Final = "NOT CAUGHT"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `check`."""
    parser.epilog = (
        "exit codes: 0 pass or not applicable, 1 findings, unknown or a planted registry that was not caught, 2 wrong "
        "usage, 3 the lab itself failed, 130 interrupted"
    )
    parser.add_argument("checks", nargs="+", metavar="NAME", help="`registry-lab list checks` names them")
    add_setting(parser)
    parser.add_argument(
        "--calibrate",
        default="",
        metavar="WHEN",
        help="run the check on planted registries, too: changed (where the lab, Python, packages, profile or seed have "
        "changed since), always, all (always, and in the profile smoke on every one, not on one for each anomaly), or "
        "never (default: only say whether that was done)",
    )
    parser.add_argument(
        "--in-process", action="store_true", help="run it in this process, for a debugger; then nothing limits it"
    )


def run(options: argparse.Namespace) -> int:
    """Run the checks one after another and print each verdict as soon as it is there."""
    if options.in_process and options.check_timeout is not None:
        raise UsageError("--in-process: nothing limits a check there; leave --check-timeout out")
    if options.in_process and options.python:
        raise UsageError("--in-process: this process has its own interpreter; leave --python out")
    if not options.in_process:
        begin()
    with environment(**python_of(options)):
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    names = known_checks(options.checks, of_services=options.service is not None)
    from lab_utils.checks import CHECKS
    from lab_utils.runner import capabilities_of
    from lab_utils.runner.calibrations import calibration_mode

    setting = read_setting(options, [name for name in CATEGORIES if name in {CHECKS[one].category for one in names}])
    if options.calibrate:
        calibration_mode(options.calibrate)
    # A target that cannot be made is wrong usage, and no finding of a check.
    with environment(**setting.environment):
        capabilities_of(setting.target, limit_s=setting.check_limit_s)
        words = [_one(name, setting, options.calibrate, in_process=options.in_process) for name in names]
    if len(words) > 1:
        counts = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))
        _print([f"{len(words)} checks: {counts}"])
    return Exit.PASSED if set(words) <= {"PASS", "NOT APPLICABLE"} else Exit.FINDINGS


def _one(check: str, setting: Setting, mode: str, *, in_process: bool) -> str:
    """Run one check and print its result; return its verdict's word, or that it missed a planted registry."""
    from lab_utils.checks import CHECKS
    from lab_utils.runner import run_check

    ask = partial(
        run_check,
        check,
        target=setting.target,
        profile=setting.profile,
        seed=setting.seed,
        parameters=setting.parameters[CHECKS[check].category],
    )
    if in_process:
        # Its output, and a debugger's prompt, go to the terminal as they are.
        result = ask(in_process=True)
    else:
        with progress(check) as show:
            result = ask(on_progress=show)
        _print(_printed_by_target(result.printed.splitlines()))
    word = result.outcome.replace("_", " ")
    _print([f"{word} {check} on {shown(setting.target)}", *_found(result)])
    does_apply = word != "NOT APPLICABLE"
    calibrated, missed = _calibrated(check, setting, mode) if does_apply else ("not applicable", False)
    operations = f"{len(result.operations):,} operations in " if result.operations else ""
    again = shlex.join(["registry-lab", "check", check, *setting.words])
    _print(
        [
            *([_line(calibrated)] if does_apply else []),
            _line(f"took: {operations}{result.duration_s:.2f} s, profile {setting.profile}, seed {setting.seed}"),
            *_records(check, setting),
            f"  again: {shown(again, LONGEST_TOKEN)}",
            "",
        ]
    )
    return _MISSED if missed else word


def _records(check: str, setting: Setting) -> Iterator[str]:
    """Where the requests to a service and its answers are kept."""
    if not setting.target.startswith(PREFIX):
        return
    if folder := os.environ.get(LOG_VARIABLE):
        yield _line(f"requests and answers: {folder}")
    else:
        run = shlex.join(["registry-lab", "run", "--check", check, *setting.words])
        yield _line("requests and answers are not kept; this keeps them in its folder, service/*.jsonl:")
        yield f"    {shown(run, LONGEST_TOKEN)}"


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line, flush=True)


def _line(text: str, indent: int = 2, most: int = _MOST_LETTERS) -> str:
    """A paragraph, indented, and wrapped where somebody looks at it."""
    line = " " * indent + shown(text, most)
    if not sys.stdout.isatty():
        return line
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    return textwrap.fill(line, max(width, 2 * indent + 8), subsequent_indent=" " * (indent + 2)) or line


def _printed_by_target(lines: Sequence[str]) -> Iterator[str]:
    """Head and tail of the target's own output."""
    head, tail = lines[: _MOST_LINES // 2], lines[_MOST_LINES // 2 :][-_MOST_LINES // 2 :]
    cut = len(lines) - len(head) - len(tail)
    for line in (*head, *([f"... {cut:,} lines are left out here ..."] if cut else []), *tail):
        yield f"printed: {shown(line, _MOST_LETTERS)}"


def _found(result: CheckResult) -> Iterator[str]:
    """The reason of the verdict, the findings with their witnesses, the measurements, and the notes."""
    for part in result.verdict.reason.split("; "):
        yield _line(part)
    yield from _findings(result)
    if result.traceback:
        for line in result.traceback.splitlines()[-_MOST_WITNESSES:]:
            yield f"      {shown(line, _MOST_LETTERS)}"
    yield from _measured(result.measurements)
    for note in result.notes:
        yield _line(f"note: {note}")


def _findings(result: CheckResult) -> Iterator[str]:
    """Cause by cause: the sentence for people, the affected users, the few findings that explain it, the command to run
    it again, and the findings that follow from it."""
    from lab_utils.judges.causes import causes
    from lab_utils.judges.identity import identified
    from lab_utils.runner.again import token_of

    for cause in causes(identified([result])):
        yield ""
        yield _line(f"{cause.sentence} {cause.affected}")
        kinds = set[tuple[str, str]]()
        for one in cause.telling(_MOST_ALIKE):
            yield _line(f"{one.finding.anomaly}: {one.finding.sentence}", most=2 * _MOST_LETTERS)
            lines = witness_lines([line for line in one.finding.witness if not line.startswith(REPLAY)])
            kind = _of_any_user(one), "".join(mark or "." for mark, _ in lines)
            if kind in kinds and "+" in kind[1]:
                yield "      the same kind of difference for this user; `registry-lab run` keeps it"
            else:
                yield from _witness(lines)
            kinds.add(kind)
        # To be copied whole: neither cut nor wrapped.
        yield f"      {REPLAY}{shown(token_of(cause.first), LONGEST_TOKEN)}"
        if len(cause.findings) > _MOST_ALIKE:
            yield _line(f"and {len(cause.findings) - _MOST_ALIKE:,} more {cause.anomaly}")
        if remedy := remedy_for(cause.anomaly):
            yield _line(f"remedy: {remedy}")
        for anomaly, count in cause.consequences:
            yield _line(f"it follows: {count:,} {anomaly}")
    if result.verdict.findings:
        yield ""


def _of_any_user(one: Identified) -> str:
    """The sentence of a finding without the names of its users."""
    sentence = one.finding.sentence
    for user in one.users:
        sentence = sentence.replace(repr(user), "")
    return sentence


def _witness(lines: Sequence[Line]) -> Iterator[str]:
    for mark, line in lines[:_MOST_WITNESSES]:
        yield f"      {f'{mark} ' if mark else ''}{shown(line, _MOST_LETTERS)}"
    if len(lines) > _MOST_WITNESSES:
        yield f"      and {counted(len(lines) - _MOST_WITNESSES, 'more line')}, which `registry-lab run` keeps"


def _measured(measurements: Sequence[Measurement]) -> Iterator[str]:
    """A line a value, with its budgets; those that decide come first. Counts of nothing that no budget limits are left
    out."""
    from lab_utils.output.frames.words import budget_of, by_value

    rows: dict[tuple[str, str], list[str]] = {}
    for key, each in by_value(one for one in measurements if one.value != 0 or one.budget is not None).items():
        rows[key] = [
            f"{one.budget.source} {budget_of(one.budget, one.unit)}: {one.outcome}"
            + ("" if one.decides else ", does not decide")
            for one in each
            if one.budget is not None
        ]
    deciding = {one.metric for one in measurements if one.budget is not None and one.decides}
    ordered = sorted(rows.items(), key=lambda row: row[0][0] not in deciding)
    for (metric, value), budgets in ordered[:_MOST_MEASURED]:
        yield _line(f"{metric}: {value}" + (f" ({'; '.join(budgets)})" if budgets else ""))
    if len(ordered) > _MOST_MEASURED:
        yield _line(f"and {len(ordered) - _MOST_MEASURED} more, which `registry-lab run` keeps")


def _calibrated(check: str, setting: Setting, mode: str) -> tuple[str, bool]:
    """Whether the check was seen to catch the defects planted for it, when and by which run; and whether it missed
    any."""
    from lab_utils.checks import CHECKS
    from lab_utils.runner import calibrations, was_caught

    parameters, folder = setting.parameters[CHECKS[check].category], _folder()
    if mode:
        with progress(f"calibrating {check}") as show:
            found = calibrations.calibrated(
                check,
                mode=mode,
                profile=setting.profile,
                seed=setting.seed,
                parameters=parameters,
                folder=folder,
                on_progress=show,
            )
    else:
        known = calibrations.kept(
            check, profile=setting.profile, seed=setting.seed, parameters=parameters, folder=folder
        )
        if known is None:
            return "not calibrated with these parameters, packages and this lab; --calibrate changed does it", False
        found = known
    missed = [result.target for result in found.results if not was_caught(result)]
    if missed:
        return f"{_MISSED}: {', '.join(missed)}: until it catches the planted defects, its pass means nothing", True
    if not found.results:
        return "not calibrated, as was asked for", False
    when = moment(found.made_at)
    by = f" by run {found.made_by}" if found.made_by else ""
    of_each = "" if len(found.results) == len(CHECKS[check].planted) else ", one for each anomaly"
    return f"calibrated: all {len(found.results)} planted registries were caught{of_each}, {when}{by}", False


def _folder() -> Path:
    """Where `registry-lab run` keeps calibrations when it is called here."""
    from lab_utils.runner.calibrations import KEPT_VARIABLE, default_folder

    beside = Path("outputs")
    return default_folder() if os.environ.get(KEPT_VARIABLE) or not beside.is_dir() else beside / ".calibrations"
