"""Prepares text for a figure: distinct ids, estimates of widths, and lines no longer than their room."""

from __future__ import annotations

import re
import unicodedata
from html import escape
from typing import Final

__all__ = ["NARROW", "fitted", "plain", "titled", "width"]

NARROW: Final = 300
"""The width in pixels of a figure on a phone; texts beside each other have room in it."""

# Widths in em of DejaVu Sans, which is wider than the usual fonts of a system: an estimate errs on the safe side.
_EM: Final = {
    **dict.fromkeys("ijl|'", 0.29),
    **dict.fromkeys(" ,.:;/\\Iftr!()[]-", 0.41),
    **dict.fromkeys("mMwWQ@%&_#+=<>~", 0.88),
    **dict.fromkeys("abcdeghknopqsuvxyz$?*", 0.62),
}
_UPPER, _DIGIT, _WIDE, _OTHER = 0.72, 0.64, 1.05, 0.8
_EDGES: Final = re.compile(r"^ +| +$| {2,}")


def plain(name: str) -> str:
    """An id as text that no other id has: all but ASCII is escaped, and so is each space that a page would drop.

    Two ids that look alike, or differ only in invisible characters, differ here.
    """
    escaped = name.encode("unicode_escape").decode("ascii")
    return _EDGES.sub(lambda found: r"\x20" * len(found[0]), escaped)


def width(text: str, size: float = 12) -> float:
    """About how many pixels wide a line of text is."""
    return size * sum(map(_em, text))


def _em(one: str) -> float:
    if one in _EM:
        return _EM[one]
    if one.isascii():
        return _DIGIT if one.isdigit() else _UPPER
    if unicodedata.combining(one):
        return 0.0
    return _WIDE if unicodedata.east_asian_width(one) in "WF" else _OTHER


def fitted(text: str, pixels: float, size: float = 12, *, keep_end: bool = True) -> str:
    """The text if it fits that width, else as much of its beginning and end as fits, with `…` between."""
    if width(text, size) <= pixels:
        return text
    room = pixels - width("…", size)
    head = _room(text, room * (0.5 if keep_end else 1.0), size)
    tail = _room(text[::-1], room - width(text[:head], size), size) if keep_end else 0
    return f"{text[:head]}…{text[len(text) - tail :]}"


def _room(text: str, pixels: float, size: float) -> int:
    """How many letters from the beginning have room."""
    for count, one in enumerate(text):
        pixels -= size * _em(one)
        if pixels < 0:
            return count
    return len(text)


def titled(shown: str, full: str) -> str:
    """The content of a `<text>`: the shown text, and the full text as its title where that is more."""
    return escape(shown) if shown == full else f"<title>{escape(full)}</title>{escape(shown)}"
