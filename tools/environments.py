"""Makes environments of other packages, each in a folder of its own: for servers and frameworks that the lab judges."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tools.bootstrap import ROOT, install_uv, pip_settings, run, uv_environment, uv_options

__all__ = ["CORE", "environment", "installed"]

CORE: Final = ("cloudpickle", "msgspec", "psutil", "detangle")
"""The packages that the lab itself needs beside a target, the last for checks that explore schedules."""

_LISTED: Final = (
    "import importlib.metadata as metadata, json; "
    "print(json.dumps({one.metadata['Name']: one.version for one in metadata.distributions()}))"
)


def environment(folder: Path, packages: Sequence[str]) -> Path:
    """Return the Python of an environment with these packages in `folder`.

    It is made where it is not there, or was made for other packages. Raises `tools.bootstrap.SetupFailed`.
    """
    python, made_for = folder / "bin" / "python", folder / "made-for.txt"
    wanted = "\n".join([sys.version, *packages])
    if python.is_file() and made_for.is_file() and made_for.read_text(encoding="utf-8") == wanted:
        return python
    uv = ROOT / "build" / "uv" / "bin" / "uv"
    if not uv.is_file():
        uv = install_uv(ROOT)
    settings = pip_settings()
    variables = uv_environment(settings, os.environ)
    run([str(uv), "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], variables)
    run([str(uv), "pip", "install", "--quiet", "--python", str(python), *uv_options(settings), *packages], variables)
    # Written last: an interrupted installation is not an environment.
    made_for.write_text(wanted, encoding="utf-8")
    return python


def installed(python: Path) -> dict[str, str]:
    """The distributions of an environment, their versions by their names as an index writes them."""
    done = subprocess.run([str(python), "-c", _LISTED], capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in sorted(found.items())}
