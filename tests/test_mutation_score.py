"""The estimate of the mutation score: right where all was judged, weighted by module, and wide where little was."""

from __future__ import annotations

import random

import pytest

from tools.scoring import stratified


def estimated(*strata: tuple[int, int, int]) -> tuple[float, float]:
    estimate = stratified(strata)
    assert estimate is not None
    return estimate


def test_what_was_judged_in_full_is_certain() -> None:
    assert estimated((40, 40, 30), (60, 60, 60)) == pytest.approx((0.9, 0.0))


def test_a_large_module_weighs_more_than_a_small_one() -> None:
    score, _ = estimated((900, 10, 10), (100, 10, 0))
    assert score == pytest.approx(0.9)


def test_modules_without_a_sample_are_left_out() -> None:
    assert estimated((50, 50, 40), (1_000, 0, 0)) == pytest.approx((0.8, 0.0))
    assert stratified([(1_000, 0, 0)]) is None
    assert stratified([]) is None


def test_a_small_sample_without_a_survivor_is_not_certain() -> None:
    score, error = estimated((1_000, 5, 5))
    assert score == 1.0
    assert error > 0.2


def test_the_interval_holds_the_true_score_about_as_often_as_it_says() -> None:
    rng = random.Random(5)
    modules = [(200, 0.95), (100, 0.8), (50, 0.6), (30, 1.0)]
    true = sum(size * share for size, share in modules) / sum(size for size, _ in modules)
    held = 0
    for _ in range(400):
        strata = []
        for size, share in modules:
            killed = sum(rng.sample([1] * round(size * share) + [0] * round(size * (1 - share)), 10))
            strata.append((size, 10, killed))
        score, error = estimated(*strata)
        held += abs(score - true) <= error
    assert held >= 0.92 * 400
