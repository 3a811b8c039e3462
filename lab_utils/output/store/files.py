"""Writes a file whole or not at all."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import Path

__all__ = ["write"]


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
