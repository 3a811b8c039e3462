"""Registries that are each wrong in exactly one way a real code base has been."""

from lab_utils.targets.planted import (
    events,
    isolation,
    orchestration,
    registration,
    retention,
    tenants,
)
from lab_utils.targets.planted.base import Planted

__all__ = ["ALL_PLANTED", "Planted"]

ALL_PLANTED: tuple[Planted, ...] = (
    *isolation.PLANTED,
    *registration.PLANTED,
    *events.PLANTED,
    *tenants.PLANTED,
    *orchestration.PLANTED,
    *retention.PLANTED,
)
