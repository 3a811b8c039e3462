"""Registries that are each wrong in exactly one way a real code base has been."""

from lab_utils.targets.planted import (
    aliasing,
    events,
    identities,
    interruptions,
    isolation,
    orchestration,
    prompts,
    reaching,
    registration,
    retention,
    schedules,
    slopes,
    sockets,
    succession,
    tenants,
    traces,
)
from lab_utils.targets.planted.base import Planted

__all__ = ["ALL_PLANTED", "Planted"]

ALL_PLANTED: tuple[Planted, ...] = (
    *isolation.PLANTED,
    *registration.PLANTED,
    *schedules.PLANTED,
    *events.PLANTED,
    *sockets.PLANTED,
    *tenants.PLANTED,
    *orchestration.PLANTED,
    *prompts.PLANTED,
    *retention.PLANTED,
    *reaching.PLANTED,
    *slopes.PLANTED,
    *interruptions.PLANTED,
    *aliasing.PLANTED,
    *traces.PLANTED,
    *identities.PLANTED,
    *succession.PLANTED,
)
