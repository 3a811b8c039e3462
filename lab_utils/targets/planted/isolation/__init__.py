"""Registries through which one user's data or objects reach another."""

from lab_utils.targets.planted.isolation import aliasing, identities, interrupted, over_http, reaching, sharing, traces

__all__ = ["PLANTED"]

PLANTED = (
    *sharing.PLANTED,
    *reaching.PLANTED,
    *aliasing.PLANTED,
    *traces.PLANTED,
    *identities.PLANTED,
    *interrupted.PLANTED,
    *over_http.PLANTED,
)
