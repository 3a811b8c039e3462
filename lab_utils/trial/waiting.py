"""Waits for a target far longer than any correct target needs, and gives up calls that do not end."""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any, TypeVar

from lab_utils.interleavings.observing import STEPS
from lab_utils.trial import loops
from lab_utils.values.limits import Countdown

__all__ = ["STUCK_AFTER", "OutOfTime", "Stuck", "Waiting"]

T = TypeVar("T")

_MOST_PLACES = 8
_AFTER_FAILURE_S = 2.0

_WORK: contextvars.ContextVar[object] = contextvars.ContextVar("_WORK")
"""The work that `unless_given_up` does, in whose tasks code runs."""

STUCK_AFTER = 30.0
"""Seconds after which an operation that should need none counts as stuck. Far beyond any correct target's time on a
busy machine, so it decides nothing but whether an operation ends at all."""


class Stuck(Exception):
    """An operation did not end. `places`: where the waiting code stands, if that was looked at."""

    def __init__(self, sentence: str, *places: str) -> None:
        super().__init__(sentence)
        self.places = places


class OutOfTime(Stuck):
    """The check as a whole is over its limit, and came further until shortly before: the target may be only slow."""


class Waiting:
    """How long a trial waits, and for which condition. `stuck_after`: seconds; a call that ends sooner is never a
    finding for its time.

    `is_hasty`: wait for a condition only a quarter of that, where a false finding does no harm. Where `has_failed`, the
    target has raised an error of its own: the verdict is FAIL, and what depends on that call will never come, so that a
    wait for it is short. `now`: seconds since
    the trial began. `moved`: changes with each operation that begins or ends, and each event that arrives. `rng`: draws
    the order of concurrent work.
    """

    def __init__(
        self,
        rng: random.Random,
        stuck_after: float,
        now: Callable[[], float],
        moved: Callable[[], tuple[int, ...]],
        is_hasty: bool = False,
    ) -> None:
        self._rng = rng
        self._now, self._moved = now, moved
        self.stuck_after = stuck_after
        self.is_hasty = is_hasty
        self.waited_in_vain = self.has_failed = False
        self.has_given_up = False
        """Whether some work was given up: its loop has turned since then."""
        self._given_up: asyncio.Future[Stuck] | None = None
        self._abandoned: set[object] = set()

    @property
    def is_abandoned(self) -> bool:
        """Whether the code that asks belongs to work that was given up: it goes on beside a target that is stopped, and
        nothing that it sees then is the target's fault."""
        return _WORK.get(None) in self._abandoned

    @property
    def patience_s(self) -> float:
        """Seconds for which something may be waited for while nothing moves."""
        return self.stuck_after if not self.has_failed else min(self.stuck_after, _AFTER_FAILURE_S)

    async def together(self, work: Iterable[Coroutine[Any, Any, T]]) -> list[T | BaseException]:
        """Run coroutines at once, each in a task, in an order drawn from the seed; return the answers in the order
        given, exceptions as values. Raises `Stuck` if one does not end."""
        coroutines = list(work)
        order = list(range(len(coroutines)))
        self._rng.shuffle(order)
        tasks: dict[int, asyncio.Task[T]] = {}
        for index in order:
            tasks[index] = asyncio.ensure_future(coroutines[index])
        if not tasks:
            return []
        pending = set(tasks.values())
        still_s, before = 0.0, self._moved()
        while pending:
            patience_s = self.patience_s
            done, pending = await asyncio.wait(pending, timeout=patience_s / loops.SLICES)
            # A large workload may take long; it is stuck when nothing at all has moved in that time.
            has_moved, before = self._moved() != before, self._moved()
            still_s = 0.0 if done or has_moved else still_s + patience_s / loops.SLICES
            if pending and still_s >= 0.99 * patience_s:
                places = _grouped(map(loops.where, pending))
                for task in pending:
                    task.cancel()
                await loops.done_in(self.stuck_after, pending)
                raise Stuck(
                    f"{len(pending)} of {len(tasks)} concurrent operations did not end: nothing moved for "
                    f"{patience_s:g} s",
                    *places,
                )
        return [_outcome(tasks[index]) for index in range(len(coroutines))]

    async def ends(self, work: Awaitable[T], what: str) -> T:
        """Await something that must end. Raises `Stuck`, and where even the cancellation is ignored, gives up."""
        loop, caller = asyncio.get_running_loop(), asyncio.current_task()
        given_up: list[Countdown] = []
        places: list[str] = []

        def overdue() -> None:
            # Before its time is over, and it is cancelled.
            waiting = [] if caller is None else [caller, *loops.held(loop, caller)]
            places.extend(_grouped(map(loops.where, waiting)))
            # Begun only now: where the loop itself was held up, the work has these seconds all the same.
            sentence = f"{what} did not end in {self.stuck_after:g} s, and ignored its cancellation"
            given_up.append(Countdown(lambda: self.stuck_after / 4, lambda: self._give_up(Stuck(sentence, *places))))
            limit.reschedule(loop.time())

        countdown = Countdown(lambda: self.stuck_after / (4 if self.has_failed else 1), overdue)
        try:
            async with asyncio.timeout(None) as limit:
                return await work
        except TimeoutError:
            if not limit.expired():
                raise
            raise Stuck(f"{what} did not end in {self.stuck_after:g} s", *places) from None
        finally:
            STEPS.answers += 1
            for one in (countdown, *given_up):
                one.cancel()

    async def reached(self, event: asyncio.Event, *by: asyncio.Future[Any]) -> bool:
        """True once the event is set; False if it is not when one of the calls `by` which it is reached is over, or in
        a time far beyond any correct target's."""
        loop = asyncio.get_running_loop()
        reaching = asyncio.ensure_future(event.wait())
        countdown = Countdown(lambda: self.patience_s, lambda: limit.reschedule(loop.time()))
        try:
            async with asyncio.timeout(None) as limit:
                await asyncio.wait({reaching, *by}, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            pass  # The event was not set in time: that is the answer.
        finally:
            countdown.cancel()
            reaching.cancel()
        return event.is_set()

    async def until(self, holds: Callable[[], bool], share: float = 1.0) -> bool:
        """Let the loop run until `holds()`, which is called at every turn; False if it does not hold in this share of
        `stuck_after` seconds in which no operation began or ended. After one wait in vain each later one is a quarter
        as long: there is a finding then, and more of the same would cost a quarter of an hour."""
        for _ in range(500):
            if holds():
                return True
            await asyncio.sleep(0)
        seen, held, moved, waited_s = self._now(), holds(), self._moved(), 0.0
        while not held:
            before_s, seen = seen, self._now()
            enough_s = share * self._until_s()
            waited_s += min(seen - before_s, enough_s / loops.SLICES)
            if waited_s >= 0.99 * enough_s:
                before, moved = moved, self._moved()
                # A busy machine: as long as operations end and events arrive, the awaited one may be among them. But
                # after one wait in vain, the movement is that of the waiter itself: several waiters would keep one
                # another waiting.
                if moved == before or self.waited_in_vain:
                    break
                seen, waited_s = self._now(), 0.0
            # Data that crosses a socket or a thread needs time as well as turns.
            await asyncio.sleep(0.002)
            held = holds()
        self.waited_in_vain = self.waited_in_vain or not held
        return held

    def _until_s(self) -> float:
        return self.patience_s / 4 if self.is_hasty or self.waited_in_vain else self.patience_s

    async def ended(self, work: asyncio.Future[Any]) -> bool:
        """True once it is done; False if it is not, and no operation has begun or ended in `stuck_after` seconds."""
        still_s, before = 0.0, self._moved()
        while not work.done():
            patience_s = self.patience_s / 2 if self.is_hasty else self.patience_s
            if still_s >= 0.99 * patience_s:
                return False
            await asyncio.wait({work}, timeout=patience_s / loops.SLICES)
            has_moved, before = self._moved() != before, self._moved()
            still_s = 0.0 if has_moved else still_s + patience_s / loops.SLICES
        return True

    async def settle(self, turns: int = 20) -> None:
        """Let everything that is ready run; waits for no time."""
        for _ in range(turns):
            await asyncio.sleep(0)

    async def unless_given_up(self, work: Coroutine[Any, Any, None]) -> Stuck | None:
        """Do the work in a task of its own; return why if it waits for something that `ends` or `give_up` has given up:
        its task is then left as it is."""
        self._given_up = asyncio.get_running_loop().create_future()
        mark, context = object(), contextvars.copy_context()
        context.run(_WORK.set, mark)
        task = asyncio.create_task(work, context=context)
        either: set[asyncio.Future[Any]] = {task, self._given_up}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            self._abandoned.add(mark)
            return self._given_up.result()
        task.result()
        return None

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop on which work is being done that can be given up."""
        return None if self._given_up is None else self._given_up.get_loop()

    def give_up(self, why: Stuck) -> None:
        """Give up the work that `unless_given_up` does, from any thread; its loop may have ended meanwhile."""
        if (loop := self.loop) is not None:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._give_up, why)

    def _give_up(self, why: Stuck) -> None:
        self.has_given_up = True
        if self._given_up is not None and not self._given_up.done():
            self._given_up.set_result(why)


def _grouped(places: Iterable[str]) -> list[str]:
    """A line for each place where tasks wait, those of most tasks first."""
    alike: dict[str, list[str]] = {}
    for place in places:
        alike.setdefault(place.partition(" waits in ")[2] or place, []).append(place)
    ordered = sorted(alike.items(), key=lambda one: -len(one[1]))
    lines = [f"{len(of)} tasks wait in {where}" if len(of) > 1 else of[0] for where, of in ordered[:_MOST_PLACES]]
    return lines + [f"and at {len(alike) - _MOST_PLACES} places more"] * (len(alike) > _MOST_PLACES)


def _outcome(task: asyncio.Task[T]) -> T | BaseException:
    if task.cancelled():
        return asyncio.CancelledError()
    error = task.exception()
    return task.result() if error is None else error
