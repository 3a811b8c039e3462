"""Tests of the tester: every check catches the registries planted for it, and passes on their correct twins."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path

import pytest

from lab_utils.checks import CHECKS
from lab_utils.checks.isolation.interrupted import SHOWN_BY
from lab_utils.runner import calibrate, run_check, was_caught
from lab_utils.targets import PLANTED, target_factory
from lab_utils.targets.planted import ALL_PLANTED, sockets
from lab_utils.values.profiles import CATEGORIES
from lab_utils.values.verdict import Outcome
from tests.lab_utils.checks.isolation.one_call import interrupted

PAIRS = [(check.name, planted) for check in CHECKS.values() for planted in check.planted]
# Our own registry is a twin of most: the integration tests are the checks, run on it.
TWINS = sorted({(check, twin) for check, planted in PAIRS if (twin := PLANTED[planted].twin) != "agent_registry"})
INTERRUPTED = "interrupted_calls_leave_nothing_to_others"
INTERRUPTED_AT = {
    planted: call for planted, call in SHOWN_BY.items() if PLANTED[planted].twin not in ("reference", "agent_registry")
}
"""A call whose interruption shows the defect of each planted registry that has a twin of its own."""
TAKEN_APART = {
    *((INTERRUPTED, PLANTED[planted].twin) for planted in INTERRUPTED_AT),
    # tests/lab_utils/checks/isolation/: test_left.py asks it over HTTP, test_interrupted.py runs the check on the other.
    (INTERRUPTED, "lab_utils.targets.planted.isolation.over_http:ConnectionClosedWhenLeft"),
    (INTERRUPTED, "lab_utils.targets.planted.isolation.over_http:SocketClosedWhenLeft"),
}
"""Twins that differ from a registry that passes the whole check in a few calls, and are interrupted in those alone."""
ENOUGH: Mapping[str, Mapping[str, int]] = {"capacity_given_back_by_interrupted_calls": {"interruptions": 20}}
"""More than the largest pool of a twin has places."""
INTEGRATION = Path(__file__).parents[1] / "integration" / "agents" / "test_agent_registry_integration.py"


@pytest.mark.parametrize("check", CHECKS)
def test_check_catches_each_of_its_planted_registries_by_name(check: str) -> None:
    """By its calibration, which runs a few at once: many of them wait for sockets and timers."""
    results = calibrate(check)
    missed = [
        f"{PLANTED[result.target].defect}: {result.outcome}, {result.verdict.reason}\n"
        f"found {[finding.anomaly for finding in result.verdict.findings]}, "
        f"expected one of {PLANTED[result.target].anomalies}\n{result.traceback}"
        for result in results
        if not was_caught(result) or result.outcome is not Outcome.FAIL
    ]
    assert not missed, "\n".join(missed)
    assert tuple(result.target for result in results) == CHECKS[check].planted


@pytest.mark.parametrize(
    ("check", "planted"),
    [
        ("per_user_agent_registry_isolation_validation", "CaseFoldedKeys"),
        ("per_user_agent_registry_isolation_validation", "JoinedKeys"),
        ("event_delivery_isolation_between_users", "LimitPerAddress"),
    ],
)
def test_two_users_are_enough_for_what_needs_more(check: str, planted: str) -> None:
    assert was_caught(run_check(check, target=planted, parameters={"users": 2}, stop_at=PLANTED[planted].anomalies))


@pytest.mark.parametrize(("check", "twin"), [one for one in TWINS if one not in TAKEN_APART])
def test_the_correct_twin_passes(check: str, twin: str) -> None:
    result = run_check(check, target=twin, parameters=ENOUGH.get(check))
    findings = "\n".join(map(str, result.verdict.findings[:3]))
    assert result.outcome is Outcome.PASS, f"{result.verdict.reason}\n{findings}\n{result.traceback}"


@pytest.mark.parametrize(("planted", "call"), INTERRUPTED_AT.items())
def test_interruptions_of_one_call_show_the_defect_and_blame_no_twin(planted: str, call: str) -> None:
    shown = PLANTED[planted].anomalies
    assert interrupted(target_factory(planted), call, stop_at=shown)[-1].anomaly in shown
    assert interrupted(target_factory(PLANTED[planted].twin), call) == []


def test_every_twin_of_an_interrupted_registry_is_looked_at_somewhere() -> None:
    of_their_own = {twin for check, twin in TWINS if check == INTERRUPTED and twin != "reference"}
    assert {twin for _, twin in TAKEN_APART} == of_their_own


BEHIND_SOCKETS = {one.name for one in sockets.PLANTED} - {"RedeliveredToTheNext", "RefusedSocketsCounted"}
"""Events that are left to the next client, and the place of a refused socket, show in parts that always have sockets."""


@pytest.mark.parametrize(
    ("check", "planted"), [(check, planted) for check, planted in PAIRS if planted in BEHIND_SOCKETS]
)
def test_a_defect_behind_sockets_shows_over_sockets_alone(check: str, planted: str) -> None:
    """Its registry is right: in process the check that catches it passes."""
    result = run_check(check, target=planted, parameters={"transport": "inprocess", "users": 4})
    assert result.outcome is Outcome.PASS, f"{result.verdict.reason}\n{result.traceback}"


def test_there_are_31_checks_of_registries_and_9_of_services() -> None:
    by_category = {name: sum(check.category == name for check in CHECKS.values()) for name in CATEGORIES}
    assert by_category == {
        "user_isolation": 5,
        "registration_management": 5,
        "websocket_bridge": 4,
        "enterprise_multi_user": 4,
        "golden_path": 2,
        "memory_management": 4,
        "limits_and_time": 7,
        "service": 9,
    }


def test_every_planted_registry_is_used_and_readme_says_how_many_there_are() -> None:
    used = {planted for check in CHECKS.values() for planted in check.planted}
    assert used == set(PLANTED)
    # By one name two of them would be one, and the other would never be tried.
    assert len(PLANTED) == len(ALL_PLANTED)
    of_services = {planted for check in CHECKS.values() if check.category == "service" for planted in check.planted}
    root = Path(__file__).parents[2]
    assert f"take all {len(used - of_services)}." in (root / "README.md").read_text(encoding="utf-8")
    assert f"\n{len(of_services)} planted services," in (root / "docs" / "services.md").read_text(encoding="utf-8")


def test_planted_registries_differ_in_their_defect() -> None:
    defects = [planted.defect for planted in PLANTED.values()]
    assert all(defects)
    assert len(set(defects)) == len(defects)


def test_the_integration_tests_are_the_checks() -> None:
    tree = ast.parse(INTEGRATION.read_text(encoding="utf-8"))
    tests = [
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    of_registries = [name for name, check in CHECKS.items() if not CATEGORIES[check.category].of_services]
    assert tests == [f"test_{name}" for name in of_registries]
