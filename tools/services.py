"""Judges servers that nobody here wrote, each in an environment of its own, and prints the matrix.

    python -m tools.services [NAME ...]
    python -m tools.services --recorded NAME

A line a server and check: its version, the requests, the verdict, and the server's promises beside each finding; then
the matrix, as Markdown.
Environments are made in build/services, once. The reproductions, plain scripts without the lab, run beside.

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
from tools.bootstrap import ROOT
from tools.environments import environment, installed

SERVICES: Final = ROOT / "examples" / "services"
ENVIRONMENTS: Final = ROOT / "build" / "services"


@dataclass(frozen=True, slots=True)
class Server:
    """A folder of examples/services: the packages that it needs, the first of them judged, and its service files."""

    packages: tuple[str, ...]
    files: tuple[str, ...]
    folder: str = ""


SERVERS: Final = {
    "mcp_sdk": Server(("mcp",), ("tokens", "open")),
    "mcp_sdk_2.1": Server(("mcp==2.1.*",), ("tokens", "open"), "mcp_sdk"),
    "fastmcp": Server(("fastmcp",), ("stateful", "stateless")),
    "adk": Server(("google-adk",), ("service",)),
    "langgraph": Server(("langgraph-cli[inmem]",), ("authenticated", "owned")),
    "agno": Server(
        ("agno", "fastapi", "uvicorn", "sqlalchemy", "python-multipart", "pyjwt", "openai"), ("shared", "isolated")
    ),
    "gradio": Server(("gradio",), ("state", "global")),
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(SERVERS)} (default: all)")
    parser.add_argument("--recorded", metavar="NAME", help="compare one server with its recorded verdicts")
    options = parser.parse_args(arguments)
    if options.recorded:
        return _recorded(options.recorded)
    names = options.names or list(SERVERS)
    for name in names:
        if name not in SERVERS:
            parser.error(f"unknown server {name!r}; known: {', '.join(SERVERS)}")
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
    _use(environment(place, ("--require-hashes", "--requirement", str(lock))))

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
    python = environment(ENVIRONMENTS / name, server.packages)
    _use(python)
    version = installed(python)[server.packages[0].partition("[")[0].partition("=")[0]]
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
            _explain(result, service)
        yield Row(f"{service.name} {version}", service.promises.identity, verdicts)
    for script in sorted(folder.glob("reproduce*.py")):
        done = subprocess.run([str(python), str(script), _port()], capture_output=True, text=True, check=False)
        said = done.stdout.strip().splitlines()[-1:]
        print(f"{name} {version}: reproduced without the lab by {script.name}: {said}", flush=True)


def _use(python: Path) -> None:
    """Let the commands of service files find this interpreter and its scripts first."""
    os.environ["PATH"] = f"{python.parent}{os.pathsep}{os.environ['PATH']}"


def _explain(result: CheckResult, service: ServiceFile) -> None:
    promises = json.dumps({"identity": service.promises.identity, "only_owner": service.only_owner})
    for finding in result.verdict.findings:
        print(f"    {finding.anomaly}: {finding.sentence}\n        promised: {promises}")
    if not result.verdict.findings:
        print(f"    {result.verdict.reason}")


def _port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
