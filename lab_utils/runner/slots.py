"""How many checks run at once on this machine's account: two that do not measure, or one that does and nothing beside.

The locks are those of files in one folder, so that processes which know nothing of each other keep to them. The system
takes them from a process that ends in whatever way, and a fork inherits none.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

if sys.platform != "win32":
    import fcntl

__all__ = ["Turn", "take_turn"]

_SECONDS_BETWEEN: Final = 0.02


class Turn:
    """This process's turn, which ends with the process. In between, one that wants to be alone may be let in."""

    def __init__(self, room: int, alone: int) -> None:
        self._room, self._alone = room, alone

    def is_wanted(self) -> bool:
        """Whether a process waits until it is alone. Costs a system call."""
        assert sys.platform != "win32"
        try:
            fcntl.lockf(self._alone, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        fcntl.lockf(self._alone, fcntl.LOCK_UN)
        return False

    def give_way(self) -> None:
        """Leave the room to the process that waits, and return to it, and to the seat, once that process has ended."""
        assert sys.platform != "win32"
        fcntl.lockf(self._room, fcntl.LOCK_UN)
        fcntl.lockf(self._alone, fcntl.LOCK_SH)
        fcntl.lockf(self._room, fcntl.LOCK_SH)
        fcntl.lockf(self._alone, fcntl.LOCK_UN)


def take_turn(folder: Path, slots: int, *, alone: bool, more: int = 0) -> Turn | None:
    """Wait for this process's turn, and keep it until the process ends. `alone`: no other process has a turn then.
    `more`: seats beside the `slots` that only those may take who name them. Return the turn where others may want it.
    """
    if sys.platform == "win32" or slots < 1:
        # On Windows checks run as they come.
        return None
    folder.mkdir(parents=True, exist_ok=True)
    door, room, only = (os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o600) for name in ("door", "room", "alone"))
    # A job that wants the room alone holds the door until it is empty: nobody else comes in, so it empties.
    fcntl.lockf(door, fcntl.LOCK_EX)
    if alone:
        # Those inside may see this, and leave for so long.
        fcntl.lockf(only, fcntl.LOCK_EX)
    fcntl.lockf(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
    if not alone:
        named = [folder / f"seat-{number}" for number in reversed(range(slots + more))]
        seats = [os.open(seat, os.O_RDWR | os.O_CREAT, 0o600) for seat in named]
        _sit(seats)
    fcntl.lockf(door, fcntl.LOCK_UN)
    return None if alone else Turn(room, only)


def _sit(seats: list[int]) -> None:
    assert sys.platform != "win32"
    while True:
        for seat in seats:
            with suppress(OSError):
                fcntl.lockf(seat, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
        # No call waits for the first of several locks. The door is ours, so only one process comes round here.
        time.sleep(_SECONDS_BETWEEN)
