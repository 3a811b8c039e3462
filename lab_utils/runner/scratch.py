"""Folders for a time. One whose process was killed is removed by the next process that makes one."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

if sys.platform != "win32":
    import fcntl

__all__ = ["make_scratch", "remove_scratch", "scratch"]

_PREFIX: Final = "registry-lab-"
_OWNER: Final = ".owner"
_making: Final = threading.Lock()
_held: Final[dict[Path, int]] = {}
_swept_by: list[int] = []


@contextmanager
def scratch(kind: str) -> Iterator[Path]:
    """Yield a new folder, which is gone afterwards."""
    folder = make_scratch(kind)
    try:
        yield folder
    finally:
        remove_scratch(folder)


def make_scratch(kind: str) -> Path:
    """Make a new folder, for `remove_scratch` to remove. Several threads may call it."""
    with _making:
        # Before this process has a folder: a lock keeps out other processes, and not the one that holds it.
        if not _held and _swept_by != [os.getpid()]:
            _swept_by[:] = [os.getpid()]
            with suppress(OSError):
                _sweep(Path(tempfile.gettempdir()))
        folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{kind}-"))
        if sys.platform != "win32":
            # It is locked before it has its name: a process that sweeps would take the folder for a left one.
            unnamed = folder / f"{_OWNER}.new"
            _held[folder] = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.lockf(_held[folder], fcntl.LOCK_EX | fcntl.LOCK_NB)
            unnamed.replace(folder / _OWNER)
    return folder


def remove_scratch(folder: Path) -> None:
    """Remove a folder that `make_scratch` made."""
    shutil.rmtree(folder, ignore_errors=True)
    with _making:
        if (held := _held.pop(folder, None)) is not None:
            os.close(held)


def _sweep(temporary: Path) -> None:
    """Remove the folders of this user whose owner has ended: the system takes the lock from it in whatever way."""
    if sys.platform == "win32":
        return
    for entry in os.scandir(temporary):
        if not entry.name.startswith(_PREFIX) or not entry.is_dir(follow_symlinks=False):
            continue
        # One that another process removes just now, or of another user, or that is not locked yet and has no such file.
        with suppress(OSError):
            if entry.stat(follow_symlinks=False).st_uid != os.getuid():
                continue
            owner = os.open(Path(entry.path) / _OWNER, os.O_RDWR)
            try:
                fcntl.lockf(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(entry.path, ignore_errors=True)
            finally:
                os.close(owner)
