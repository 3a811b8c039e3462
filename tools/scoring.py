"""Estimates the score of all mutants from samples of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["stratified"]


def stratified(strata: Sequence[tuple[int, int, int]]) -> tuple[float, float] | None:
    """The score of all mutants and half its 95% interval, from (mutants, judged, killed) of each module that has a
    sample. Each module's share is smoothed by one killed and one survivor for the interval, so that a small sample
    without a survivor does not pass for certainty; modules judged in full add nothing to it."""
    sampled = [stratum for stratum in strata if stratum[1] > 0]
    whole = sum(mutants for mutants, _, _ in sampled)
    if not whole:
        return None
    score = sum(mutants * killed / judged for mutants, judged, killed in sampled) / whole
    variance = 0.0
    for mutants, judged, killed in sampled:
        share = (killed + 1) / (judged + 2)
        left = max(0.0, 1 - judged / mutants)
        variance += (mutants / whole) ** 2 * left * share * (1 - share) / judged
    return score, 1.96 * math.sqrt(variance)
