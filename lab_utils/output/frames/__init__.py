"""Fills frames with declared columns: one function a frame, and nothing is guessed from the data."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lab_utils.output.frames.words import breakable, budget_of, by_value

if TYPE_CHECKING:
    from lab_utils.output.frames.columns import FRAMES, Column, FrameError, fill, load
    from lab_utils.output.frames.rows import (
        Calibrated,
        OperationsFile,
        calibrations,
        findings,
        frames_of,
        involved,
        measurements,
        operations,
        samples,
        verdicts,
    )

__all__ = [
    "FRAMES",
    "Calibrated",
    "Column",
    "FrameError",
    "OperationsFile",
    "breakable",
    "budget_of",
    "by_value",
    "calibrations",
    "fill",
    "findings",
    "frames_of",
    "involved",
    "load",
    "measurements",
    "operations",
    "samples",
    "verdicts",
]

# Loaded when first asked for: code that only words a result needs no pandas, and a check should not run beside it.
_COLUMNS = ("FRAMES", "Column", "FrameError", "fill", "load")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{'columns' if name in _COLUMNS else 'rows'}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
