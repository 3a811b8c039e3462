"""The output of a process, bounded: its head and its tail in memory, and the whole, up to a limit, in a file."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import BinaryIO, Final

from lab_utils.values.texts import plain_output, without_folders

__all__ = ["Printed"]

_KEPT: Final = 8_192
_MOST_IN_FILE: Final = 1 << 24
_LONGEST_LINE: Final = 1 << 16


class Printed:
    """The head and the tail of an output, with the count of the bytes between them. Adding is linear in time.

    `file` has all of it, up to 16 MB, without colours and without the folders of this machine: from the first byte on
    if `always`, else only where something was cut out. A file that cannot be written is left as it is.
    """

    def __init__(self, file: Path | None = None, *, always: bool = False) -> None:
        self._head, self._tail = bytearray(), deque[bytes]()
        self._kept, self._cut = 0, 0
        self._place, self._always = file, always
        self._file: BinaryIO | None = None
        self._line = b""
        self._left = _MOST_IN_FILE

    def add(self, data: bytes) -> None:
        """Take more output."""
        room = _KEPT - len(self._head)
        self._head += data[:room]
        if rest := data[room:]:
            self._tail.append(rest)
            self._kept += len(rest)
        if self._file is not None:
            self._write(data)
        elif self._place is not None and (self._always or self._kept > _KEPT):
            self._open()
        while self._tail and self._kept - len(self._tail[0]) >= _KEPT:
            gone = len(self._tail.popleft())
            self._kept -= gone
            self._cut += gone

    def close(self) -> None:
        """Finish the file."""
        if self._file is not None:
            self._write(b"\n" if self._line else b"")
            if self._left < 0:
                self._put(f"... {-self._left:,} bytes are left out here ...\n".encode())
                self._put(_written(self._end()))
        if self._file is not None:
            self._file.close()
            self._file = None

    def text(self) -> str:
        """The head, the count of the cut bytes and the file that has them, and the tail."""
        tail = self._end()
        cut = self._cut + self._kept - len(tail)
        where = f", see {'/'.join(self._place.parts[-2:])}" if self._place is not None else ""
        remark = f"\n... {cut:,} bytes are left out here{where} ...\n".encode() if cut else b""
        return bytes(self._head + remark + tail).decode("utf-8", "backslashreplace")

    def _end(self) -> bytes:
        return b"".join(self._tail)[-_KEPT:]

    def _open(self) -> None:
        assert self._place is not None
        try:
            self._place.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._place.open("wb")
        except OSError:
            self._place = None
        else:
            self._write(bytes(self._head) + b"".join(self._tail))

    def _write(self, data: bytes) -> None:
        """Write whole lines, for a folder may be named in two pieces of one."""
        self._left, data = self._left - len(data), data[: max(self._left, 0)]
        if not data:
            return
        lines, end, rest = (self._line + data).rpartition(b"\n")
        if not end and len(rest) > _LONGEST_LINE:
            lines, rest = rest, b""
        self._line = rest
        self._put(_written(lines + end))

    def _put(self, data: bytes) -> None:
        if self._file is not None:
            try:
                self._file.write(data)
                self._file.flush()
            except OSError:
                self._file, self._place = None, None


def _written(data: bytes) -> bytes:
    return without_folders(plain_output(data.decode("utf-8", "backslashreplace"))).encode("utf-8", "backslashreplace")
