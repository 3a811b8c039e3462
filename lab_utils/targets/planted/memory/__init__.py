"""Registries that keep what should be gone."""

from lab_utils.targets.planted.memory import interruptions, leftovers, retention, slopes

__all__ = ["PLANTED"]

PLANTED = (
    *retention.PLANTED,
    *leftovers.PLANTED,
    *slopes.PLANTED,
    *interruptions.PLANTED,
)
