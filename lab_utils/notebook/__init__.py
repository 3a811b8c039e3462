"""What a notebook calls: one object for a category, one for a finished run, one for the planted registries."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lab_utils.notebook.gallery import Gallery
    from lab_utils.notebook.lab import GateFailed, Lab
    from lab_utils.notebook.overview import FinishedRun, open_run
    from lab_utils.notebook.protects import read_protects

__all__ = ["FinishedRun", "Gallery", "GateFailed", "Lab", "open_run", "read_protects"]

# Each when first asked for: what shows a finished run needs pandas, which a category's checks should not run beside.
_HOMES = {
    "Gallery": "gallery",
    **dict.fromkeys(("GateFailed", "Lab"), "lab"),
    **dict.fromkeys(("FinishedRun", "open_run"), "overview"),
    "read_protects": "protects",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
