"""Defects of limits, of time, and of who belongs where."""

from lab_utils.targets.planted.base import Planted
from lab_utils.targets.planted.limits import belonging, caps, endings

__all__ = ["PLANTED"]

PLANTED: tuple[Planted, ...] = (*caps.PLANTED, *endings.PLANTED, *belonging.PLANTED)
