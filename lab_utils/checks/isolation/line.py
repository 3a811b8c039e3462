"""One history in which many make the same call at once, and those who wait in line are cancelled there."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

from lab_utils.checks.isolation.cuts import Cut
from lab_utils.checks.isolation.scene import Loop, Scene, Signature, Size, signature_of, waits_at
from lab_utils.interleavings import awaited_by, awaits
from lab_utils.judges.interference import Observed
from lab_utils.judges.interruption import NO_ANSWER
from lab_utils.target import Capability, Target
from lab_utils.values.workload import rows_for

__all__ = ["Line"]

_TOGETHER_S = 2.0
"""Seconds, always virtual, in which callers of whom some are cancelled come to their ends: a place that was lost lets
the others wait for ever."""


class Line(Scene):
    """A caller alone shows where a call waits. Of `cut.times` callers at once those who wait elsewhere are in line:
    `points` numbers these places.

    At the place `cut.at` each of them is cancelled: as the wait begins; where `cut.again` is 1, when it is over and the
    caller has not gone on yet; where it is more, every second of them, when all who have a place are `again - 1` steps
    from their end, and the others are to be served. Then all callers leave, and others are asked, as many at once.
    """

    def __init__(self, cut: Cut, target: Target, seed: int, loop: Loop, *, size: Size = Size.WHOLE) -> None:
        super().__init__(cut, target, seed, loop, size=size)
        number = cut.times if size is Size.WHOLE else min(cut.times, size)
        self._callers = [f"one-in-line-{place}" for place in range(cut.times)]
        self._crowded = [f"one-of-many-{place}" for place in range(number)]
        self._rows |= {user: rows_for(user, 2, random.Random(user)) for user in (*self._callers, *self._crowded)}
        self._known: set[Signature] = set()
        self._is_alone = True
        self.never_served = 0
        """Callers who were still waiting when nothing had been interrupted."""
        # The steps that a caller alone makes, but the last, and those that each of many has made.
        self._whole, self._made = 0, Counter[asyncio.Task[Any]]()
        # The innermost task that a caller waits for -> the caller; a caller in line -> the future that ends the wait.
        self._callers_of: dict[asyncio.Task[Any], asyncio.Task[Any]] = {}
        self._line: dict[asyncio.Task[Any], asyncio.Future[Any] | None] = {}

    async def _interrupted(self) -> None:
        self._lab = asyncio.current_task()
        for user in self._callers:
            self._handles[user] = await self._create(user, "helper")
        self.loop.each_step(self._look)
        try:
            await self._at_once([self._user])
            self._is_alone = False
            await self._at_once(self._callers)
        finally:
            self.loop.each_step(None)
        await self.loop.rest()
        if self._can({Capability.END}):
            for user in (self._user, *self._callers):
                await self._see(user, "", "end", lambda user=user: self.target.end(user), [])  # type: ignore[misc]

    async def _at_once(self, users: Sequence[str]) -> None:
        work = {asyncio.create_task(self._call(user), name=f"the call of {user!r}") for user in users}
        self._callers_of = {task: task for task in work}
        is_served = not self.cut.is_cut or self.cut.again > 1
        _, late = await asyncio.wait(work, timeout=self.enough_s if is_served else _TOGETHER_S)
        if late and self.cut.is_cut and is_served:
            waits = Observed(self.cut.call, f"{NO_ANSWER} in {self.enough_s:g} s")
            self.record.observed["one in line", ", who was not cancelled,"] = [waits]
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=self.enough_s)
        self._callers_of.clear()
        self._line.clear()
        self._made.clear()
        for task in work:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                self.loop.require_explorable(error)
        if late and not self.cut.is_cut:
            # They wait for ever without an interruption too: what that of one of them does cannot be seen.
            self.points.clear()
            self.never_served = len(late)

    def _look(self, task: asyncio.Task[Any] | None) -> None:
        for ready in [one for one, turn in self._line.items() if turn is None or turn.done()]:
            del self._line[ready]
            if self.cut.again == 1:
                self._leave_line(ready)
        caller = None if task is None else self._callers_of.get(task)
        if caller is None or caller.done():
            return
        self._made[caller] += 1
        inner, future = awaited_by(caller)
        self._callers_of[inner] = caller
        place = signature_of([*awaits(caller)])
        if self._is_alone:
            self._whole = self._made[caller]
            self._known.add(place)
        elif place not in self._known:
            number = self.points.setdefault(place, len(self.points) + 1)
            if self.cut.is_cut and number == self.cut.at:
                # A wait in line is a step more than a caller alone makes.
                self._made[caller] -= 1
                self._line[caller] = future
                if not self.cut.again:
                    self._leave_line(caller)
        elif self.cut.again > 1 and self._line:
            inside = [made for one, made in self._made.items() if not one.done() and one not in self._line]
            if min(inside, default=0) == self._whole - self.cut.again + 1:
                for first in list(self._line)[: 2 * len(inside) : 2]:
                    self._leave_line(first)

    def _leave_line(self, caller: asyncio.Task[Any]) -> None:
        if not self.record.is_interrupted:
            self.record.place, self.record.is_interrupted = waits_at(caller, None), True
        caller.cancel()
