"""What is being made for a session: a create in its caller's own task, or one attempt that many callers share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, Protocol, TypeVar

from registry.errors import AgentCreationFailed, RegistryError

__all__ = ["InFlight", "OwnCreate", "SharedAttempt"]

T = TypeVar("T")


class InFlight(Protocol):
    """What a session that ends can do about something that is being made."""

    def refuse(self, error: RegistryError) -> asyncio.Future[Any] | None:
        """Cancel it; its callers get the error. Return what is done when it has ended, None if it has."""

    def give_up(self) -> asyncio.Task[Any] | None:
        """It ignores its cancellation: answer its callers if possible; return a task that somebody must keep."""


class OwnCreate:
    """A create that runs in its caller's own task, which costs no task of its own.

    Ending the session cancels that task and takes the cancellation back when the create has left its awaits, as
    `asyncio.timeout` does; so the caller gets the refusal and its task lives on.
    """

    __slots__ = ("_baseline", "_done", "_refusal", "_taken_back", "_task")

    def __init__(self) -> None:
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

    def give_up(self) -> None:
        # The factory's code runs in its caller's task: there is nothing to keep and nobody else to answer.
        return None

    def check(self) -> None:
        """Raise the refusal if there is one: for a factory that swallowed its cancellation."""
        if self._refusal is not None:
            raise self._refusal

    def translate(self) -> BaseException | None:
        """Called with a CancelledError in hand: return the error that the caller should get in its place, if any."""
        others = self._take_back() > self._baseline
        if others:
            return None
        return self._refusal or AgentCreationFailed("the factory was cancelled from within")

    def end(self) -> None:
        """The create has left its awaits, one way or the other."""
        self._take_back()
        self._task = None
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    def _take_back(self) -> int:
        if self._task is None:
            return 0
        if self._refusal is not None and not self._taken_back:
            self._taken_back = True
            return self._task.uncancel()
        return self._task.cancelling()


class SharedAttempt(Generic[T]):
    """A coroutine run once, in a task of its own, for every caller that joins it.

    A cancelled caller leaves the others alone; when the last one is cancelled, so is the attempt, and `forget` is
    called at once so that the next caller starts anew. `settle(value, error)` and then `ended` are called exactly once
    when the task has ended, also when it was cancelled before its first step; with no error `settle` takes the value
    over and may still return an error for the callers. Callers get the value, that error, or the refusal; never a
    CancelledError that is not their own.
    """

    __slots__ = ("_ended_hook", "_forget", "_refusal", "_settle", "_task", "_waiters")

    def __init__(
        self,
        work: Coroutine[Any, Any, T],
        *,
        settle: Callable[[T | None, BaseException | None], BaseException | None],
        forget: Callable[[SharedAttempt[T]], None],
        ended: Callable[[SharedAttempt[T]], None],
    ) -> None:
        self._settle = settle
        self._ended_hook = ended
        self._forget = forget
        self._refusal: RegistryError | None = None
        self._waiters: set[asyncio.Future[T]] = set()
        self._task: asyncio.Task[T] | None = asyncio.get_running_loop().create_task(work)
        self._task.add_done_callback(self._ended)

    @property
    def is_refused(self) -> bool:
        """True once nobody will take what the attempt makes."""
        return self._refusal is not None

    async def join(self) -> T:
        """Wait for the attempt and return its value, or raise its error."""
        waiter: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            self._waiters.discard(waiter)
            if not self._waiters and self._task is not None:
                self.refuse(AgentCreationFailed("every caller that waited for it was cancelled"))
                self._forget(self)
            raise
        finally:
            # An error's traceback holds this frame, and the waiter holds the error: a cycle, if it stayed here.
            del waiter

    def refuse(self, error: RegistryError) -> asyncio.Task[T] | None:
        """Cancel the attempt; its callers get `error` when it has ended. Return the task, to be awaited."""
        if self._refusal is None:
            self._refusal = error
            if self._task is not None:
                self._task.cancel()
        return self._task

    def give_up(self) -> asyncio.Task[T] | None:
        """Answer the callers of a refused attempt that ignores its cancellation; return its task."""
        assert self._refusal is not None, "only a refused attempt can be given up"
        self._answer(None, self._refusal)
        return self._task

    def _ended(self, task: asyncio.Task[T]) -> None:
        # The task holds the error, whose traceback may lead back here.
        self._task = None
        value: T | None = None
        error: BaseException | None
        if task.cancelled():
            error = self._refusal or AgentCreationFailed("the factory was cancelled from within")
        else:
            error = task.exception()
            if error is None:
                value = task.result()
                error = self._refusal
        self._forget(self)
        error = self._settle(value, error) or error
        self._ended_hook(self)
        self._answer(value, error)

    def _answer(self, value: T | None, error: BaseException | None) -> None:
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if waiter.done():
                continue
            if error is not None:
                waiter.set_exception(error)
            else:
                waiter.set_result(value)  # type: ignore[arg-type]  # No error: the value is there.
