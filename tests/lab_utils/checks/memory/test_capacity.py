"""Calls that are interrupted often: losses of a pool of any size are found, and a small one without a loss is not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from lab_utils.checks.isolation.cuts import CALLS, CROWD
from lab_utils.checks.memory.capacity import _Often
from lab_utils.targets.planted.memory.capacity import (
    LineLeftRightly,
    PlaceLostAtItsTurn,
    PoolOfTen,
    SlotLostOnCancellation,
)
from lab_utils.targets.planted.tenants.counting import BreakerOfEachUser, LimitOfEachUser
from lab_utils.targets.reference import ReferenceTarget
from lab_utils.values.verdict import Finding


class _OftenInWrites(_Often):
    """Each run has a place of the pool: one kind of them shows the loss."""

    calls = frozenset({"write"})

    def besides(self, call: str) -> Sequence[str]:
        return ("nobody",) if call in self.calls else ()


class _OftenInWhatIsCounted(_OftenInWrites):
    """Runs, creates (each removal is of a new agent), and both where they fail by themselves."""

    calls = frozenset({"write", "remove", "uncopied-answer", "refused-create"})


def found_on(make: type[ReferenceTarget], times: int, kind: type[_Often] = _Often) -> list[Finding]:
    """The findings where each call is interrupted so often."""
    findings: list[Finding] = []
    exploration = kind(make, make.__name__, 1, findings.append, lambda _: None)
    exploration.times = times
    assert exploration.whole(lambda _: None) == ""
    assert exploration.histories > exploration.points > 0
    return findings


@pytest.mark.parametrize("size", [3, 100])
def test_a_place_lost_each_time_is_found_whatever_the_size_of_the_pool(size: int) -> None:
    class Losing(SlotLostOnCancellation):
        pool = staticmethod(lambda: asyncio.Semaphore(size))

    assert {finding.anomaly for finding in found_on(Losing, 120, _OftenInWrites)} == {"capacity-lost"}


def test_a_pool_of_one_that_gives_back_is_not_blamed_for_its_size() -> None:
    class Small(PoolOfTen):
        pool = staticmethod(lambda: asyncio.Semaphore(1))

    assert found_on(Small, 20) == []


def test_a_pool_that_a_crowd_uses_up_does_not_hide_its_loss() -> None:
    assert {finding.anomaly for finding in found_on(SlotLostOnCancellation, 2, _OftenInWrites)} == {"capacity-lost"}


@pytest.mark.parametrize("make", [BreakerOfEachUser, LimitOfEachUser])
def test_a_user_who_is_refused_for_a_while_for_calls_of_their_own_has_lost_nothing(make: type[ReferenceTarget]) -> None:
    assert found_on(make, 100, _OftenInWhatIsCounted) == []


class _OftenInLine(_Often):
    """Only those who wait in line are cancelled."""

    def besides(self, call: str) -> Sequence[str]:
        return [one for one in super().besides(call) if one == CROWD]


@pytest.mark.parametrize(
    ("make", "places", "anomalies"),
    [
        (PlaceLostAtItsTurn, 1, {"capacity-lost"}),
        (PlaceLostAtItsTurn, 190, {"capacity-lost"}),
        (LineLeftRightly, 1, set()),
    ],
)
def test_a_place_lost_by_callers_in_line_is_found_whatever_the_size_of_the_pool(
    make: type[PoolOfTen], places: int, anomalies: set[str]
) -> None:
    class Sized(make):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()
            self.shared.free = places

    assert {finding.anomaly for finding in found_on(Sized, 200, _OftenInLine)} == anomalies


def test_only_a_target_with_a_pool_has_a_line() -> None:
    found: list[Finding] = []
    for make, lined in ((ReferenceTarget, []), (PoolOfTen, ["tool"])):
        exploration = _Often(make, make.__name__, 1, found.append, lambda _: None)
        exploration.times = 20
        assert [call for call in CALLS if CROWD in exploration.besides(call)] == lined


class WakesNobody(asyncio.Semaphore):
    """Who finds no place waits for ever."""

    def release(self) -> None:
        self._value += 1


def test_a_line_in_which_not_all_are_served_is_said_to_be_left_out() -> None:
    class Unserved(PoolOfTen):
        pool = staticmethod(lambda: WakesNobody(10))

    exploration = _Often(Unserved, "Unserved", 1, lambda _: None, lambda _: None)
    exploration.times = 20
    assert CROWD not in exploration.besides("tool")
    assert "callers of 'tool' who are cancelled in line: 10 of 20 at once are never served" in exploration.left_out


class Slowly(_Often):
    """As on a target whose calls take so long that no whole history fits."""

    step_s = 0.0


@pytest.mark.parametrize(
    ("make", "anomalies"), [(SlotLostOnCancellation, {"capacity-lost"}), (PoolOfTen, set()), (ReferenceTarget, set())]
)
def test_a_slow_target_is_interrupted_less_often_and_judged_all_the_same(
    make: type[ReferenceTarget], anomalies: set[str]
) -> None:
    findings: list[Finding] = []
    exploration = Slowly(make, make.__name__, 1, findings.append, lambda _: None)
    exploration.times = 200
    assert exploration.whole(lambda _: None) == ""
    assert {finding.anomaly for finding in findings} == anomalies
    assert any("more than 10 of 200 interruptions" in text for text in exploration.left_out)
