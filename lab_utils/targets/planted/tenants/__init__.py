"""Registries that mix up tenants, or sessions that follow one another."""

from lab_utils.targets.planted.tenants import rows, succession

__all__ = ["PLANTED"]

PLANTED = (
    *rows.PLANTED,
    *succession.PLANTED,
)
