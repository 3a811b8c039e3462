"""Shared by all sessions of one registry: limits, makers, the clock, and the tasks that the registry owns."""

from __future__ import annotations

import asyncio
import contextvars
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, TypeVar

from registry._sessions.driver import Driven, Driver, Owner
from registry.errors import CapacityExceeded, RegistryClosed
from registry.lease import refuse_loop
from registry.limits import Limits
from registry.llm.base import ModelHandleSource
from registry.tools import DispatcherFactory

__all__ = ["LoopGuard", "Runtime"]

T = TypeVar("T")
_Work = asyncio.Future[Any]
# A deadline is kept to this part of `close_timeout`, where the loop is too busy to look at the time.
_BEATS: Final = 32


class LoopGuard:
    """Binds a registry to the event loop of its first call."""

    __slots__ = ("_closed", "home")

    def __init__(self) -> None:
        self.home: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def enter(self) -> None:
        """Raise `WrongEventLoop` or `RegistryClosed` unless this is the registry's own loop and it is open."""
        loop = asyncio.get_running_loop()
        if loop is not self.home:
            if self.home is None:
                self.home = loop
            else:
                refuse_loop(self.home)
        if self._closed:
            self.require_open()

    def require_open(self) -> None:
        """Raise `RegistryClosed` once closed."""
        if self._closed:
            raise RegistryClosed("this registry was closed; make a new AgentRegistry")

    def enter_sync(self) -> None:
        """The same for methods that need no loop: before the first async call they may be called anywhere."""
        home = self.home
        if home is None:
            return
        running = asyncio._get_running_loop()
        if running is not home and (running is not None or home.is_running()):
            refuse_loop(home)

    def close(self) -> None:
        """Refuse every later call."""
        self._closed = True

    @property
    def is_closed(self) -> bool:
        return self._closed


class Runtime:
    """Shared by the sessions of one registry, and never reachable from an agent."""

    __slots__ = (
        "abandoned",
        "abandoned_of",
        "bounds",
        "census",
        "clock",
        "driver",
        "guard",
        "limits",
        "llm_manager",
        "make_dispatcher",
        "on_unused",
        "started",
        "tasks",
    )

    def __init__(
        self,
        limits: Limits,
        clock: Callable[[], float],
        llm_manager: ModelHandleSource,
        make_dispatcher: DispatcherFactory,
    ) -> None:
        self.limits = limits
        self.bounds = limits.bounds
        self.clock = clock
        self.started = clock()
        self.llm_manager = llm_manager
        self.make_dispatcher = make_dispatcher
        self.guard = LoopGuard()
        # Ends a session that came to nothing; set by the lifecycle manager, which is made after this.
        self.on_unused: Callable[[Any], None] = _nobody
        # How many sessions hold so many agents, provisional ones not counted; the health is computed from it.
        self.census = [0, 0]
        self.driver = Driver(limits.close_timeout / _BEATS)
        # Emptied, it is cleared: of few that come and go, a table grows and shrinks by chance, which would look like
        # growth where memory is measured.
        self.tasks: dict[asyncio.Task[object], None] = {}
        self.abandoned: set[_Work] = set()
        self.abandoned_of: Counter[str] = Counter()

    def own(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run a coroutine in a task that the registry keeps until it ends, and awaits when it closes."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks[task] = None
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[object]) -> None:
        del self.tasks[task]
        if not self.tasks:
            self.tasks.clear()

    def own_for_all(
        self, work: Coroutine[Any, Any, None], ended: Callable[[asyncio.Task[None]], None]
    ) -> asyncio.Task[None]:
        """The same for a task that serves all users: it keeps no context variables of whose call happens to begin it.
        `ended` is called with it at its end."""

        def begin() -> asyncio.Task[None]:
            task = self.own(work)
            task.add_done_callback(ended)
            return task

        return contextvars.Context().run(begin)

    def drive(self, work: Coroutine[Any, None, T], owner: Owner, key: Any = None) -> Driven[T]:
        """Have a closing driven, which the registry awaits when it closes."""
        driver = self.driver
        driven = driver.drive(work, owner, key)
        if not driver.is_kept:
            # Only now: an eager task looks at once for something to keep.
            driver.is_kept = True
            self.own_for_all(driver.keep(), driver.kept)
        return driven

    def abandon(self, work: _Work, user_id: str) -> None:
        """Keep work that ignores its cancellation until it ends; the health counts it meanwhile. Its error is logged by
        nobody: the report of the closing names the work."""
        if work.done():
            _retrieve(work)
        elif work not in self.abandoned:
            self.abandoned.add(work)
            self.abandoned_of[user_id] += 1
            work.add_done_callback(partial(self._back, user_id))

    def require_obedience(self, user_id: str) -> None:
        """Raise `CapacityExceeded` while too much of this user ignores its cancellation."""
        most = self.limits.max_abandoned_per_user
        if most is not None and self.abandoned_of[user_id] >= most:
            raise CapacityExceeded(
                f"of user {user_id!r} {self.abandoned_of[user_id]} cleanups, runs or factories ignore their "
                "cancellation (Limits.max_abandoned_per_user); let such code end when it is cancelled"
            )

    def close(self) -> None:
        """Drop the callback that ends unused sessions: its object holds this one."""
        self.on_unused = _nobody

    def _back(self, user_id: str, work: _Work) -> None:
        self.abandoned.discard(work)
        self.abandoned_of[user_id] -= 1
        if not self.abandoned_of[user_id]:
            del self.abandoned_of[user_id]
        _retrieve(work)


def _retrieve(work: _Work) -> None:
    """Keep asyncio from logging the error of ended work."""
    if not work.cancelled():
        work.exception()


def _nobody(_: object) -> None:
    """Stands for the lifecycle manager until there is one, and after the registry was closed."""
