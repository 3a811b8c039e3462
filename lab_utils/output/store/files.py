"""Writes a file whole or not at all."""

from __future__ import annotations

import os
import threading
from pathlib import Path

__all__ = ["write"]


def write(path: Path, text: str) -> Path:
    """Write the text in UTF-8, lone surrogates escaped; a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        made.write_text(text, encoding="utf-8", errors="backslashreplace")
        made.replace(path)
    except BaseException:
        made.unlink(missing_ok=True)
        raise
    return path
