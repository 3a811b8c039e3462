"""registry-lab: run the notebooks to a versioned report, list what there is, open JupyterLab, serve a registry."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import traceback
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

from lab_utils.cli.usage import COLUMNS_HELP
from lab_utils.values.profiles import CATEGORIES, DEFAULT_PROFILE, PROFILES, UsageError

__all__ = ["main"]

PASSED: Final = 0
FINDINGS: Final = 1
WRONG_USAGE: Final = 2
LAB_FAILED: Final = 3
ANOTHER_FINDING: Final = 4
INTERRUPTED: Final = 130

_EXTRA: Final = (
    *("papermill", "nbclient", "nbconvert", "nbformat", "ipykernel"),
    *("pandas", "pyarrow", "matplotlib", "jinja2", "rich", "detangle"),
)
_SERVER: Final = ("itsdangerous", "starlette", "uvicorn", "websockets")
_CODES: Final = (
    "exit codes: 0 all pass, 1 findings or unknowns, 2 wrong usage, 3 the lab itself failed, 130 interrupted"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the arguments say and return the exit code. Wrong usage is said before anything runs."""
    parser = _parser()
    try:
        options, others = parser.parse_known_args(arguments)
        if others and options.command != "lab":
            parser.error(f"unrecognized arguments: {' '.join(others)}")
        match options.command:
            case "run":
                return _run(options)
            case "lab":
                return _lab(others)
            case "serve":
                return _serve(options)
            case "replay":
                return _replay(options.token)
            case _:
                from lab_utils.cli.listing import show

                show(options.what)
                return PASSED
    except UsageError as error:
        return _say(f"{error}", WRONG_USAGE)
    except BrokenPipeError:
        # The reader of `registry-lab list | head` has gone; what Python flushes at its exit would fail again.
        sys.stdout = None
        return PASSED
    except KeyboardInterrupt:
        return _say("interrupted", INTERRUPTED)
    except Exception:
        # Python's own exit code for this is 1, which here means findings.
        traceback.print_exc()
        return _say("the lab itself failed, see above; a run that had begun is kept as .partial", LAB_FAILED)


def _say(line: str, code: int) -> int:
    print(f"registry-lab: {line}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="registry-lab", description=__doc__, epilog=_CODES)
    commands = parser.add_subparsers(dest="command", required=True, metavar="{run,list,lab,serve,replay}")

    run = commands.add_parser("run", help="run notebooks headless and write a report", epilog=_CODES)
    run.add_argument("categories", nargs="*", metavar="CATEGORY", help=f"all, or some of: {', '.join(CATEGORIES)}")
    run.add_argument("--profile", default=DEFAULT_PROFILE, help=f"one of {', '.join(PROFILES)} (default: %(default)s)")
    run.add_argument("--target", default="agent_registry", help="the registry to judge (default: %(default)s)")
    run.add_argument(
        *("--param", "-p"),
        action="append",
        default=[],
        metavar="[CATEGORY.]NAME=VALUE",
        help="a parameter, for every category that has it or for one; may be repeated",
    )
    for name, choices in (("transport", "inprocess or websocket"), ("llm", "scripted or http")):
        run.add_argument(f"--{name}", metavar="NAME", help=f"{choices}; the same as --param {name}=NAME")
    run.add_argument("--usage-csv", metavar="FILE", help=f"golden_path on your own usage records; {COLUMNS_HELP}")
    run.add_argument("--seed", type=int, help="what the workloads are drawn from (default: always the same)")
    run.add_argument("--out", type=Path, default=Path("outputs"), metavar="FOLDER", help="default: %(default)s")
    run.add_argument("--protects", type=Path, metavar="FILE", help="TOML with your own texts of what checks protect")
    run.add_argument(
        "--jobs",
        type=int,
        default=2,
        metavar="N",
        help="checks at once, beside those that measure memory, which run alone (default: %(default)s)",
    )
    run.add_argument(
        "--calibrate",
        default="changed",
        metavar="WHEN",
        help="run checks on planted registries: changed (where the lab, Python, packages, profile or seed have changed "
        "since), always, or never (default: %(default)s)",
    )
    run.add_argument("--timeout", type=float, metavar="S", help="seconds for each notebook (default: by profile)")

    listing = commands.add_parser("list", help="show checks, profiles, targets, parameters")
    listing.add_argument("what", nargs="?", default="", help="checks, profiles, targets or parameters (default: all)")

    commands.add_parser("lab", help="open JupyterLab on the notebooks; what follows is passed on to it")

    serve = commands.add_parser(
        "serve",
        help="serve a registry with made-up records on loopback, with a page that shows a user's events",
        epilog="Ctrl-C stops it, with exit code 0.",
    )
    serve.add_argument("--host", default="127.0.0.1", help="a loopback address (default: %(default)s)")
    serve.add_argument("--port", type=int, default=0, help="default: %(default)s, which takes a free one")
    serve.add_argument("--user", default="ada", help="whose token is printed (default: %(default)s)")

    replay = commands.add_parser(
        "replay",
        help="run one interleaving again, as a finding's last line says",
        epilog="exit codes: 0 nothing was found, 1 the finding came again, 2 no token that can be run here, 3 the lab "
        "itself failed, 4 another finding came instead",
    )
    replay.add_argument("token", metavar="TOKEN", help="the text after `registry-lab replay` in a finding's witness")
    return parser


def _missing(modules: Sequence[str], extra: str = "lab") -> str:
    """One line on what is not installed, or ""."""
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    if not absent:
        return ""
    return f"{', '.join(absent)} not installed; this command needs: pip install 'agent-registry-lab[{extra}]'"


def _run(options: argparse.Namespace) -> int:
    from lab_utils.cli.plan import make_plan

    missing = _missing(_EXTRA)
    # Wrong words are said first, but reading own texts needs the extra itself.
    plan = make_plan(options) if not (missing and options.protects) else None
    if plan is None or missing:
        return _say(missing, LAB_FAILED)
    from lab_utils.cli.running import run
    from lab_utils.output.store import StoreError

    try:
        status = run(plan)
    except StoreError as error:
        return _say(str(error), LAB_FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED
    return {"passed": PASSED, "findings": FINDINGS, "cancelled": INTERRUPTED}.get(status, LAB_FAILED)


def _serve(options: argparse.Namespace) -> int:
    if not 0 <= options.port < 2**16:
        raise UsageError(f"--port {options.port} is not between 0 and 65535")
    if missing := _missing(_SERVER, "server"):
        return _say(missing, LAB_FAILED)
    from lab_utils.cli.serve import serve

    try:
        # Flushed: whoever starts it with a pipe waits for the addresses.
        serve(options.host, options.port, user=options.user, say=partial(print, flush=True))
    except ValueError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        where = f"{options.host} port {options.port}"
        raise UsageError(f"cannot listen on {where}: {error.strerror or error}; --port 0 takes a free one") from error
    return PASSED


def _replay(token: str) -> int:
    if missing := _missing(("detangle",)):
        return _say(missing, LAB_FAILED)
    from lab_utils.cli.replay import Replayed, replay

    return {Replayed.NOTHING: PASSED, Replayed.SAME: FINDINGS, Replayed.ANOTHER: ANOTHER_FINDING}[replay(token)]


def _lab(options: Sequence[str]) -> int:
    if missing := _missing(("jupyterlab", *_EXTRA)):
        return _say(missing, LAB_FAILED)
    from lab_utils.cli.jupyter import open_lab

    return open_lab(options)
