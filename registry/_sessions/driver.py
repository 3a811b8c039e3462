"""Drives many closings at once: a few at each turn of the loop, with one timer for all that they wait for."""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import time
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Generator
from functools import partial
from typing import Any, Final, Generic, Protocol, TypeVar

from registry.errors import RegistryClosed

__all__ = ["Driven", "Driver", "Owner", "Slice", "Until", "Waitable"]

T = TypeVar("T")

# Seconds. Short, so that little is half done when the collector runs: half-done work costs it more.
_SLICE: Final = 0.0004
# Seconds. The longest slice, in a loop whose turns are long anyway.
_LONGEST: Final = 0.004
# The work for few users is done in one slice, even on a machine that stalls meanwhile.
_AT_LEAST: Final = 16
_LOOK_AGAIN: Final = 4
# A cancelled task that obeys needs one turn to receive the cancellation, one to leave its awaits and one to end; a few
# more serve its own cleanup code. Turns, not seconds: whether a task obeyed is decided the same way on a busy machine.
_TURNS: Final = 10


class Slice:
    """The share of a long piece of work that is done before the loop gets its turn: half a millisecond, or a fourth of
    the time that everything else took since the last slice; at least 16 items."""

    __slots__ = ("_begun", "_left", "_limit", "_over_at")

    def __init__(self) -> None:
        self._left = _AT_LEAST
        self._limit = _SLICE
        self._begun = self._over_at = time.perf_counter()

    def begin(self) -> None:
        """Begin another slice, after a turn of the loop."""
        self._begun = time.perf_counter()
        self._left = _AT_LEAST
        self._limit = min(_LONGEST, max(_SLICE, (self._begun - self._over_at) / 4))

    def is_over(self, items: int = 1) -> bool:
        """Count so many items more; True once the loop should get its turn."""
        self._left -= items
        if self._left > 0:
            return False
        self._over_at = time.perf_counter()
        if self._over_at - self._begun > self._limit:
            return True
        # Reading the clock takes as long as some items.
        self._left = _LOOK_AGAIN
        return False


class Waitable(Protocol):
    """A future, a task or something driven."""

    def done(self) -> bool: ...

    def add_done_callback(self, fn: Callable[[Any], Any], /) -> None: ...

    def remove_done_callback(self, fn: Callable[[Any], Any], /) -> int: ...


class Owner(Protocol):
    """Gives work to a driver, and is called when the work has ended."""

    def driven_ended(self, driven: Driven[Any], /) -> None: ...


class Until:
    """Awaited by driven code: go on when all of these are done, or after a time and ten turns of the loop more; True if
    all are done.

    The turns make up for a busy loop. Work that would have ended on a free loop is not late, and a task has the turns
    that ending takes before it counts as disobedient. `time` is the driver's; None: no limit.
    """

    __slots__ = ("missing", "number", "sleeper", "things", "time", "turns")

    def __init__(self, things: Collection[Waitable], time: float | None) -> None:
        self.things = things
        self.time = time
        self.turns = _TURNS
        self.missing = 0
        self.sleeper: Driven[Any] | None = None
        self.number = 0

    def __await__(self) -> Generator[Until, None, bool]:
        # Any iterator will do, and one that is there already costs nothing.
        return self  # type: ignore[return-value]

    def __next__(self) -> Until:
        if self.turns:
            for thing in self.things:
                if not thing.done():
                    return self
        raise StopIteration(self.turns > 0)

    # For the driver only.

    def begin(self, sleeper: Driven[Any]) -> None:
        """Wake the sleeper when all are done."""
        self.sleeper = sleeper
        for thing in self.things:
            if not thing.done():
                self.missing += 1
                thing.add_done_callback(self)

    def __call__(self, _: object) -> None:
        """One of them is done. It may still be called when the time was up, and does nothing then."""
        self.missing -= 1
        if not self.missing:
            self.wake()

    def miss_turn(self) -> bool:
        """The time is up, and so is one more turn; False if that was the last, or they were done before."""
        if self.sleeper is None:
            return False
        self.turns -= 1
        if not self.turns:
            for thing in self.things:
                thing.remove_done_callback(self)
            self.wake()
        return self.turns > 0

    def wake(self) -> None:
        sleeper, self.sleeper = self.sleeper, None
        if sleeper is not None and sleeper.driver is not None:
            sleeper.driver.resume(sleeper, self.number)


class Driven(Generic[T]):
    """A coroutine that a `Driver` drives, in a copy of the context variables of the code that gave it to the driver.

    `key` is its owner's own.
    """

    __slots__ = ("_callbacks", "_error", "_owner", "_result", "context", "driver", "is_cut_off", "key", "work")

    def __init__(self, driver: Driver, work: Coroutine[Any, None, T], owner: Owner, key: Any) -> None:
        self.driver: Driver | None = driver
        self.work: Coroutine[Any, None, T] | None = work
        self.context: contextvars.Context | None = contextvars.copy_context()
        self.key = key
        self.is_cut_off = False  # Its event loop ended before it did.
        self._owner: Owner | None = owner
        self._callbacks: list[Callable[[Any], Any]] | None = None
        self._result: T | None = None
        self._error: BaseException | None = None

    def done(self) -> bool:
        """True once it has ended, or was cut off."""
        return self.work is None

    def add_done_callback(self, fn: Callable[[Any], Any], /) -> None:
        """Call this with it, at once, when it ends; not if it has ended already."""
        if self._callbacks is None:
            self._callbacks = []
        self._callbacks.append(fn)

    def remove_done_callback(self, fn: Callable[[Any], Any], /) -> int:
        """Do not call this any more; return how often it would have been."""
        before = self._callbacks or []
        self._callbacks = [known for known in before if known != fn]
        return len(before) - len(self._callbacks)

    async def joined(self) -> T:
        """Wait until the work has ended; return its result or raise its error, `RegistryClosed` if it was cut off. A
        cancelled caller stops nothing but its own waiting."""
        if self.work is not None:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            wake = partial(_set_done, waiter)
            self.add_done_callback(wake)
            try:
                await waiter
            finally:
                self.remove_done_callback(wake)
            # Tasks that the end has woken, as those of a user's sockets, have their turn before the caller goes on.
            await asyncio.sleep(0)
        if self.is_cut_off:
            raise RegistryClosed("the closing was cut off with its event loop; anything not yet closed is lost")
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]  # It has ended without an error.

    # For the driver only.

    def cut_off(self) -> None:
        """Leave the coroutine where it is; its `finally` blocks are run."""
        assert self.context is not None
        assert self.work is not None
        self.is_cut_off = True
        try:
            self.context.run(self.work.close)
        finally:
            self.end(None, None)

    def end(self, result: T | None, error: BaseException | None) -> None:
        """It has returned or raised."""
        self._result = result
        self._error = error
        owner, callbacks = self._owner, self._callbacks
        # All references to the closed objects.
        self.context = self.driver = self.work = self._owner = self._callbacks = None
        assert owner is not None
        owner.driven_ended(self)
        for callback in callbacks or ():
            callback(self)


def _set_done(waiter: asyncio.Future[None], _: object) -> None:
    if not waiter.done():
        waiter.set_result(None)


class Driver:
    """Advances closings without a task and a timer for each.

    Guarantees: at each turn of the loop closings are advanced for one slice, those that have begun before those that
    have not; one that has begun waits for its own things only. Its `time()` is the loop's, less the time during which
    the loop was held: a deadline counts only the time in which the loop was free.
    Closings await `Until` only, and run in no task: a user's own code gets a task of its own.
    """

    __slots__ = (
        "_beat",
        "_due",
        "_fit",
        "_idle",
        "_is_pumping",
        "_live",
        "_lost",
        "_new",
        "_numbers",
        "_overtime",
        "_resumed",
        "_sleeping",
        "_slice",
        "_timer",
        "_timer_at",
        "is_kept",
    )

    def __init__(self, beat: float) -> None:
        # Seconds between two looks at the clock while anything waits for a time.
        self._beat = beat
        self._live: set[Driven[Any]] = set()
        self._new: deque[Driven[Any]] = deque()
        self._resumed: deque[Driven[Any]] = deque()
        self._overtime: list[Until] = []
        self._is_pumping = False
        self._slice: Slice | None = None
        # How many fitted into the last slice, to begin them.
        self._fit = _AT_LEAST
        # When to wake whom, by number. A sleeper that was woken before stays here until then, or until most entries are
        # such.
        self._due: list[tuple[float, int]] = []
        self._sleeping: dict[int, Until] = {}
        self._numbers = itertools.count(1)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._lost = 0.0
        self._idle: asyncio.Future[None] | None = None
        self.is_kept = False

    def time(self) -> float:
        """The loop's time, in seconds, less the time during which it was held."""
        return asyncio.get_running_loop().time() - self._lost

    @property
    def is_behind(self) -> bool:
        """True while more wait for their beginning than began in the last turn."""
        return len(self._new) > self._fit

    def drive(self, work: Coroutine[Any, None, T], owner: Owner, key: Any = None) -> Driven[T]:
        """Begin a closing at the next turn of the loop that has time for it. Some task must `keep` the driver."""
        driven = Driven(self, work, owner, key)
        self._live.add(driven)
        self._new.append(driven)
        self._pump_soon()
        return driven

    async def keep(self) -> None:
        """Return when nothing is left to drive. The task of this is the owner of all that is driven."""
        while self._live:
            self._idle = asyncio.get_running_loop().create_future()
            await self._idle
        # An emptied table keeps a size that is chance: it would look like growth where memory is measured.
        self._live.clear()
        self._sleeping.clear()
        # No await from the look to here: work that comes now gets a new owner.
        self.is_kept = False

    def kept(self, task: asyncio.Task[None]) -> None:
        """A callback of that task: if it was cancelled, as by the end of its loop, so is all that is driven."""
        if task.cancelled():
            self.is_kept = False
            self._new.clear()
            self._resumed.clear()
            self._overtime.clear()
            self._sleeping.clear()
            for driven in list(self._live):
                self._live.discard(driven)
                driven.cut_off()
            self._stop()

    def resume(self, driven: Driven[Any], number: int) -> None:
        """Its awaited things are done, or the time of this number is up."""
        self._sleeping.pop(number, None)
        if len(self._due) > 64 + 2 * len(self._sleeping):
            self._due = [entry for entry in self._due if entry[1] in self._sleeping]
            heapq.heapify(self._due)
        self._resumed.append(driven)
        self._pump_soon()

    def _pump_soon(self) -> None:
        if not self._is_pumping:
            self._is_pumping = True
            # In an empty context: a callback that serves all users keeps no user's context variables.
            asyncio.get_running_loop().call_soon(self._pump, context=contextvars.Context())

    def _pump(self) -> None:
        self._is_pumping = False
        pace = self._slice
        if pace is None:
            pace = self._slice = Slice()
        else:
            pace.begin()
        if self._overtime:
            self._overtime = [wait for wait in self._overtime if wait.miss_turn()]
        try:
            # Sleepers that these resume wait for the next turn.
            for _ in range(len(self._resumed)):
                self._step(self._resumed.popleft())
                if pace.is_over():
                    break
            # At least one: none waits for ever.
            before = len(self._new)
            while self._new:
                self._step(self._new.popleft())
                if pace.is_over():
                    break
            self._fit = max(_AT_LEAST, before - len(self._new))
        finally:
            if self._resumed or self._new or self._overtime:
                self._pump_soon()
            else:
                self._slice = None

    def _step(self, driven: Driven[Any]) -> None:
        try:
            # Queued work is not done, and awaits nothing else.
            wait: Until = driven.context.run(driven.work.send, None)  # type: ignore[union-attr]
        except StopIteration as end:
            self._end(driven, end.value, None)
        except BaseException as error:
            self._end(driven, None, error)
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            told = {"message": "a closing failed", "exception": error}
            asyncio.get_running_loop().call_exception_handler(told)
        else:
            wait.begin(driven)
            if wait.time is not None:
                wait.number = next(self._numbers)
                self._sleeping[wait.number] = wait
                heapq.heappush(self._due, (wait.time, wait.number))
                if self._timer is None or wait.time + self._lost < self._timer_at:
                    self._arm()
        finally:
            # An error's traceback holds this frame, and the driven object holds the error: a cycle, if the error stayed
            # here.
            del driven

    def _end(self, driven: Driven[Any], result: Any, error: BaseException | None) -> None:
        self._live.discard(driven)
        driven.end(result, error)
        if not self._live:
            self._stop()

    def _stop(self) -> None:
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def _arm(self) -> None:
        """Look at the time when the first is due, or a beat from now if that is earlier."""
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._timer_at = max(now, min(self._due[0][0] + self._lost, now + self._beat))
        self._timer = loop.call_at(self._timer_at, self._on_time, context=contextvars.Context())

    def _on_time(self) -> None:
        self._timer = None
        # Something held the loop: that brings no deadline nearer.
        self._lost += max(0.0, asyncio.get_running_loop().time() - self._timer_at)
        now = self.time()
        while self._due and self._due[0][0] <= now:
            wait = self._sleeping.pop(heapq.heappop(self._due)[1], None)
            if wait is not None:
                self._overtime.append(wait)
                self._pump_soon()
        if self._sleeping:
            self._arm()
