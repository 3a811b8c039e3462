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

__all__ = ["take_slot"]

_SECONDS_BETWEEN: Final = 0.02


def take_slot(folder: Path, slots: int, *, alone: bool, more: int = 0) -> None:
    """Wait for this process's turn, and keep it until the process ends. `alone`: no other process has a turn then.
    `more`: seats beside the `slots` that only those may take who name them."""
    if sys.platform == "win32" or slots < 1:
        # On Windows checks run as they come.
        return
    folder.mkdir(parents=True, exist_ok=True)
    door = os.open(folder / "door", os.O_RDWR | os.O_CREAT, 0o600)
    room = os.open(folder / "room", os.O_RDWR | os.O_CREAT, 0o600)
    # A job that wants the room alone holds the door until it is empty: nobody else comes in, so it empties.
    fcntl.lockf(door, fcntl.LOCK_EX)
    fcntl.lockf(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
    if not alone:
        named = [folder / f"seat-{number}" for number in reversed(range(slots + more))]
        seats = [os.open(seat, os.O_RDWR | os.O_CREAT, 0o600) for seat in named]
        _sit(seats)
    fcntl.lockf(door, fcntl.LOCK_UN)


def _sit(seats: list[int]) -> None:
    assert sys.platform != "win32"
    while True:
        for seat in seats:
            with suppress(OSError):
                fcntl.lockf(seat, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
        # No call waits for the first of several locks. The door is ours, so only one process comes round here.
        time.sleep(_SECONDS_BETWEEN)
