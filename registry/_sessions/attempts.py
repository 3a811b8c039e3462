"""Creates in flight: one in its caller's own task, or one attempt that many callers share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any, Generic, Protocol, TypeVar

from registry.eager import start
from registry.errors import AgentCreationFailed, ReentrantCreate, RegistryError

__all__ = ["InFlight", "OwnCreate", "SharedAttempt"]

T = TypeVar("T")

_FORSAKEN = "every caller that waited for it was cancelled"


class InFlight(Protocol):
    """A create in flight, as the end of its session sees it."""

    def refuse(self, error: RegistryError) -> asyncio.Future[None] | None:
        """Cancel it, once; its callers get the error. Return an awaitable that is done when the create has ended; None
        if it has ended already."""

    def give_up(self) -> asyncio.Future[Any] | None:
        """Called when the create ignores its cancellation: answer its callers if possible; return the future that
        somebody must keep."""


class OwnCreate:
    """A create that runs in its caller's own task, which costs no task of its own.

    Until `begin` it has awaited nothing, and most never do. Ending the session cancels that task and takes the
    cancellation back when the create has left its awaits, as `asyncio.timeout` does; so the caller gets the refusal and
    its task lives on.
    """

    __slots__ = ("_baseline", "_begin_work", "_done", "_refusal", "_taken_back", "_task", "has_begun")

    def __init__(self, begin_work: Callable[[InFlight], None]) -> None:
        self._begin_work = begin_work
        self.has_begun = False

    def begin(self) -> None:
        """The create is going to await something. Safe to call again. Raises as `begin_work`."""
        if self.has_begun:
            return
        self._begin_work(self)
        self.has_begun = True
        self._task = asyncio.current_task()
        self._baseline = self._task.cancelling() if self._task is not None else 0
        self._refusal: RegistryError | None = None
        self._taken_back = False
        self._done: asyncio.Future[None] | None = None

    def refuse(self, error: RegistryError) -> asyncio.Future[None]:
        if self._refusal is None:
            self._refusal = error
            self._done = asyncio.get_running_loop().create_future()
            if self._task is not None:
                self._task.cancel()
        assert self._done is not None
        return self._done

    def give_up(self) -> asyncio.Future[None] | None:
        # The factory's code runs in its caller's own task, which is answered when that code lets it go on.
        return self._done

    def instead_of(self, error: BaseException) -> BaseException | None:
        """Return the error that the caller should get in place of this one, None if it should get this one."""
        if not self.has_begun:
            from_within = isinstance(error, asyncio.CancelledError)
            return AgentCreationFailed("the factory was cancelled from within") if from_within else None
        if isinstance(error, asyncio.CancelledError):
            if self._take_back() > self._baseline:
                # Cancelled by its own caller, whatever else happened.
                return None
            return self._refusal or AgentCreationFailed("the factory was cancelled from within")
        return self._refusal if self._refusal is not error else None

    def end(self) -> None:
        """The create has left its awaits, one way or the other."""
        self._take_back()
        self._task = None
        # A raised refusal holds the frames that hold this.
        self._refusal = None
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    def _take_back(self) -> int:
        if self._task is None:
            return 0
        if self._refusal is not None and not self._taken_back:
            self._taken_back = True
            return self._task.uncancel()
        return self._task.cancelling()


class Making:
    """Stands for an attempt in the context variables of the code that it runs, and in those of the tasks started there.
    They outlive it, so this leads to nothing but the attempts that such code waits for now."""

    __slots__ = ("waits_for",)

    def __init__(self) -> None:
        self.waits_for: list[Making] = []

    def needs(self, other: Making) -> bool:
        """True if this is the other, or waits for it through any number of others."""
        todo = [self]
        seen = set[int]()
        while todo:
            making = todo.pop()
            if making is other:
                return True
            if id(making) not in seen:
                seen.add(id(making))
                todo += making.waits_for
        return False


_current: ContextVar[Making | None] = ContextVar("registry_current_making", default=None)


class SharedAttempt(Generic[T]):
    """A coroutine run once, in a task of its own, for every caller that joins it. It begins with `await begin()`.

    A caller that the attempt itself waits for (a factory that asks for its own agent) is refused: it would wait for
    ever. A cancelled caller leaves the others alone. When the last one is cancelled, so is the attempt, and `forget` is
    called at once: the next caller starts anew.

    When the task has ended, even if it was cancelled before its first step, `forget` is called first. Then follows
    `accept(value)` if callers get the value, or `reject(value)` if the attempt was refused or nobody waits any more; at
    last `ended`. Callers get the answer of `accept`, the error that `accept` or the task raised, or the refusal; never
    a CancelledError that is not their own.
    """

    __slots__ = (
        "_accept",
        "_done",
        "_ended_hook",
        "_forget",
        "_making",
        "_refusal",
        "_reject",
        "_task",
        "_waiters",
        "_what",
    )

    def __init__(
        self,
        what: str,
        work: Coroutine[Any, Any, T],
        *,
        accept: Callable[[T], T],
        reject: Callable[[T], None],
        forget: Callable[[SharedAttempt[T]], None],
        ended: Callable[[SharedAttempt[T]], None],
    ) -> None:
        self._what = what
        self._accept = accept
        self._reject = reject
        self._forget = forget
        self._ended_hook = ended
        self._refusal: RegistryError | None = None
        self._done: asyncio.Future[None] | None = None
        self._waiters: set[asyncio.Future[T]] = set()
        self._making = Making()
        before = _current.set(self._making)
        try:
            self._task: asyncio.Task[T] | None = start(work)
        finally:
            _current.reset(before)
        self._task.add_done_callback(self._ended)

    async def join(self) -> T:
        """Wait for the attempt and return its value, or raise its error. Raises `ReentrantCreate`."""
        within = _current.get()
        if within is None:
            return await self._join()
        if self._making.needs(within):
            raise ReentrantCreate(
                f"{self._what} is being made, and its own factory asked for it and would wait for ever; pass it on "
                "instead, or ask for it once it has been made"
            )
        within.waits_for.append(self._making)
        try:
            return await self._join()
        finally:
            within.waits_for.remove(self._making)

    async def _join(self) -> T:
        waiter: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            self._waiters.discard(waiter)
            if not self._waiters and self._task is not None:
                self.refuse(AgentCreationFailed(_FORSAKEN))
                self._forget(self)
            raise
        finally:
            # An error's traceback holds this frame, and the waiter holds the error: a cycle, if it stayed here.
            del waiter

    def refuse(self, error: RegistryError) -> asyncio.Future[None] | None:
        """Cancel the attempt; its callers get `error` when it has ended. Return an awaitable that is done then; None if
        the attempt has ended already."""
        if self._task is None:
            return None
        if self._refusal is None:
            self._refusal = error
            # Not the task itself: it is done one turn before its callers get their answer and its product is thrown
            # away.
            self._done = asyncio.get_running_loop().create_future()
            self._task.cancel()
        return self._done

    def give_up(self) -> asyncio.Task[T] | None:
        """Answer the callers of a refused attempt that ignores its cancellation; return its task."""
        assert self._refusal is not None
        self._fail(self._refusal)
        return self._task

    def _ended(self, task: asyncio.Task[T]) -> None:
        # The task holds the error, whose traceback may lead back here.
        self._task = None
        self._forget(self)
        error = None if task.cancelled() else task.exception()
        if task.cancelled():
            self._fail(self._refusal or AgentCreationFailed("the factory was cancelled from within"))
        elif error is not None:
            self._fail(self._refusal or error)
        elif self._refusal is not None or all(waiter.done() for waiter in self._waiters):
            # Also while all waiting callers have been cancelled, and none of them has noticed yet.
            self._reject(task.result())
            self._fail(self._refusal or AgentCreationFailed(_FORSAKEN))
        else:
            try:
                self._succeed(self._accept(task.result()))
            except (asyncio.CancelledError, StopIteration) as odd:
                # No future takes the one, and from the other a caller would think that it was cancelled.
                self._fail(AgentCreationFailed(f"{self._what} could not be taken: it raised {type(odd).__name__}"))
            except Exception as refusal:
                # Without its traceback: that would hold this frame, and the frame the error.
                self._fail(refusal.with_traceback(None))
        self._ended_hook(self)
        if self._done is not None:
            self._done.set_result(None)

    def _succeed(self, value: T) -> None:
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(value)

    def _fail(self, error: BaseException) -> None:
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if not waiter.done():
                # A refusal each: one that were shared would gather the tracebacks of all who raise it.
                waiter.set_exception(type(error)(*error.args) if error is self._refusal else error)
