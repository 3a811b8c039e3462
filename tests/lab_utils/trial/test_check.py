"""A check of several parts runs those that the target can do, and names those that it leaves out."""

from __future__ import annotations

from contextlib import suppress

import pytest

from lab_utils.runner.conduct import Conduct
from lab_utils.target import Capability
from lab_utils.targets.planted.registration.lookups import EverySecondLookupFails
from lab_utils.targets.reference import ReferenceTarget
from lab_utils.trial import Check, Part, Trial, protected
from lab_utils.values.profiles import parameters_for
from lab_utils.values.result import CheckResult
from lab_utils.values.verdict import Outcome
from tests.lab_utils.made import failed


def run(
    check: Check,
    *capabilities: Capability,
    kind: type[ReferenceTarget] = ReferenceTarget,
    target: str = "limited",
    stops_at: frozenset[str] = frozenset(),
) -> CheckResult:
    class Limited(kind):  # type: ignore[valid-type, misc]
        pass

    Limited.capabilities = frozenset(capabilities)
    parameters = parameters_for("user_isolation", "smoke")
    conduct = Conduct(check, Limited, target=target, profile="smoke", seed=1, parameters=parameters)
    conduct.trial.stops_at = stops_at
    conduct.run()
    return conduct.result()


def check_of_two(ran: list[str], needs: frozenset[Capability] = frozenset()) -> Check:
    async def first(trial: Trial) -> None:
        ran.append("first")
        trial.require(True, "wrong-count", "")

    async def second(trial: Trial) -> None:
        ran.append("second")
        trial.require(True, "wrong-count", "")

    parts = (
        Part("the first", first, frozenset({Capability.END})),
        Part("the second", second, frozenset({Capability.TOOLS, Capability.EVENTS}), planted=("JoinedKeys",)),
    )
    return Check("made_up", "user_isolation", "Two things.", "data", "looks bad", parts, ("SharedDispatcher",), needs)


@pytest.mark.parametrize(
    ("target", "stops_at", "expected"),
    [
        # Another part that shows the defect too must not hide that this one misses it.
        ("JoinedKeys", {"shared-object"}, ["second"]),
        ("SharedDispatcher", {"shared-object"}, ["first", "second"]),
        ("JoinedKeys", set(), ["first", "second"]),
    ],
)
def test_a_calibration_runs_the_part_alone_that_a_planted_registry_is_named_for(
    target: str, stops_at: set[str], expected: list[str]
) -> None:
    ran: list[str] = []
    check = check_of_two(ran)
    assert check.planted == ("SharedDispatcher", "JoinedKeys")
    run(check, Capability.END, Capability.TOOLS, Capability.EVENTS, target=target, stops_at=frozenset(stops_at))
    assert ran == expected


def test_all_parts_run_in_their_order() -> None:
    ran: list[str] = []
    result = run(check_of_two(ran), Capability.END, Capability.TOOLS, Capability.EVENTS)
    assert (result.outcome, ran) == (Outcome.PASS, ["first", "second"])
    assert result.claim == "Two things."


def test_a_part_that_the_target_cannot_do_is_left_out_and_named() -> None:
    ran: list[str] = []
    result = run(check_of_two(ran), Capability.END, Capability.TOOLS)
    assert (result.outcome, ran) == (Outcome.PASS, ["first"])
    left_out = "the second (the target lacks: events)"
    assert f"left out: {left_out}" in result.verdict.reason
    assert left_out in result.claim


@pytest.mark.parametrize(
    ("needs", "capabilities", "named"),
    [
        (frozenset(), (Capability.TOOLS,), {"end", "events"}),
        (frozenset({Capability.LOOKUP}), (Capability.END,), {"lookup"}),
    ],
    ids=["no part can be run", "what every part needs is lacking"],
)
def test_where_nothing_is_left_the_check_does_not_apply(
    needs: frozenset[Capability], capabilities: tuple[Capability, ...], named: set[str]
) -> None:
    ran: list[str] = []
    check = check_of_two(ran, needs)
    result = run(check, *capabilities)
    assert (result.outcome, ran) == (Outcome.NOT_APPLICABLE, [])
    assert check.lacking(frozenset(capabilities)) == named
    assert all(name in result.verdict.reason for name in named)


def test_a_call_that_fails_is_a_finding_though_the_check_makes_nothing_of_it() -> None:
    async def body(trial: Trial) -> None:
        client = trial.client(await trial.target(), "a client", "ada")
        for _ in range(2):
            with suppress(RuntimeError):
                await client.get("helper")
        trial.require(True, "wrong-answer", "everything else is well")

    check = Check("made_up", "user_isolation", "Lookups.", "data", "looks bad", body, ("SharedDispatcher",))
    (finding,) = run(check, Capability.LOOKUP, kind=EverySecondLookupFails).verdict.findings
    assert finding.anomaly == "failed-operation"
    assert finding.witness == ("get of 'ada': RuntimeError: the connection was closed by its server",)


def test_a_part_of_the_whole_is_judged_early_only_where_that_ends_the_check() -> None:
    trial, early = Trial(ReferenceTarget, {}, 7), failed()
    trial.judge_early(early)
    assert trial.verdicts == []
    trial.stops_at = frozenset({early.findings[0].anomaly})
    trial.judge_early(early)
    assert trial.verdicts == [early]


def test_the_amounts_at_stake_are_those_of_our_own_registry_alone() -> None:
    assert "$15K+" in protected("data", "agent_registry")
    assert (
        protected("data", "mypackage.lab:MyTarget")
        == "Enterprise customers' data: no customer's data may reach another."
    )
    assert run(check_of_two([])).protects == protected(check_of_two([]).protects, "limited")
