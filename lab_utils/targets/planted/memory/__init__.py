"""Registries that keep objects that should be gone."""

from lab_utils.targets.planted.memory import capacity, interruptions, leftovers, retention, slopes

__all__ = ["PLANTED"]

PLANTED = (
    *retention.PLANTED,
    *leftovers.PLANTED,
    *slopes.PLANTED,
    *interruptions.PLANTED,
    *capacity.PLANTED,
)
