"""Interruptions on a real loop: what crosses a socket meanwhile arrives before anybody looks, and each place has its
turn."""

from __future__ import annotations

import asyncio
import random
from types import SimpleNamespace
from typing import Any

import pytest

from lab_utils.checks.isolation import sampled
from lab_utils.checks.isolation.cuts import Cut
from lab_utils.checks.isolation.sampled import _RealLoop, judge_sampled
from lab_utils.trial import Trial
from tests.running import skip, turns


async def test_on_a_machine_that_has_no_processor_for_the_loop_a_rest_has_many_turns_all_the_same() -> None:
    """Data passes through a server's socket, its task, a client's socket and its task: a turn each, and more."""
    arrived = asyncio.Event()

    async def crosses() -> None:
        # For so long nothing runs: all that waits for a time is overdue.
        skip(60.0)
        await turns(15)
        arrived.set()

    crossing = asyncio.create_task(crosses())
    await _RealLoop().rest()
    assert arrived.is_set()
    await crossing


async def test_each_place_of_each_call_is_tried_before_another_way_at_any(monkeypatch: pytest.MonkeyPatch) -> None:
    places = {"tool": 5, "write": 2, "end": 1}
    told: list[Cut] = []

    async def lived(_: Trial, cut: Cut) -> Any:
        record = SimpleNamespace(place="", failed=False, broken=(), observed={})
        return SimpleNamespace(points=range(places[cut.call]), record=record)

    judging: Any = SimpleNamespace(found=0, judge=lambda *_: [], tell=lambda cut, *_, **__: told.append(cut))
    monkeypatch.setattr(sampled, "_lived", lived)
    for seed in range(4):
        told.clear()
        trial: Any = SimpleNamespace(rng=random.Random(seed), leave_out=str, judge=str, measure=lambda *_: None)
        await judge_sampled(trial, judging, list(places))
        first = [(cut.call, cut.at) for cut in told[: sum(places.values())]]
        assert sorted(first) == sorted((call, at) for call, count in places.items() for at in range(1, count + 1))
        assert len(told) > 3 * len(first)
