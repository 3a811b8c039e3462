"""Judges servers that nobody here wrote, each in an environment of its own, and prints the matrix.

    python -m tools.services [NAME ...]
    python -m tools.services --reproduce [NAME ...]
    python -m tools.services --recorded NAME

A line a server and check: its version, the requests, the verdict, and the server's promises beside each finding; then
the matrix, as Markdown.
Environments are made in build/services, once.

With `--reproduce` nothing is judged: each finding's own script, which does not use the lab, runs on the server, and on
its right neighbour. The exit code is 1 where a script does not show its finding, or shows it on the neighbour too.

With `--recorded` the packages are those of requirements/service-NAME.lock, and the verdicts must be those of the
server's recorded.json: the exit code is 1, and each difference is named, where they are not.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lab_utils.checks import CHECKS
from lab_utils.runner import run_check
from lab_utils.service import PREFIX
from lab_utils.service.file import ServiceFile, read_service
from lab_utils.values.result import CheckResult
from lab_utils.values.verdict import Outcome
from tools.bootstrap import ROOT, run
from tools.environments import environment, installed

SERVICES: Final = ROOT / "examples" / "services"
ENVIRONMENTS: Final = ROOT / "build" / "services"


@dataclass(frozen=True, slots=True)
class Server:
    """A folder of examples/services: the packages that it needs, the first of them judged, and its service files.

    `right`: the setting in which the findings of the other one are absent; `everywhere`: findings that both have."""

    packages: tuple[str, ...]
    files: tuple[str, ...]
    folder: str = ""
    right: str = ""
    everywhere: tuple[str, ...] = ()


SERVERS: Final = {
    "mcp_sdk": Server(("mcp",), ("tokens", "open")),
    "mcp_sdk_2.1": Server(("mcp==2.1.*",), ("tokens", "open"), "mcp_sdk"),
    "fastmcp": Server(("fastmcp",), ("stateful", "stateless"), right="stateful"),
    "adk": Server(("google-adk",), ("service",)),
    "langgraph": Server(
        ("langgraph-cli[inmem]",), ("authenticated", "owned"), right="owned", everywhere=("memory-kept",)
    ),
    "agno": Server(
        ("agno", "fastapi", "uvicorn", "sqlalchemy", "python-multipart", "pyjwt", "openai"),
        ("shared", "isolated"),
        right="isolated",
    ),
    "chainlit": Server(("chainlit",), ("session", "global"), right="session"),
    "everything": Server(("@modelcontextprotocol/server-everything",), ("service",)),
    "gradio": Server(("gradio",), ("state", "global"), right="state"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(SERVERS)} (default: all)")
    parser.add_argument("--reproduce", action="store_true", help="run the findings' own scripts, and judge nothing")
    parser.add_argument("--recorded", metavar="NAME", help="compare one server with its recorded verdicts")
    options = parser.parse_args(arguments)
    if options.recorded:
        return _recorded(options.recorded)
    names = options.names or list(SERVERS)
    for name in names:
        if name not in SERVERS:
            parser.error(f"unknown server {name!r}; known: {', '.join(SERVERS)}")
    if options.reproduce:
        return _reproduced({name: SERVERS[name] for name in names})
    rows = [row for name in names for row in _judge(name, SERVERS[name])]
    print(f"\n{matrix(rows)}")
    return 0


@dataclass(frozen=True, slots=True)
class Row:
    """One service file: the server and its version, the proof of identity that it promises, its verdicts by check."""

    server: str
    identity: str
    verdicts: Mapping[str, str]


def matrix(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table: which checks passed, and the findings of the others."""
    lines = ["| server | identity | passes | found | not known |", "|---|---|---|---|---|"]
    for row in rows:
        passed = [check for check, verdict in row.verdicts.items() if verdict == Outcome.PASS]
        found = [f"{check}: {verdict.removeprefix(Outcome.FAIL).strip()}" for check, verdict in row.verdicts.items()
                 if verdict.startswith(Outcome.FAIL)]  # fmt: skip
        unknown = [check for check, verdict in row.verdicts.items() if verdict.startswith(Outcome.UNKNOWN)]
        cells = (row.server, row.identity, ", ".join(passed), "; ".join(found), ", ".join(unknown))
        lines.append(f"| {' | '.join(cell or '-' for cell in cells)} |")
    return "\n".join(lines)


def _recorded(name: str) -> int:
    """Judge one server with pinned packages; 1 if a verdict is not the recorded one, and 0 if all are."""
    record = SERVICES / name / "recorded.json"
    if not record.is_file():
        raise SystemExit(f"no verdicts are recorded on {name!r}; {record.relative_to(ROOT)} would hold them")
    expected = {
        (file, check): verdict
        for file, checks in json.loads(record.read_text(encoding="utf-8")).items()
        for check, verdict in checks.items()
    }
    lock = ROOT / "requirements" / f"service-{name}.lock"
    place = ENVIRONMENTS / f"{name}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:8]}"
    _use(environment(place, ("--require-hashes", "--requirement", str(lock))).parent)

    def judged(asked: tuple[str, str]) -> CheckResult:
        file, check = asked
        return run_check(check, target=f"{PREFIX}{SERVICES / name / file}.toml")

    differing = 0
    with ThreadPoolExecutor(2) as pool:
        for (file, check), result in zip(expected, pool.map(judged, expected), strict=True):
            verdict, wanted = _verdict(result), expected[file, check]
            print(f"{name}/{file} {check}: {verdict}", flush=True)
            if verdict != wanted:
                differing += 1
                print(f"    recorded: {wanted}; now: {result.verdict.reason}\n{result.traceback}", file=sys.stderr)
    if differing:
        print(
            f"{differing} of {len(expected)} verdicts on {name} are not those of {record.relative_to(ROOT)}. The "
            "packages are pinned, so the lab has changed: mend it, or write the new verdict there if it is right.",
            file=sys.stderr,
        )
    return 1 if differing else 0


def _verdict(result: CheckResult) -> str:
    """The outcome, and the names of the findings: `FAIL ids-collide, read-by-another`."""
    return f"{result.outcome} {', '.join(sorted({one.anomaly for one in result.verdict.findings}))}".strip()


def _judge(name: str, server: Server) -> Iterator[Row]:
    version = _prepared(name, server)
    folder = SERVICES / (server.folder or name)
    for file in server.files:
        path = folder / f"{file}.toml"
        service = read_service(path)
        verdicts = {}
        for check in (check for check, one in CHECKS.items() if one.category == "service"):
            result = run_check(check, target=f"{PREFIX}{path}")
            short = check.removeprefix("service_").replace("_", " ")
            verdicts[short] = _verdict(result)
            print(f"{service.name} {version}: {short}: {result.outcome}", flush=True)
            _explain(result, service, folder)
        yield Row(f"{service.name} {version}", service.promises.identity, verdicts)


def script_of(folder: Path, anomaly: str) -> Path:
    """The script that shows a finding without the lab."""
    return folder / f"reproduce_{anomaly.replace('-', '_')}.py"


def _reproduced(servers: Mapping[str, Server]) -> int:
    """Run each finding's script on the server, then on its right neighbour; 1 if one did not do as it should."""
    scripts = [(name, script) for name, server in servers.items()
               for script in sorted((SERVICES / (server.folder or name)).glob("reproduce_*.py"))]  # fmt: skip
    for name in dict.fromkeys(name for name, _ in scripts):
        _prepared(name, servers[name])
    on_right = [(name, script, servers[name].right) for name, script in scripts if servers[name].right]
    shown, wrong = 0, 0
    began = time.monotonic()
    for name, script, setting in [*((name, script, "") for name, script in scripts), *on_right]:
        anomaly = script.stem.removeprefix("reproduce_").replace("_", "-")
        words = [str(ENVIRONMENTS / name / "bin" / "python"), str(script), _port(), *filter(None, [setting])]
        path = f"{Path(words[0]).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ, "PATH": path})
        last = (done.stdout.strip() or done.stderr.strip() or "no output").splitlines()[-1]
        is_shown = last.startswith("REPRODUCED")
        is_right = is_shown is (not setting or anomaly in servers[name].everywhere) and done.returncode == 0
        shown += is_shown and not setting
        wrong += not is_right
        where = f"{time.strftime('%H:%M:%S')} {name} {setting}".strip()
        print(f"{where}: {'' if is_right else 'WRONG: '}{anomaly}: {last}", flush=True)
    print(f"{shown} findings reproduced in {time.monotonic() - began:.0f} s; {wrong} scripts did not do as they should")
    return 1 if wrong else 0


def _prepared(name: str, server: Server) -> str:
    """Make the server's environment and use it; return the version of the package that is judged."""
    place, package = ENVIRONMENTS / name, server.packages[0]
    if package.startswith("@"):
        about = place / "node_modules" / package / "package.json"
        if not about.is_file():
            run(["npm", "install", "--silent", "--prefix", str(place), *server.packages], os.environ)
        _use(place / "node_modules" / ".bin")
        return str(json.loads(about.read_text(encoding="utf-8"))["version"])
    python = environment(place, server.packages)
    _use(python.parent)
    return installed(python)[package.partition("[")[0].partition("=")[0]]


def _use(programs: Path) -> None:
    """Let the commands of service files find the programs of this folder first."""
    os.environ["PATH"] = f"{programs}{os.pathsep}{os.environ['PATH']}"


def _explain(result: CheckResult, service: ServiceFile, folder: Path) -> None:
    promises = json.dumps({"identity": service.promises.identity, "only_owner": service.only_owner})
    for finding in result.verdict.findings:
        script = script_of(folder, finding.anomaly)
        by = script.name if script.is_file() else f"nothing: {script.relative_to(ROOT)} would show it without the lab"
        print(f"    {finding.anomaly}: {finding.sentence}\n        promised: {promises}; reproduced by {by}")
    if not result.verdict.findings:
        print(f"    {result.verdict.reason}")


def _port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
