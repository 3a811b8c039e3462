"""Runs checks, each in a process of its own."""

from lab_utils.runner.runner import (
    CHECK_LIMITS,
    DEFAULT_SEED,
    STILL_AFTER,
    AnyTarget,
    calibrate,
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
    "calibrate",
    "capabilities_of",
    "run_check",
    "target_name",
    "was_caught",
]
