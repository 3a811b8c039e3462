"""Gathers the files of this machine that a run needs, for workers that share no file system with it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lab_utils.cli.plan import Setting
from lab_utils.targets import module_of
from lab_utils.values.profiles import UsageError

__all__ = ["files_of"]

_MOST_BYTES: Final = 20_000_000
_LIMIT_S: Final = 120.0
# In a process of its own: whatever a target's module does, it does not do it to this one. Below a folder of packages
# that are installed, workers have their own.
_FIND: Final = """
import importlib, json, pathlib, site, sys, sysconfig
out = sys.stdout
sys.stdout = sys.stderr
sys.path.append(str(pathlib.Path.cwd()))
importlib.import_module(sys.argv[1])
installed = {pathlib.Path(one).resolve() for one in [*site.getsitepackages(), site.getusersitepackages(),
             *sysconfig.get_paths().values()]}
roots = [one for one in dict.fromkeys(pathlib.Path(one or ".").resolve() for one in sys.path) if one not in installed]
found = set()
for module in list(sys.modules.values()):
    if not getattr(module, "__file__", None) or module.__name__.partition(".")[0] in ("registry", "lab_utils"):
        continue
    file = pathlib.Path(module.__file__).resolve()
    if any(one in file.parents for one in installed):
        continue
    for root in roots:
        if root in file.parents:
            found.add((str(root), file.relative_to(root).parts[0]))
            break
print(json.dumps(sorted(found)), file=out)
"""


def files_of(setting: Setting, protects: Path | None) -> dict[str, bytes]:
    """The files by the paths that the command line of a run has for them: the user's own texts and usage records, and
    the packages of this machine, not installed ones, that the target's module imports.

    Raises `UsageError` for a file that cannot be read, or is too large to be sent with every run.
    """
    found = {path.name: path for path in (protects, Path(setting.usage_csv) if setting.usage_csv else None) if path}
    for module in module_of(setting.target):
        found |= dict(_code(module))
    sent, total = {}, 0
    for name, path in found.items():
        total += path.stat().st_size
        if total > _MOST_BYTES:
            raise UsageError(
                f"target {setting.target} and its files are more than {_MOST_BYTES // 1_000_000} MB ({path.name} is "
                "one of them); install its packages on the workers"
            )
        sent[name] = path.read_bytes()
    return sent


def _code(module: str) -> Iterator[tuple[str, Path]]:
    try:
        asked = subprocess.run(
            [sys.executable, "-c", _FIND, module], capture_output=True, text=True, check=True, timeout=_LIMIT_S
        )
        places = json.loads(asked.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        said = str(getattr(error, "stderr", None) or error).strip().splitlines()
        raise UsageError(f"the files of module {module} cannot be found: {said[-1] if said else error}") from error
    for root, top in places:
        whole = Path(root, top)
        for path in sorted(whole.rglob("*")) if whole.is_dir() else [whole]:
            parts = path.relative_to(root).parts
            if path.is_file() and "__pycache__" not in parts and not any(part.startswith(".") for part in parts):
                yield "/".join(parts), path
