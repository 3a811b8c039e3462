"""The names that a notebook calls: one object for a category, one for a finished run, one for the planted
registries."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from lab_utils.notebook.frameworks import Frameworks
    from lab_utils.notebook.gallery import Gallery
    from lab_utils.notebook.interactive import open_registry
    from lab_utils.notebook.lab import GateFailed, Lab
    from lab_utils.notebook.overview import FinishedRun, open_finding, open_run
    from lab_utils.notebook.protects import read_protects

__all__ = [
    "FOLDER_VARIABLE",
    "FinishedRun",
    "Frameworks",
    "Gallery",
    "GateFailed",
    "Lab",
    "open_finding",
    "open_registry",
    "open_run",
    "read_protects",
]

FOLDER_VARIABLE: Final = "REGISTRY_LAB_FOLDER"
"""The environment variable with the folder where `registry-lab lab` runs, for the kernels of its JupyterLab."""

# A kernel starts beside its notebook; targets, files and runs are named from where the command runs. Only a server's
# kernel for a notebook has a session: its terminals inherit the variable too.
if "JPY_SESSION_NAME" in os.environ and (_folder := os.environ.pop(FOLDER_VARIABLE, "")):
    os.chdir(_folder)

# Each when first asked for: the pages of a finished run need pandas, which a category's checks should not run beside.
_HOMES = {
    "Frameworks": "frameworks",
    "Gallery": "gallery",
    **dict.fromkeys(("GateFailed", "Lab"), "lab"),
    **dict.fromkeys(("FinishedRun", "open_finding", "open_run"), "overview"),
    "open_registry": "interactive",
    "read_protects": "protects",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
