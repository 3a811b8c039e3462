"""The names that a notebook uses. Each is loaded when it is first asked for, so that the check core needs no pandas."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lab_utils.notebook import FinishedRun, Frameworks, Gallery, Lab, open_finding, open_registry, open_run
    from lab_utils.output import charts

__all__ = ["FinishedRun", "Frameworks", "Gallery", "Lab", "charts", "open_finding", "open_registry", "open_run"]

_HOMES = dict.fromkeys(
    ("FinishedRun", "Frameworks", "Gallery", "Lab", "open_finding", "open_registry", "open_run"), "lab_utils.notebook"
)


def __getattr__(name: str) -> Any:
    if name == "charts":
        return import_module("lab_utils.output.charts")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
