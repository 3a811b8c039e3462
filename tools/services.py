"""Judges servers that nobody here wrote, each in an environment of its own, and prints the matrix.

    python -m tools.services [NAME ...]

A line a server and check: its version, what was asked, the verdict, and what the server promises beside each finding.
Environments are made in build/services, once. The reproductions, plain scripts without the lab, run beside.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from lab_utils.runner import run_check
from lab_utils.service import PREFIX
from lab_utils.service.file import ServiceFile, read_service
from lab_utils.values.result import CheckResult
from tools.bootstrap import ROOT
from tools.environments import environment, installed

SERVICES: Final = ROOT / "examples" / "services"
ENVIRONMENTS: Final = ROOT / "build" / "services"
CHECKS: Final = ("service_answers_isolation", "service_access_denial", "service_session_end")


@dataclass(frozen=True, slots=True)
class Server:
    """A folder of examples/services: the packages that it needs, the first of them judged, and its service files."""

    packages: tuple[str, ...]
    files: tuple[str, ...]


SERVERS: Final = {
    "mcp_sdk": Server(("mcp",), ("tokens", "open")),
    "fastmcp": Server(("fastmcp",), ("stateful", "stateless")),
    "adk": Server(("google-adk",), ("service",)),
    "langgraph": Server(("langgraph-cli[inmem]",), ("authenticated", "owned")),
    "agno": Server(("agno", "fastapi", "uvicorn", "sqlalchemy", "python-multipart", "pyjwt"), ("shared", "isolated")),
    "gradio": Server(("gradio",), ("state", "global")),
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(SERVERS)} (default: all)")
    names = parser.parse_args(arguments).names or list(SERVERS)
    for name in names:
        if name not in SERVERS:
            parser.error(f"unknown server {name!r}; known: {', '.join(SERVERS)}")
    for name in names:
        _judge(name, SERVERS[name])
    return 0


def _judge(name: str, server: Server) -> None:
    python = environment(ENVIRONMENTS / name, server.packages)
    os.environ["PATH"] = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    version = installed(python)[server.packages[0].partition("[")[0]]
    for file in server.files:
        path = SERVICES / name / f"{file}.toml"
        service = read_service(path)
        for check in CHECKS:
            result = run_check(check, target=f"{PREFIX}{path}")
            print(f"{service.name} {version}: {check.removeprefix('service_')}: {result.outcome}", flush=True)
            _explain(result, service)
    script = SERVICES / name / "reproduce.py"
    if script.is_file():
        done = subprocess.run([str(python), str(script), _port()], capture_output=True, text=True, check=False)
        print(f"{name} {version}: reproduced without the lab: {done.stdout.strip().splitlines()[-1:]}", flush=True)


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
