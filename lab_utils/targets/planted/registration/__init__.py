"""Registries that make, find or close agents wrongly."""

from lab_utils.targets.planted.registration import activation, cleanups, keys, lookups, schedules, teardown

__all__ = ["PLANTED"]

PLANTED = (
    *lookups.PLANTED,
    *activation.PLANTED,
    *schedules.PLANTED,
    *cleanups.PLANTED,
    *keys.PLANTED,
    *teardown.PLANTED,
)
