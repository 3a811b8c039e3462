"""Runs checks and turns trials into results."""

from lab_utils.runner.runner import DEFAULT_SEED, STILL_AFTER, calibrate, run_check, was_caught

__all__ = ["DEFAULT_SEED", "STILL_AFTER", "calibrate", "run_check", "was_caught"]
