"""Registries and services that are each wrong in exactly one way a real code base has been."""

from lab_utils.targets.planted import (
    events,
    golden_path,
    isolation,
    limits,
    memory,
    registration,
    services,
    sockets,
    tenants,
)
from lab_utils.targets.planted.base import Planted

__all__ = ["ALL_PLANTED", "Planted"]

ALL_PLANTED: tuple[Planted, ...] = (
    *isolation.PLANTED,
    *registration.PLANTED,
    *events.PLANTED,
    *sockets.PLANTED,
    *tenants.PLANTED,
    *golden_path.PLANTED,
    *memory.PLANTED,
    *limits.PLANTED,
    *services.PLANTED,
)
