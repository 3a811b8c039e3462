"""The small cores: two callers of one user at once, one of them cancelled or not, as workloads that can be replayed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement

from lab_utils.checks.registration.sequential import CLOSINGS, MAKINGS, MODELLED
from lab_utils.interleavings import AT_ITS_TURN
from lab_utils.target import Capability
from lab_utils.values.profiles import UsageError

__all__ = ["Core", "cancelled_cores", "closing_cores", "making_cores", "points_of"]

_NEEDS = {
    "create": Capability.CREATE_ANEW,
    "get": Capability.LOOKUP,
    "attach": Capability.EVENTS,
    "get_or_create": Capability.GET_OR_CREATE,
    "remove": Capability.REMOVE,
    "reset": Capability.REMOVE,
    "end": Capability.END,
    "end_all": Capability.END,
    "supervise": Capability.SUPERVISION,
    "orchestrate": Capability.ORCHESTRATION,
}
_AFTER = (0, 1, 3, AT_ITS_TURN)
_TURN = "turn"


@dataclass(frozen=True, slots=True)
class Core:
    """Two callers of one user who has `prior` agents; one may be cancelled at a suspension point of its own.

    The first begins first, unless the schedule decides otherwise. `watched`: 0 or 1, the caller whose suspensions are
    counted, and which is cancelled at `point`, if that is not 0. The name says it all: `create+end@0`, or
    `end+create.cancelled-3-1@1` for a create that is cancelled one step after it suspended for the third time, and
    `end+create.cancelled-3-turn@1` for one that is cancelled when that wait is over and it has not gone on yet.
    """

    first: str
    second: str
    prior: int
    watched: int = 0
    point: int = 0
    after: int = 0

    def __str__(self) -> str:
        calls = [self.first, self.second]
        if self.point:
            calls[self.watched] += f".cancelled-{self.point}-{_TURN if self.after == AT_ITS_TURN else self.after}"
        return f"registration/{'+'.join(calls)}@{self.prior}"

    @classmethod
    def parse(cls, name: str) -> Core:
        """Read a name. Raises `UsageError`."""
        call = r"([a-z_]+)(?:\.cancelled-([1-9]\d*)-(\d+|turn))?"
        found = re.fullmatch(rf"registration/{call}\+{call}@(\d)", name)
        known = (*MODELLED, "attach", "supervise", "orchestrate")
        if found is None or found[1] not in known or found[4] not in known:
            raise UsageError(
                f"unknown workload {name!r}; known: registration/FIRST+SECOND@AGENTS, with FIRST and SECOND of "
                f"{', '.join(known)}"
            )
        pair = (found[1], found[4])
        if found[1] == "nothing" or (found[2] and found[5]) or (found[5] and found[4] == "nothing"):
            raise UsageError(f"workload {name!r}: somebody must come first, and at most one can be cancelled")
        if "run" in pair and found[7] == "0":
            raise UsageError(f"workload {name!r}: a run needs an agent; write @1 or more")
        point, after = found[2] or found[5] or "0", found[3] or found[6] or "0"
        steps = AT_ITS_TURN if after == _TURN else int(after)
        return cls(found[1], found[4], int(found[7]), int(bool(found[5])), int(point), steps)

    def cancelled_at(self, point: int, after: int) -> Core:
        """The same with its watched caller cancelled."""
        return replace(self, point=point, after=after)


def making_cores(capabilities: frozenset[Capability]) -> list[Core]:
    """Every pair in which an agent is made: with another that is made, and with each way to close it."""
    pairs = [Core(first, second, 0) for first, second in combinations_with_replacement(MAKINGS, 2)]
    pairs += [Core(first, second, prior) for first in MAKINGS for second in CLOSINGS for prior in (0, 1)]
    return _possible(pairs, capabilities)


def closing_cores(capabilities: frozenset[Capability]) -> list[Core]:
    """Every pair of ways to close an agent, and each beside a run."""
    pairs = [Core(first, second, 1) for first, second in combinations_with_replacement(CLOSINGS, 2)]
    return _possible([*pairs, *(Core("run", second, 1) for second in ("run", *CLOSINGS))], capabilities)


def cancelled_cores(operations: Iterable[str], capabilities: frozenset[Capability]) -> list[Core]:
    """Each operation alone, and before and after another caller comes who makes an agent, ends or runs.

    None is cancelled yet: the operation is the watched one.
    """
    many = 2 if Capability.CREATE_ANEW in capabilities else 1
    cores = []
    for one in operations:
        has_agents = one in (*CLOSINGS, "run")
        cores.append(Core(one, "nothing", many if has_agents else 0))
        for other in ("get_or_create", "end", *(("run",) if has_agents else ())):
            # A create that may find an agent must start where there is none.
            prior = many if has_agents else int(other == "end" and (one != "create" or many > 1))
            cores += [Core(one, other, prior), Core(other, one, prior, watched=1)]
    return _possible(cores, capabilities)


def points_of(core: Core, points: int) -> list[Core]:
    """The core with its watched caller cancelled at each of its suspension points: at once, some steps later, and when
    the wait there is over."""
    return [core.cancelled_at(point, after) for point in range(1, points + 1) for after in _AFTER]


def _possible(cores: list[Core], capabilities: frozenset[Capability]) -> list[Core]:
    def can(operation: str, other: str, prior: int) -> bool:
        needed = _NEEDS.get(operation)
        # Where there is no agent yet and nobody else makes one, a create has to make its own.
        is_alone = operation == "create" and prior == 0 and other not in MAKINGS
        return is_alone or needed is None or needed in capabilities

    return [
        core for core in cores if can(core.first, core.second, core.prior) and can(core.second, core.first, core.prior)
    ]
