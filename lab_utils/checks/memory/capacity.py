"""The check that interrupts the same call again and again, and then lets a crowd work at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from types import MappingProxyType

from lab_utils.checks.isolation.cuts import CALLS, CROWD, FAILING, HOOKS, Cut, calls_of
from lab_utils.checks.isolation.exploration import Exploration, explore_interruptions, lived
from lab_utils.checks.isolation.line import Line
from lab_utils.checks.isolation.scene import Size
from lab_utils.target import Capability
from lab_utils.trial import Check, Trial
from lab_utils.values.verdict import Verdict

__all__ = ["CHECKS", "SHOWN_BY"]

_CALLS = frozenset(CALLS) - {"nothing", "think", "fail"}
"""Calls that may take something shared by all; of the runs three stand for all."""
_LINED = ("tool", "ask", "create", "end")
"""Calls that so many make at once that a pool has no place for all; a run as such is part of the first."""
_TWICE = {"tool": (1, 2), "create": (1, 2), "get_or_create": (1,), "end": (1,)}
"""Steps of the loop between two cancellations, where a call is cancelled again."""

SHOWN_BY: Mapping[str, str] = MappingProxyType(
    {
        "SlotLostOnCancellation": "write",
        "HundredthSlotLost": "write",
        "PoolThatShrinks": "write",
        "PoolThatGrows": "write",
        "TurnTakenByTheCancelled": "write",
        "PlaceLostAtItsTurn": "tool",
        "CancelledStayInLine": "tool",
        "NobodyWokenBehind": "tool",
        "PlaceNeverHeld": "tool",
        "FactoryLostAtItsTurn": "create",
        "LostInALongFarewell": "first-create",
        "LostUntilTheLeaseEnds": "write",
        "FactoriesCounted": "first-create",
        "EndingsCounted": "end",
        "RemovalsCounted": "remove",
        "ResetsCounted": "reset",
        "PlansCounted": "supervise",
        "PlaceLostAfterTheWork": "uncopied-answer",
        "RefusedCounted": "refused-create",
        "RefusedToolsCounted": "refused-tool",
        "ConnectionGivenBackTwice": "tool",
        "FiftyConnectionsLeftDirty": "tool",
        "EverySecondLookupFails": "write",
    }
)
"""The planted registries, each with a call whose interruption shows its defect."""


class _Often(Exploration):
    """Each interruption, as often as the parameter `interruptions` has it, in one history."""

    then_twice, each = "cancelled", 4

    def besides(self, call: str) -> Sequence[str]:
        return (*(("nobody",) if call in _CALLS else ()), *((CROWD,) if call in self._lined else ()))

    @cached_property
    def _lined(self) -> list[str]:
        """The calls that have a line: of many who make one at once, some wait where a caller alone does not."""
        known: set[object] = set()
        calls = []
        for call in (one for one in calls_of(self.capabilities) if one in _LINED):
            many = Cut(call, "uncut", beside=CROWD, times=self.times)
            # What fails here fails in the other histories too, and is judged there.
            with suppress(Exception):
                scene = lived(many, self._make, self._seed, Size.BRIEF)[0]
                if isinstance(scene, Line) and scene.never_served:
                    unserved = f"{scene.never_served} of {self.times} at once are never served"
                    self.left_out.append(f"callers of {call!r} who are cancelled in line: {unserved}")
                if not known.issuperset(scene.points):
                    calls.append(call)
                known |= set(scene.points)
        return calls

    def cuts(self, call: str, beside: str) -> Iterator[Cut]:
        if beside == CROWD:
            places = self.points_of(Cut(call, "uncut-ending", beside=CROWD, times=self.times))
            self.points += len(places)
            for at in places:
                yield from (Cut(call, "cancelled", at, again, CROWD, times=self.times) for again in range(4))
            return
        if call in FAILING:
            yield Cut(call, "failed", times=self.times)
            return
        # The same history as that to which each of these is compared.
        places = self.points_of(Cut(call, "uncut-ending", beside=beside, times=self.times))
        self.points += len(places)
        for at in places:
            yield Cut(call, "cancelled", at, times=self.times)
            yield from (Cut(call, "twice", at, again, times=self.times) for again in _TWICE.get(call, ()))
        if call in HOOKS:
            yield from (Cut(call, way, 1, times=self.times) for way in ("raised", "exited"))


async def _capacity(trial: Trial) -> None:
    exploration = await explore_interruptions(trial, SHOWN_BY, _Often)
    if exploration.unexplored:
        trial.leave_out(f"calls that need more than a loop: {', '.join(exploration.unexplored)}")
    if not exploration.histories:
        trial.judge(Verdict.not_applicable("the target needs more than a loop whose clock is the lab's own"))
    trial.measure("interruptions of one kind", exploration.times, "interruptions")


CHECKS = (
    Check(
        name="capacity_given_back_by_interrupted_calls",
        category="memory_management",
        claim=(
            "A call that is interrupted at the same place more often than any plausible pool is large keeps no part "
            "of the pool, and nor do callers who are cancelled in line for it, or as their turns come: those who are "
            "there, those who come later, and a crowd at once are answered as before, as fast, and as many at the "
            "same time."
        ),
        protects="stability",
        looks_like=(
            "Each customer who closes the page at the wrong moment costs one connection of the pool. After some days "
            "of that the last one is gone, every request waits for ever, and a restart heals it until the next time."
        ),
        body=_capacity,
        planted=tuple(SHOWN_BY),
        uses=frozenset(
            {
                Capability.CONTEXT_DATA,
                Capability.END,
                Capability.EVENTS,
                Capability.GET_OR_CREATE,
                Capability.LOOKUP,
                Capability.PERMISSIONS,
                Capability.POPULATION,
                Capability.REMOVE,
                Capability.RUN_IDS,
                Capability.SUPERVISION,
                Capability.TOOLS,
            }
        ),
    ),
)
