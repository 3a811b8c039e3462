"""The values allowed as user id, thread id, run id and request id.

Two ids are equal only code point for code point: nothing here folds case, normalises Unicode, strips or joins.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import TypeGuard

from registry.errors import InvalidIdentifier, InvalidUserId, a_type, shown

__all__ = ["MAX_ID_LENGTH", "check_id", "check_user_id", "plain_str", "random_hex"]

MAX_ID_LENGTH = 256
"""Characters. Long enough for a SHA-512 in hex or an e-mail address (254, RFC 5321)."""

# C0, DEL and C1 are Unicode's control characters (category Cc). Lone surrogates are not characters: they cannot be
# encoded, so such an id would be refused by every database and socket later, in the middle of some work.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def check_user_id(value: object) -> str:
    """Return `value` as a plain `str` if it is a valid user id, or raise `InvalidUserId`."""
    if _is_plain(value):
        return value
    problem = _problem(value)
    if problem:
        raise InvalidUserId(f"user_id {shown(value, 80)} {problem}")
    return str.__str__(value)  # _problem saw that it is one.


def check_id(kind: str, value: object) -> str:
    """Return `value` as a plain `str` if it may be an id of this kind, or raise `InvalidIdentifier`."""
    if _is_plain(value):
        return value
    problem = _problem(value)
    if problem:
        raise InvalidIdentifier(f"{kind} {shown(value, 80)} {problem}")
    return str.__str__(value)  # _problem saw that it is one.


def plain_str(value: object) -> str:
    """Return the text of a `str` or a subclass, which may lie about its equality; "" for any other value."""
    if type(value) is str:
        return value
    return str.__str__(value) if issubclass(type(value), str) else ""


class _Digits:
    """Hexadecimal digits of the system's randomness, 16 at a time. A call of the system for each would take longer than
    all the rest of a context."""

    def __init__(self) -> None:
        self._parts = tuple(slice(start, start + 16) for start in range(0, 16 * 64, 16))
        self.forget()

    def forget(self) -> None:
        self._left: Iterator[str] = iter(())

    def draw(self) -> str:
        # One step of the interpreter takes one part: no two threads get the same. Where both begin a new block, one of
        # them is drawn in vain.
        while not (digits := next(self._left, "")):
            self._left = map(os.urandom(8 * len(self._parts)).hex().__getitem__, self._parts)
        return digits


_digits = _Digits()
random_hex = _digits.draw
"""Return 16 hexadecimal digits: unique, and without a trace of how many were drawn before."""
if hasattr(os, "register_at_fork"):
    # Or a forked process would draw the same values as its parent.
    os.register_at_fork(after_in_child=_digits.forget)


def _is_plain(value: object) -> TypeGuard[str]:
    """True for nearly every valid id: printable ASCII that neither begins nor ends with a space."""
    return (
        type(value) is str
        and value.isascii()
        and value.isprintable()
        and value.strip() == value
        and 0 < len(value) <= MAX_ID_LENGTH
    )


def _problem(value: object) -> str:
    # A subclass of str may redefine len, strip or equality: look at its characters through str itself. Not isinstance:
    # it believes an object's own `__class__`.
    if not issubclass(type(value), str):
        return f"is {a_type(value)}; pass a str"
    text = str.__str__(value)
    if not text:
        return "is empty; pass at least one character"
    if len(text) > MAX_ID_LENGTH:
        return f"has {len(text)} characters; at most {MAX_ID_LENGTH} are allowed"
    if text[0].isspace() or text[-1].isspace():
        return "begins or ends with white space; strip it where the id is made"
    if not (text.isascii() and text.isprintable()) and (found := _FORBIDDEN.search(text)):
        return f"holds {found.group()!r} at position {found.start()}; control characters are not allowed"
    return ""
