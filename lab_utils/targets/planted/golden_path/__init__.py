"""Registries wrong on the way from a request to its report."""

from lab_utils.targets.planted.golden_path import orchestration, prompts

__all__ = ["PLANTED"]

PLANTED = (
    *orchestration.PLANTED,
    *prompts.PLANTED,
)
