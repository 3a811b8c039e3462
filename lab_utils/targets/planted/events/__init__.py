"""Registries whose events go astray, in process."""

from lab_utils.targets.planted.events import bridges, connections, envelopes

__all__ = ["PLANTED"]

PLANTED = (
    *bridges.PLANTED,
    *connections.PLANTED,
    *envelopes.PLANTED,
)
