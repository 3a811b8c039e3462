"""Describes the provenance of a run: the code, the Python, the packages, the machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import psutil

from lab_utils.output.store.record import Git, Provenance

__all__ = ["provenance"]

_ROOT = Path(__file__).resolve().parents[3]


def provenance() -> Provenance:
    """The provenance in run.json, beside the parameters. A part that cannot be found out is None, never a guess.

    No name of the machine, of a person or of a folder is in it.
    """
    return {
        "git": _git(_ROOT),
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "packages": _packages(),
        "machine": {
            "system": platform.system(),
            "release": platform.release(),
            "architecture": platform.machine(),
            "processor": _processor(),
            "cpus": os.cpu_count(),
            "memory_bytes": psutil.virtual_memory().total,
        },
    }


def _git(root: Path) -> Git | None:
    """The commit of our own tree and whether it was clean; None where the lab does not run from a clone."""
    top = _ask(["git", "-C", str(root), "rev-parse", "--show-toplevel"])
    # An environment inside somebody else's clone would otherwise be described by theirs.
    if top is None or Path(top).resolve() != root:
        return None
    status = _ask(["git", "-C", str(root), "status", "--porcelain"])
    commit = _ask(["git", "-C", str(root), "rev-parse", "--verify", "--quiet", "HEAD"])
    return {"commit": commit, "clean": None if status is None else status == ""}


def _ask(command: list[str]) -> str | None:
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def _packages() -> dict[str, str]:
    """Every installed distribution with its version."""
    found = {str(one.metadata["Name"]): one.version for one in importlib.metadata.distributions()}
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def _processor() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)
