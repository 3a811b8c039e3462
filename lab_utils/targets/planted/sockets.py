"""Registries whose defect only a client over a socket meets; in process they are right."""

from lab_utils.targets.planted import (
    sockets_admission,
    sockets_connections,
    sockets_delivery,
    sockets_envelope,
    sockets_resuming,
    sockets_sharing,
)

__all__ = ["PLANTED"]

PLANTED = (
    *sockets_delivery.PLANTED,
    *sockets_envelope.PLANTED,
    *sockets_sharing.PLANTED,
    *sockets_resuming.PLANTED,
    *sockets_connections.PLANTED,
    *sockets_admission.PLANTED,
)
