"""Registries whose events go astray, in process."""

from lab_utils.targets.planted.events import bridges, connections, envelopes, rare

__all__ = ["PLANTED"]

PLANTED = (
    *bridges.PLANTED,
    *connections.PLANTED,
    *envelopes.PLANTED,
    *rare.PLANTED,
)
