"""Registries that mix up tenants, or sessions that follow one another."""

from lab_utils.targets.planted.tenants import counting, late_answers, rows, succession

__all__ = ["PLANTED"]

PLANTED = (
    *counting.PLANTED,
    *late_answers.PLANTED,
    *rows.PLANTED,
    *succession.PLANTED,
)
