"""Runs a check in a process of its own, as a kernel does: beside a whole test session there are a million objects that
every count of what is alive would pass over."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from lab_utils.values.result import CheckResult, from_json

_CODE = """
import json, sys
from lab_utils.values.result import to_json
from lab_utils.runner import run_check
with open(sys.argv[3], "w", encoding="utf-8") as kept:
    json.dump(to_json(run_check(sys.argv[1], target=sys.argv[2])), kept)
"""


def run_fresh(check: str, target: str, folder: Path) -> CheckResult:
    """As `run_check`; `folder` is for the result on its way."""
    kept = folder / "result.json"
    subprocess.run([sys.executable, "-c", _CODE, check, target, str(kept)], check=True, timeout=300)
    return from_json(json.loads(kept.read_text(encoding="utf-8")))
