"""Registries that keep objects that should be gone."""

from lab_utils.targets.planted.memory import capacity, incidents, interruptions, leftovers, retention, slopes

__all__ = ["PLANTED"]

PLANTED = (
    *retention.PLANTED,
    *leftovers.PLANTED,
    *slopes.PLANTED,
    *interruptions.PLANTED,
    *incidents.PLANTED,
    *capacity.PLANTED,
)
