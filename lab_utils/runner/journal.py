"""The last operations of a check, in a file that outlives its process: all that is left of one that was killed."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Final

__all__ = ["Journal", "read_beats", "read_journal", "read_position"]

_SLOTS: Final = 16
_SLOT: Final = 256
_NUMBER: Final = 8
_BEATS: Final = 2 * _NUMBER
_HEAD: Final = 3 * _NUMBER


class Journal:
    """Keeps the last 16 lines and the position reached in a mapped file. Writing allocates nothing that stays and makes
    no system call."""

    def __init__(self, path: Path) -> None:
        # Those who read it may look at any moment: it is whole when it is there.
        made = path.with_name(f"{path.name}.new")
        made.write_bytes(bytes(_HEAD + _SLOTS * _SLOT))
        made.replace(path)
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self._count = 0

    def write(self, line: str) -> None:
        """Add a line; anything beyond 256 bytes is cut off."""
        at = _HEAD + self._count % _SLOTS * _SLOT
        self._map[at : at + _SLOT] = line.encode("utf-8", "backslashreplace")[:_SLOT].ljust(_SLOT, b"\0")
        self._count += 1
        self._map[:_NUMBER] = self._count.to_bytes(_NUMBER, "little")

    def reach(self, position: int) -> None:
        """Write how far the check is: a number that changes when an operation begins or ends, also one without a
        line."""
        self._map[_NUMBER:_BEATS] = position.to_bytes(_NUMBER, "little")

    def beat(self) -> None:
        """Show that a thread of Python runs. Allocates nothing at all: a check may be measuring memory."""
        self._map[_BEATS] = self._map[_BEATS] % 255 + 1

    def starting(self, is_it: bool) -> None:
        """Write whether a target is being made or started."""
        self._map[_BEATS + 1] = is_it


def read_position(path: Path) -> int:
    """The position that was reached; 0 where nothing was written."""
    try:
        with path.open("rb") as file:
            return int.from_bytes(file.read(_BEATS)[_NUMBER:], "little")
    except FileNotFoundError:
        return 0


def read_beats(path: Path) -> int:
    """A number that is another one after each beat; 0 before the first, and while a target is started."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
            return 0 if head[_BEATS + 1] else head[_BEATS]
    except FileNotFoundError:
        return 0


def read_journal(path: Path) -> list[str]:
    """The lines that are kept, oldest first; none where nothing was written."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    count = int.from_bytes(data[:_NUMBER], "little")
    slots = (_HEAD + number % _SLOTS * _SLOT for number in range(max(0, count - _SLOTS), count))
    return [data[at : at + _SLOT].rstrip(b"\0").decode("utf-8", "replace") for at in slots]
