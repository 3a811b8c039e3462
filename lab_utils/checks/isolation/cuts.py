"""Interruptions as values: the call, the way of interrupting it, the number of loop steps before it, and the user who
asks beside it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from lab_utils.target import Capability
from lab_utils.values.profiles import UsageError

__all__ = ["CALLS", "CROWD", "FAILING", "HOOKS", "SHARED", "WAYS", "Cut", "calls_of", "mixed"]

CALLS = {
    "write": frozenset[Capability](),
    "tool": frozenset({Capability.TOOLS}),
    "ask": frozenset({Capability.MODEL}),
    "think": frozenset({Capability.EVENTS}),
    "fail": frozenset[Capability](),
    "uncopied-answer": frozenset[Capability](),
    "refused-create": frozenset[Capability](),
    "refused-tool": frozenset({Capability.TOOLS}),
    "first-create": frozenset[Capability](),
    "create": frozenset[Capability](),
    "get_or_create": frozenset({Capability.GET_OR_CREATE}),
    "get": frozenset({Capability.LOOKUP}),
    "attach": frozenset({Capability.EVENTS}),
    "supervise": frozenset({Capability.SUPERVISION}),
    "remove": frozenset({Capability.REMOVE}),
    "reset": frozenset({Capability.REMOVE}),
    "end": frozenset({Capability.END}),
    "nothing": frozenset[Capability](),
}
"""The calls that are interrupted, each with its needs."""

HOOKS = {
    "write": "run",
    "tool": "run",
    "ask": "run",
    "think": "run",
    "first-create": "create",
    "create": "create",
    "get_or_create": "create",
    "supervise": "run",
    "remove": "cleanup",
    "reset": "cleanup",
    "end": "cleanup",
}
"""The user's code inside each call: the hook of the recipe that it passes."""

FAILING = frozenset({"uncopied-answer", "refused-create", "refused-tool"})
"""Calls that fail by themselves: after their work, as the answer cannot be copied; and before it."""

WAYS = {
    "uncut": "ended",
    "uncut-ending": "ended, and its task with it,",
    "cancelled": "was cancelled",
    "twice": "was cancelled, and once more while it gave back,",
    "timed-out": "ran out of its time",
    "dropped": "lost its client",
    "failed": "failed",
    "raised": "failed with an Exception of the user's code",
    "exited": "failed with a BaseException of the user's code",
}
"""The ways to interrupt, in words that go on with a place."""

BESIDE = ("nobody", "before", "just-after", "after")
"""Whether another user makes the same call at once: not at all, begun before it, just after it, or as it is
interrupted."""

CROWD = "crowd"
"""Beside so many others who make the same call at once that some of them may wait in line: it is those who are
cancelled."""

SHARED = frozenset({"write", "tool", "ask", "first-create", "create", "get_or_create"})
"""The calls that another user makes, too: one who begins just after may have joined the work of the first."""


_IN_LINE = (
    "those in line were cancelled as they began to wait",
    "those in line were cancelled as their turns came",
    "every second of those in line was cancelled as a place was given back",
)


@dataclass(frozen=True, slots=True)
class Cut:
    """One interruption. `at`: steps of the loop after which it happens; for code that raises, turns of the hook.

    `again`: steps between the two cancellations of the way "twice". `lead`: steps that the other user's call is ahead,
    where it begins before. `times`: how often the call is made and interrupted; beyond one, a crowd works at once
    afterwards. Beside a crowd it is the number of callers, `at` the number of the place in line, and `again` which of
    them are cancelled, and when. The name has it all: `interruption/tool.cancelled-3-0+nobody-0x1`.
    """

    call: str
    way: str = "uncut"
    at: int = 0
    again: int = 0
    beside: str = "nobody"
    lead: int = 0
    times: int = 1

    def __str__(self) -> str:
        return f"interruption/{self.call}.{self.way}-{self.at}-{self.again}+{self.beside}-{self.lead}x{self.times}"

    @classmethod
    def parse(cls, name: str) -> Cut:
        """Read a name. Raises `UsageError`."""
        found = re.fullmatch(r"interruption/([a-z_-]+)\.([a-z-]+)-(\d+)-(\d+)\+([a-z-]+)-(\d+)x([1-9]\d*)", name)
        if found is None or found[1] not in CALLS or found[2] not in WAYS or found[5] not in (*BESIDE, CROWD):
            raise UsageError(
                f"unknown workload {name!r}; known: interruption/CALL.WAY-AT-AGAIN+BESIDE-LEADxTIMES, with CALL of "
                f"{', '.join(CALLS)}, WAY of {', '.join(WAYS)} and BESIDE of {', '.join((*BESIDE, CROWD))}"
            )
        return cls(found[1], found[2], int(found[3]), int(found[4]), found[5], int(found[6]), int(found[7]))

    @property
    def goes_on(self) -> bool:
        """Whether the caller's task outlives the interruption, and serves another user next."""
        return self.way not in ("cancelled", "twice", "uncut-ending") and self.times == 1

    @property
    def is_cut(self) -> bool:
        """Whether anything is interrupted."""
        return not self.way.startswith("uncut")

    @property
    def uncut(self) -> Cut:
        """The same history without the interruption."""
        if self.lead:
            # Nobody calls beside a writer: after a failed call everything must be as if there had been none.
            return Cut("nothing", "uncut" if self.goes_on else "uncut-ending", beside=self.beside)
        return Cut(self.call, "uncut" if self.goes_on else "uncut-ending", beside=self.beside, times=self.times)

    def told(self, user: str, place: str) -> str:
        """The interruption in words: "the tool call of 'ada' was cancelled at store.py:21 ask"."""
        if self.beside == CROWD:
            what = f"{self.times} users called {self.call!r} at once"
            if self.is_cut:
                what += f" and {_IN_LINE[min(self.again, 2)]}"
            return f"{what} at {place}" if place else what
        what = f"the call {self.call!r} of {user!r} {WAYS[self.way]}"
        if self.is_cut and self.times > 1:
            what += f" {self.times} times"
        return f"{what} at {place}" if place else what


def calls_of(capabilities: frozenset[Capability]) -> list[str]:
    """The calls that a target with these capabilities can be interrupted in."""
    return [call for call, needs in CALLS.items() if call != "nothing" and capabilities.issuperset(needs)]


def mixed(cuts: Iterable[Cut]) -> list[Cut]:
    """Keep the order given, but take one of each call and way before the second of any, so that each is tried in
    time."""
    counts: Counter[tuple[str, str, str]] = Counter()
    ranked: list[tuple[int, Cut]] = []
    for cut in cuts:
        kind = (cut.call, cut.way, cut.beside)
        ranked.append((counts[kind], cut))
        counts[kind] += 1
    return [cut for _, cut in sorted(ranked, key=lambda one: one[0])]
