"""Writes a file whole or not at all, and reads regular files only."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

__all__ = ["opened", "read", "write"]


def write(path: Path, text: str | Iterable[bytes]) -> Path:
    """Write the text in UTF-8, lone surrogates escaped, or pieces of bytes; a reader sees the old file or the new one,
    never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        with made.open("wb") as file:
            file.writelines([text.encode("utf-8", "backslashreplace")] if isinstance(text, str) else text)
        made.replace(path)
    except BaseException:
        made.unlink(missing_ok=True)
        raise
    return path


def opened(path: Path) -> BinaryIO:
    """Open a file of a run for reading. Raises `OSError`, also for all that is no regular file: a pipe of that name
    would block whoever reads it, and a device may never end."""
    file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115 - it is the caller's to close
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise OSError(errno.EINVAL, "it is no regular file", os.fspath(path))


def read(path: Path) -> bytes:
    """The content of a file of a run, as `opened`."""
    with opened(path) as file:
        return file.read()


def _without_waiting(path: str, flags: int) -> int:
    # Without the flag the opening of a pipe waits for its writer.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
