"""Fills frames with declared columns: one function a frame, and nothing is guessed from the data."""

from lab_utils.frames.columns import FRAMES, Column, FrameError, fill, load
from lab_utils.frames.rows import (
    Calibrated,
    calibrations,
    findings,
    frames_of,
    measurements,
    operations,
    samples,
    verdicts,
)
from lab_utils.frames.words import budget_of, number, quantity

__all__ = [
    "FRAMES",
    "Calibrated",
    "Column",
    "FrameError",
    "budget_of",
    "calibrations",
    "fill",
    "findings",
    "frames_of",
    "load",
    "measurements",
    "number",
    "operations",
    "quantity",
    "samples",
    "verdicts",
]
