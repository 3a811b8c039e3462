"""registry-lab: judge a registry, run the notebooks to a versioned report, list the choices, open JupyterLab."""

from __future__ import annotations

import argparse
import difflib
import errno
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NoReturn, Protocol, cast

from lab_utils.cli.exits import CODES, DONE, Exit
from lab_utils.cli.terminal import say, steady
from lab_utils.values.profiles import UsageError, unknown
from lab_utils.values.texts import shown

__all__ = ["main"]

_COMMANDS: Final = {
    "run": "run notebooks headless and write a report",
    "check": "run single checks and print their verdicts here",
    "baseline": "write the findings of a run as known ones, for run --baseline",
    "bundle": "write a run as one HTML file that opens offline, or its report as PDF",
    "compare": "compare two runs: findings new, fixed and still there, measurements better or worse beyond noise",
    "export": "write a run's whole folder as one archive",
    "history": "show, merge and prune the runs that run --history keeps",
    "list": "show checks, profiles, targets, parameters",
    "new-target": "write the skeleton of a target of your own, which runs as it is",
    "check-target": "try a target itself, method by method, before a check blames your registry",
    "new-service": "write a service file to begin with",
    "check-service": "try each request of a service file once, and show the answers",
    "lab": "open JupyterLab on copies of the notebooks",
    "investigate": "open a notebook in JupyterLab on one finding of a run",
    "merge": "join the shares of a run, made with run --shard, into one",
    "prune": "remove the oldest runs and grids",
    "serve": "serve a registry with made-up records on loopback, with a page that shows a user's events",
    "replay": "run a finding again, from a run or from its token",
    "repro": "print a short script that shows a finding in a public framework without the lab",
}
_JUDGING: Final = ("run", "merge")
_PASS_ON: Final = ("lab", "investigate")
_DISK_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


class Command(Protocol):
    """The module of one command, `lab_utils.cli.<name>` with `_` for a hyphen, imported only when it is called."""

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's arguments."""

    def run(self, options: argparse.Namespace) -> int:
        """Carry out the arguments and return the exit code. `options.others` holds the words for JupyterLab."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        super().error(shown(message))


class _Version(argparse.Action):
    """Looks the version up only when it is asked for: reading metadata takes as long as some commands."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        print(f"registry-lab {version('agent-registry-lab')}")
        parser.exit()


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out the arguments and return the exit code. Wrong usage is reported before anything runs.

    A standard output that nobody reads changes neither the work nor the exit code.
    """
    with steady(), _imports_from_here():
        try:
            _no_other_registry()
            return _main(list(sys.argv[1:] if arguments is None else arguments))
        except UsageError as error:
            say(str(error))
            return Exit.WRONG_USAGE
        except KeyboardInterrupt:
            say("interrupted")
            return Exit.INTERRUPTED
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _DISK_FULL:
                what = f" to {error.filename}" if error.filename else ""
                say(f"nothing more can be written{what}: {error.strerror}; free some space, then run it again")
                return Exit.LAB_FAILED
            # Python's own exit code for this is 1, which here means findings.
            for line in traceback.format_exc().splitlines():
                print(shown(line), file=sys.stderr)
            say("the lab itself failed, see above")
            return Exit.LAB_FAILED


def _no_other_registry() -> None:
    """Raise `UsageError` if a module of somebody else's would be imported for the lab's `registry`."""
    found = find_spec("registry")
    if (
        found is None
        or found.origin is None
        or Path(found.origin).resolve().parents[1] == Path(__file__).resolve().parents[2]
    ):
        return
    place = found.origin.removesuffix("/__init__.py")
    raise UsageError(
        f"'registry' at {place} hides the lab's own package of that name: take its folder off PYTHONPATH, or rename it"
    )


@contextmanager
def _imports_from_here() -> Iterator[None]:
    """While inside, modules of the working directory can be imported, after all others: a target is named from there.

    A console script has its own folder in that place.
    """
    here = str(Path.cwd())
    is_new = here not in sys.path and "" not in sys.path
    if is_new:
        sys.path.append(here)
    try:
        yield
    finally:
        if is_new and here in sys.path:
            sys.path.remove(here)


def _main(words: list[str]) -> int:
    for word in words:
        if any("\ud800" <= letter <= "\udfff" or letter == "\0" for letter in word):
            raise UsageError(f"the argument {word} is not text: it holds a NUL, or bytes that are not UTF-8")
    parser = _Parser(prog="registry-lab", description=__doc__, epilog=CODES)
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")
    first = next((word for word in words if not word.startswith("-")), "")
    command: Command | None = None
    for name, summary in _COMMANDS.items():
        codes = CODES if name in _JUDGING else DONE
        one = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", epilog=codes)
        if name == first:
            command = cast(Command, import_module(f"lab_utils.cli.{name.replace('-', '_')}"))
            command.arguments(one)
    if not words:
        parser.print_help(sys.stderr)
        parser.exit(Exit.WRONG_USAGE)
    if first and first == words[0] and first not in _COMMANDS:
        raise UsageError(unknown("command", first, _COMMANDS))
    options, others = parser.parse_known_args(words)
    if others and options.command not in _PASS_ON:
        known = list(commands.choices[options.command]._option_string_actions)
        near = difflib.get_close_matches(others[0].partition("=")[0], known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        parser.error(f"unrecognized arguments: {' '.join(others)}{hint}")
    assert command is not None
    return command.run(argparse.Namespace(**vars(options), others=others))
