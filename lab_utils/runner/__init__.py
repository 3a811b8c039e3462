"""Runs checks, each in a process of its own."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lab_utils.runner.runner import (
        CHECK_LIMITS,
        DEFAULT_SEED,
        STILL_AFTER,
        AnyTarget,
        Cancelled,
        Look,
        calibrate,
        calibrated_on,
        capabilities_of,
        run_check,
        target_name,
        was_caught,
    )

__all__ = [
    "CHECK_LIMITS",
    "DEFAULT_SEED",
    "STILL_AFTER",
    "AnyTarget",
    "Cancelled",
    "Look",
    "calibrate",
    "calibrated_on",
    "capabilities_of",
    "run_check",
    "target_name",
    "was_caught",
]


def __getattr__(name: str) -> Any:
    # Loaded when first asked for: a caller that starts the fork server first lets it import the lab meanwhile.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.runner"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
