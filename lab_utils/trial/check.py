"""A check: one named claim, and the body that tries to break it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from lab_utils.target import Capability
from lab_utils.trial.trial import Trial
from lab_utils.values.profiles import CATEGORIES

__all__ = ["PROTECTS", "Body", "Check", "Part", "protected"]

Body = Callable[[Trial], Awaitable[None]]

PROTECTS = {
    "data": "Enterprise customers' data ($15K+ MRR each): no customer's data may reach another.",
    "golden_path": "The golden path ($500K+ ARR): from a user's question to the report they are paid to get.",
    "stability": "Platform stability: resources are given back, and nobody waits for somebody else's trouble.",
    "compliance": "Compliance: access is refused where it must be, and deleted data is gone.",
}
"""The goods that the checks protect, in the users' words; a text of their own may be set for each key."""

_OURS = "agent_registry"
_AMOUNT = re.compile(r" \(\$[^)]*\)")


def protected(key: str, target: str) -> str:
    """What a check protects. The amounts are those of our own registry: no other has the same customers."""
    return PROTECTS[key] if target == _OURS else _AMOUNT.sub("", PROTECTS[key])


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a check's claim, named in a few words. On a target that lacks one of `needs` it is left out, and the
    result names it. On the targets `planted` for it, a calibration runs it alone."""

    name: str
    body: Body = field(repr=False)
    needs: frozenset[Capability] = frozenset()
    planted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Check:
    """One named claim about a registry.

    `body` drives a trial and adds verdicts to it; one that adds none is UNKNOWN. It may consist of parts, which run in
    their order, each if the target can do it. `planted`: targets on which the check must FAIL, those of its parts
    included. `needs`: capabilities without which all of it is NOT_APPLICABLE. `one_of`: those of which it needs at
    least one. `uses`: those with which it tries more, `one_of` included. `measures`: whether it judges memory or time,
    so that no other check may run beside it. `looks_like`: the anomaly as somebody meets it in production.
    """

    name: str
    category: str
    claim: str
    protects: str
    looks_like: str
    body: Body | tuple[Part, ...] = field(repr=False)
    planted: tuple[str, ...] = ()
    needs: frozenset[Capability] = frozenset()
    one_of: frozenset[Capability] = frozenset()
    uses: frozenset[Capability] = frozenset()
    measures: bool = False
    extra_markers: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.category not in CATEGORIES:
            raise ValueError(f"check {self.name}: unknown category {self.category!r}")
        of_parts = (one for part in self.parts for one in part.planted)
        object.__setattr__(self, "planted", tuple(dict.fromkeys((*self.planted, *of_parts))))
        if not self.planted:
            raise ValueError(f"check {self.name} names no planted registry; a check that cannot fail is none")
        if not self.one_of <= self.uses:
            raise ValueError(f"check {self.name}: one_of names capabilities that uses does not")
        if self.protects not in PROTECTS:
            raise ValueError(f"check {self.name}: protects {self.protects!r}, which is not one of {sorted(PROTECTS)}")

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts of the check: itself, where its body is not divided."""
        return self.body if isinstance(self.body, tuple) else (Part(self.name, self.body),)

    def lacking(self, capabilities: frozenset[Capability]) -> frozenset[Capability]:
        """The missing capabilities that make the check not applicable; none where at least one part can be run."""
        lacking = self.needs - capabilities
        if self.one_of and self.one_of - capabilities == self.one_of:
            lacking |= self.one_of
        of_parts = [part.needs - capabilities for part in self.parts]
        return lacking if lacking or not all(of_parts) else frozenset().union(*of_parts)

    @property
    def asks_for(self) -> frozenset[Capability]:
        """Every capability that the check may use."""
        return self.needs.union(self.uses, *(part.needs for part in self.parts))

    @property
    def markers(self) -> frozenset[str]:
        """The pytest markers of this check."""
        return self.extra_markers | {"agent_registry_integration", self.category}
