"""Output to a terminal: text that cannot harm it, on streams whose reader may go away."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TextIO, cast

from lab_utils.values.texts import shown

__all__ = ["progress", "say", "steady"]

_SECONDS_BETWEEN: Final = 0.1
_READER_GONE: Final = (errno.EPIPE, errno.EIO)


def say(text: str) -> None:
    """Print a remark on standard error; each of its lines is `shown`."""
    print("registry-lab:", "\n".join(map(shown, text.split("\n"))), file=sys.stderr, flush=True)


@contextmanager
def steady() -> Iterator[None]:
    """While inside, writing to standard output or standard error raises nothing.

    A character that the stream's encoding lacks is written as its escape. Text that nobody reads any more (`| head`, a
    closed descriptor, a terminal that was closed) is dropped; a full disk is reported by one sentence, once.
    """
    _fill_descriptors()
    before = sys.stdout, sys.stderr
    made = [_Steady(stream) for stream in before]
    sys.stdout, sys.stderr = cast(TextIO, made[0]), cast(TextIO, made[1])
    try:
        yield
    finally:
        for stream in made:
            stream.flush()
        sys.stdout, sys.stderr = before


def _fill_descriptors() -> None:
    """Let 0, 1 and 2 be open, here and in processes that are started: the next file or socket would get the number, and
    then the printed text."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


class _Steady:
    """A stream that drops text it cannot write. `None` is one that was closed before the process began."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._is_lost = stream is None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        if self._stream is not None and not self._is_lost:
            encoding = self._stream.encoding or "utf-8"
            text = text.encode(encoding, "backslashreplace").decode(encoding)
            try:
                self._stream.write(text)
            except OSError as error:
                self._lose(error)
        return len(text)

    def flush(self) -> None:
        if self._stream is not None:
            try:
                self._stream.flush()
            except OSError as error:
                self._lose(error)

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    def _lose(self, error: OSError) -> None:
        """Write nowhere from now on: buffered text would fail again, at the latest at Python's exit."""
        assert self._stream is not None
        self._is_lost = True
        with suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        if error.errno not in _READER_GONE:
            say(f"output cannot be written: {error.strerror}; the rest of it is lost")


@contextmanager
def progress(title: str) -> Iterator[Callable[[str, float], None]]:
    """Yield a function of a step and the fraction done, which shows both in one line of standard error.

    If that is not a terminal, nothing is shown, and nothing is left of it afterwards.
    """
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield lambda step, fraction: None
        return
    shown_at = 0.0

    def show(step: str, fraction: float) -> None:
        nonlocal shown_at
        if (now := time.monotonic()) - shown_at >= _SECONDS_BETWEEN:
            shown_at = now
            share = f"{min(fraction, 1.0):4.0%} " if fraction > 0 else ""
            line = shown(f"{share}{title}{', ' if step else ''}{step}")
            print(f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1]}", end="", file=sys.stderr, flush=True)

    show("", 0.0)
    try:
        yield show
    finally:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
