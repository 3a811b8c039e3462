"""Rare events: each history finds the defects planted for it by name, and passes right targets."""

from __future__ import annotations

import pytest

from lab_utils.checks.events.rare import HISTORIES
from lab_utils.checks.histories import live_all
from lab_utils.targets import PLANTED, make_target
from lab_utils.targets.planted.events import rare


@pytest.mark.parametrize("name", [one.name for one in rare.PLANTED])
def test_an_event_that_is_wrong_in_one_way_is_found_by_that_name_alone(name: str) -> None:
    findings, left_out, done = live_all(lambda: make_target(name), lambda _: None, HISTORIES)
    assert {finding.anomaly for finding in findings} == PLANTED[name].anomalies
    assert (left_out, done) == ([], len(HISTORIES))


@pytest.mark.parametrize("name", ["reference", "agent_registry"])
def test_what_is_right_has_nothing_to_find(name: str) -> None:
    assert live_all(lambda: make_target(name), lambda _: None, HISTORIES) == ([], [], len(HISTORIES))
