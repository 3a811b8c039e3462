"""Weighs sessions: the bytes of all that a session and its agents refer to."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import types
import weakref
from typing import Any, Final

from registry._sessions.driver import Slice
from registry._sessions.session import UserAgentSession

__all__ = ["Scales"]

_MOST: Final = 100_000
_PIECE: Final = 1_000
# Bytes of an object that may refer to more than will be looked at, so that only to list it would take long.
_LARGE: Final = 16 * _MOST
# Shared by the whole process, or leading to something shared: they belong to no user.
_SHARED: Final = (
    *(type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.CodeType, types.FrameType),
    *(asyncio.AbstractEventLoop, asyncio.Future, contextvars.Context),
)
# The flag of a type whose objects may refer to others.
_REFERS: Final = 1 << 14


class Scales:
    """Weighs one session after another."""

    __slots__ = ("_kinds", "_pace")

    def __init__(self, pace: Slice) -> None:
        self._pace = pace
        # By type: None if its objects are left out, else whether they may refer to others.
        self._kinds: dict[type, bool | None] = {}

    async def weigh(self, session: UserAgentSession) -> tuple[int, bool]:
        """Return the bytes, and whether they are complete: they are not if there are very many objects, or if the
        session ends meanwhile. Pauses in a large session; objects that end meanwhile are freed all the same."""
        load = _Load(session)
        if not self._add_some(load):
            life = session._life
            known = weakref.ref(life)
            # The objects still to be looked at go with the session, as its other resources do.
            life.keep(load, lambda: load, _Load.drop)
            del session, life
            try:
                while True:
                    await asyncio.sleep(0)
                    self._pace.begin()
                    if self._add_some(load):
                        break
            finally:
                if (there := known()) is not None:
                    there.let_go(load)
                # After a cancelled weighing, the session's resources may be among the objects left, and so this object
                # itself.
                load.todo.clear()
        return load.size, load.is_complete

    def _add_some(self, load: _Load) -> bool:
        """Add as many objects as this slice has time for; True if none is left to add."""
        kinds, seen, todo = self._kinds, load.seen, load.todo
        left = _PIECE
        while todo:
            item = todo.pop()
            kind = type(item)
            try:
                refers = kinds[kind]
            except KeyError:
                refers = kinds[kind] = None if issubclass(kind, _SHARED) else bool(kind.__flags__ & _REFERS)
            if refers is None or id(item) in seen:
                continue
            seen.add(id(item))
            size = sys.getsizeof(item)
            load.size += size
            if refers:
                if size > _LARGE:
                    load.drop()
                else:
                    todo += gc.get_referents(item)
            left -= 1
            if not left:
                left = _PIECE
                if len(seen) >= _MOST:
                    if todo:
                        load.drop()
                elif self._pace.is_over(_PIECE):
                    return False
        self._pace.is_over(_PIECE - left)
        return True


class _Load:
    """The objects of a session that were added, and those still to be added."""

    __slots__ = ("is_complete", "seen", "size", "todo")

    def __init__(self, session: UserAgentSession) -> None:
        self.size = 0
        self.is_complete = True
        self.todo: list[Any] = [session]
        runtime = session._runtime
        offers = session._offers.open if session._offers is not None else ()
        # Not the session's: objects that all sessions share, the managers (which know all users), and this.
        self.seen = {id(runtime), id(runtime.clock), id(session._manager), id(self)}
        self.seen.update(id(offer.manager) for offer in offers)

    def drop(self) -> None:
        """Add nothing more."""
        self.is_complete = False
        self.todo.clear()
