"""Registries whose defect only a client over a socket meets; in process they are right."""

from lab_utils.targets.planted.sockets import admission, connections, delivery, envelope, resuming, sharing

__all__ = ["PLANTED"]

PLANTED = (
    *delivery.PLANTED,
    *envelope.PLANTED,
    *sharing.PLANTED,
    *resuming.PLANTED,
    *connections.PLANTED,
    *admission.PLANTED,
)
