"""Finds where an object was allocated, as `tracemalloc` recorded it."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from pathlib import Path
from typing import Any

from lab_utils.probes.paths import step

__all__ = ["allocated_at", "place_of"]

_FRAMES = 3
_UNTRACED = (
    "allocated nobody knows where: allocations are not traced; call tracemalloc.start(5) before the work, or start "
    "Python with -X tracemalloc=5"
)


def allocated_at(item: object) -> str:
    """Return "allocated at file:line", with its callers where they were traced, the innermost first; else why not.

    Before 3.12 `tracemalloc` does not find an object that has a `__dict__`: then the first of its attributes that was
    traced is named in its place, which its `__init__` made as a rule.
    """
    if not tracemalloc.is_tracing():
        return _UNTRACED
    if site := _site(item):
        return f"allocated at {site}"
    for part in _own_parts(item):
        if site := _site(part):
            return f"its {step(item, part).lstrip('.')} allocated at {site}"
    if sys.version_info < (3, 12) and type(item).__dictoffset__:
        return "allocated nobody knows where: Python 3.11 does not record it for objects with a __dict__; 3.12 does"
    return "allocated before allocations were traced, or in memory that the interpreter had kept for reuse"


def _site(item: object) -> str:
    traced = tracemalloc.get_object_traceback(item)
    if traced is None:
        return ""
    return ", called from ".join(place_of(frame) for frame in list(reversed(traced))[:_FRAMES])


def place_of(frame: tracemalloc.Frame) -> str:
    """A line of code as "package/module.py:12"."""
    return f"{'/'.join(Path(frame.filename.lstrip('/')).parts[-3:])}:{frame.lineno}"


def _own_parts(item: Any) -> list[Any]:
    """Objects that only this object holds: others may have been made elsewhere."""
    namespace = getattr(item, "__dict__", None) if type(item).__dictoffset__ else None
    # The dictionary itself may have been made just now, by asking for it.
    parts = namespace.values() if type(namespace) is dict else gc.get_referents(item)
    return [part for part in parts if not isinstance(part, (type, str, int))]
