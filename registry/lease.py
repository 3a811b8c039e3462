"""How long the things of one user live: one flag they all look at, and nothing that leads back to their owner."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, Final, NoReturn, SupportsIndex, TypeVar, cast

from registry.errors import AgentClosed, SessionClosed, WrongEventLoop, a_type, describe, shown, stops

__all__ = ["Lifetime", "SessionLifetime", "Uncopyable", "refuse_loop"]

OPEN: Final = 0
CLOSING: Final = 1  # Nothing new may begin; closing code may still use the resources.
CLOSED: Final = 2  # Nothing works any more.

T = TypeVar("T")


class Uncopyable:
    """A live handle: a copy of it would have an end of its own, and so outlive the session."""

    __slots__ = ()

    def __reduce_ex__(self, _: SupportsIndex) -> NoReturn:
        raise TypeError(f"{a_type(self)} is a live handle; it can be neither copied nor pickled")


class Lifetime(Uncopyable):
    """The life of one agent, or of one managed context; it ends at the latest with its parent's."""

    __slots__ = ("__weakref__", "parent", "state", "subject")

    def __init__(self, subject: str, parent: SessionLifetime | None = None) -> None:
        self.subject = subject
        self.parent = parent
        self.state = OPEN

    @property
    def is_open(self) -> bool:
        """True while new work may begin."""
        return self.state == OPEN and (self.parent is None or self.parent.state == OPEN)

    def require_open(self) -> None:
        """Raise `SessionClosed` (or `AgentClosed`) unless new work may begin."""
        parent = self.parent
        if parent is not None and parent.state != OPEN:
            parent.refuse()
        if self.state != OPEN:
            self.refuse()

    def require_usable(self) -> None:
        """Raise `SessionClosed` (or `AgentClosed`) once closing is over."""
        parent = self.parent
        if parent is not None and parent.state == CLOSED:
            parent.refuse()
        if self.state == CLOSED:
            self.refuse()

    def close(self) -> None:
        """Let nothing new begin; closing code may still use the resources, until `end`."""
        if self.state == OPEN:
            self.state = CLOSING

    def end(self) -> None:
        """Let nothing work any more."""
        self.state = CLOSED

    def refuse(self) -> None:
        """Raise the error that names the closed object."""
        # For an agent, only its type: the rest of the words would be made for every agent, and needed by few.
        subject = self.subject if self.parent is None else f"agent {self.subject}"
        raise AgentClosed(f"{subject} is closed and can no longer be used")


class SessionLifetime(Lifetime):
    """The life of one user's session, with everything that all of that user's agents share: the bridge and kept
    resources.

    It knows neither the session nor the registry, so nobody who holds it can reach another user through it.
    `make_bridge(user_id)` makes the bridge that is there while none was set.
    """

    __slots__ = (
        "_kept",
        "_make_bridge",
        "bounds",
        "clock",
        "home",
        "last_used",
        "most_runs",
        "set_bridge",
        "user_id",
        "uses",
    )

    def __init__(
        self,
        user_id: str,
        clock: Callable[[], float],
        home: asyncio.AbstractEventLoop | None,
        make_bridge: Callable[[str], Any],
        bounds: tuple[int, int],
        most_runs: int | None = None,
    ) -> None:
        self.parent = None
        self.state = OPEN
        self.user_id = user_id
        self.clock = clock
        self.home = home
        self.bounds = bounds  # For values that are copied for this user.
        self.most_runs = most_runs  # Per agent.
        self.last_used = clock()
        self.uses = 0
        # An `events.types.EventBridge`, which this module must not know; None: not one was set, nor asked for.
        self.set_bridge: Any = None
        self._make_bridge = make_bridge
        self._kept: dict[Hashable, tuple[object, Callable[[], None]]] | None = None

    @property
    def bridge(self) -> Any:
        """The bridge that was set last; else one that is made now, closed if the session has ended."""
        if self.set_bridge is None:
            # Most sessions without a manager are never asked for it.
            self.set_bridge = self._make_bridge(self.user_id)
            if self.state == CLOSED:
                self.set_bridge.close()
        return self.set_bridge

    def touch(self) -> int:
        """Note a use now; return its number, which orders the uses of this session."""
        self.last_used = self.clock()
        self.uses += 1
        return self.uses

    def require_home(self) -> None:
        """Raise `WrongEventLoop` on any loop but the registry's own."""
        if asyncio.get_running_loop() is not self.home:
            refuse_loop(self.home)

    def keep(self, key: Hashable, open_: Callable[[], T], close: Callable[[T], None]) -> T:
        """Return the session's one resource under `key`, opened at its first use and closed with the session.

        `open_` runs without an await, so two callers never open two. An error of `open_` is raised, and nothing is
        kept.
        """
        self.require_usable()
        kept = self._kept
        if kept is None:
            kept = self._kept = {}
        if key in kept:
            return cast(T, kept[key][0])
        resource = open_()
        kept[key] = (resource, partial(close, resource))
        return resource

    def let_go(self, key: Hashable) -> None:
        """Keep the resource under `key` no more, and leave it open."""
        if self._kept is not None:
            self._kept.pop(key, None)

    @property
    def has_kept(self) -> bool:
        """True while there are kept resources."""
        return self._kept is not None

    def release_kept(self) -> list[str]:
        """Close the kept resources, newest first; return every error of their closing as a text."""
        errors: list[str] = []
        while self._kept:
            key, (_, close) = self._kept.popitem()
            try:
                close()
            except BaseException as error:
                if stops(error):
                    raise
                errors.append(f"while closing the session's resource {shown(key)}: {describe(error)}")
        return errors

    def refuse(self) -> None:
        raise SessionClosed(f"the session of user {self.user_id!r} has ended; nothing of it can be used any more")


def refuse_loop(home: asyncio.AbstractEventLoop | None) -> NoReturn:
    """Raise `WrongEventLoop`."""
    state = "which is closed" if home is not None and home.is_closed() else "which is another one"
    raise WrongEventLoop(
        f"this registry belongs to the event loop of its first call, {state}; "
        "make one registry for each loop, or use asyncio.run_coroutine_threadsafe(call, its_loop)"
    )
