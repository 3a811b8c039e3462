"""Another interpreter for the processes of targets: it has the packages that a target needs, and few of the lab's."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from lab_utils.runner.scratch import make_scratch, remove_scratch
from lab_utils.values.profiles import UsageError

__all__ = ["PYTHON_VARIABLE", "Interpreter", "interpreter"]

PYTHON_VARIABLE: Final = "REGISTRY_LAB_PYTHON"
"""The environment variable that names the interpreter of targets that are not the lab's own; by default this one."""

_ROOT: Final = Path(__file__).resolve().parents[2]
_PACKAGES: Final = ("lab_utils", "registry")
_NEEDED: Final = ("cloudpickle", "msgspec", "psutil")
_OLDEST: Final = (3, 11)
_PROBE: Final = (
    "import importlib.util, json, platform, sys; "
    "print(json.dumps({'version': sys.version_info[:3], 'path': sys.path[1:], "
    f"'missing': [name for name in {_NEEDED!r} if importlib.util.find_spec(name) is None]}}))"
)
_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Interpreter:
    """The interpreter of a target's processes, its `sys.path`, and its version where it is another one."""

    executable: str
    path: tuple[str, ...]
    version: str = ""


def interpreter(named: str) -> Interpreter:
    """Return the interpreter that is named by its path or, on the search path, by its name; "" is this one.

    Another one runs the lab's own code as it is here, so it needs only the packages imported there: cloudpickle,
    msgspec and psutil. Its processes find the modules of your own folders too. Raises `UsageError` with the remedy.
    """
    if not named:
        return Interpreter(sys.executable, tuple(sys.path))
    found = _probed(named, os.getpid())
    # Asked anew: a test or a notebook may have added a folder since.
    return Interpreter(found.executable, (found.path[0], *_own_folders(), *found.path[1:]), found.version)


@cache
def _probed(named: str, pid: int) -> Interpreter:
    executable = shutil.which(named)
    if executable is None:
        raise UsageError(f"--python {named}: no such program; give the path of an interpreter, such as venv/bin/python")
    # Processes of a target may start in another folder. Links are kept: a venv is one by its link.
    executable = str(Path(executable).absolute())
    try:
        done = subprocess.run(
            [executable, "-c", _PROBE], capture_output=True, text=True, timeout=_SECONDS, check=True, cwd=_ROOT.anchor
        )
        answer = json.loads(done.stdout)
        version, path, missing = tuple(answer["version"]), tuple(answer["path"]), answer["missing"]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"--python {named} is not a Python that answers: {type(error).__name__}") from error
    words = ".".join(map(str, version))
    if version < _OLDEST:
        raise UsageError(f"--python {named} is Python {words}; the lab needs {'.'.join(map(str, _OLDEST))} or newer")
    if missing:
        names = " ".join(missing)
        raise UsageError(f"--python {named} lacks {', '.join(missing)}: {named} -m pip install {names}")
    return Interpreter(executable, (_links(), *path), words)


def _links() -> str:
    """A folder that holds the lab's own code and nothing else of this environment."""
    if os.name == "nt":
        return str(_ROOT)
    folder = make_scratch("code")
    atexit.register(remove_scratch, folder)
    for name in _PACKAGES:
        (folder / name).symlink_to(_ROOT / name)
    return str(folder)


def _own_folders() -> tuple[str, ...]:
    """The folders of `sys.path` that belong to no interpreter: somebody's own."""
    own = (sysconfig.get_path("stdlib"), sys.prefix, sys.base_prefix)
    return tuple(
        str(path)
        for path in map(Path, sys.path)
        if path.is_dir() and not any(path.is_relative_to(one) for one in own) and path.resolve() != _ROOT
    )
