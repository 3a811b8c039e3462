"""Makes text that strangers wrote fit to be shown: escapes it, cuts it, takes this machine's folders out of it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, Final

__all__ = ["cut", "plain_output", "reported", "reported_lines", "shown", "shown_lines", "without_folders", "worded"]

_MOST: Final = 1_000
_MOST_LINES: Final = 20_000
_MARK: Final = 48
"""Characters of the remark in place of the cut, at most."""
_UNPRINTABLE: Final = re.compile(r"[^\x20-\x7e]")
_NOT_OUTPUT: Final = re.compile(r"[^\n\t\x20-\x7e\xa0]")
_SIGNS: Final = "±×²µ…→−≤≥∞"
"""Signs beside ASCII that the lab itself writes, and that resemble no letter of an id."""
# Possessive, so that an unterminated sequence costs no second look.
_TERMINAL: Final = re.compile(
    r"\x1b(?:\[[0-?]*+[ -/]*+[@-~]|\][^\x07\x1b]*+(?:\x07|\x1b\\)?|[PX^_][^\x1b]*+(?:\x1b\\)?|[ -/]++[0-~]|[0-~])"
)
_BELOW_HOME: Final = re.compile(r"(?<![\w.~/-])~/(?:[^\s/'\"<>|:;,()]+/)+")
_FILE: Final = re.compile(r"(?<![\w.~$/:-])((?:/[^\s/'\"<>|:;,()]+)+)(/[^\s/'\"<>|:;,()]*)")


def cut(text: str, most: int) -> str:
    """Return the text. Of a longer one, return its head and its tail with the count of the characters between them:
    `most` characters at most in all."""
    if len(text) <= most:
        return text
    tail = (most - _MARK) // 4
    head = most - _MARK - tail
    return f"{text[:head]}... {len(text) - head - tail:,} characters ...{text[len(text) - tail :]}"


def shown(text: object, most: int = _MOST, *, only_ascii: bool = False) -> str:
    """Return the text as one line of at most `most` characters, each unprintable one as its escape.

    Nothing in it moves the cursor, sets a title, breaks a line or turns the reading order. `only_ascii`: letters beyond
    ASCII are escaped too, so that no two ids look alike. A line that was shown already stays as it is.
    """
    return _escaped(worded(str, text), most, only_ascii)


def shown_lines(text: object, most: int = _MOST_LINES, *, longest: int = _MOST) -> str:
    """Return the text with each of its lines as `shown`, of at most `longest` characters, and `most` in all."""
    whole = worded(str, text)
    # Cut first: a text of many megabytes costs no more than its ends.
    lines = [_escaped(line, longest, False) for line in cut(whole, most).split("\n")]
    return cut("\n".join(lines), most)


def reported(text: object, most: int = _MOST, *, only_ascii: bool = False) -> str:
    """Return the text as `shown`, and `without_folders`."""
    near = _near(text)
    line = shown(near, most, only_ascii=only_ascii)
    # The folders of one that is shown as it is have been removed already.
    return line if line is near and len(line) <= _MOST_LINES else without_folders(line)


def reported_lines(text: object, most: int = _MOST_LINES) -> str:
    """Return the text as by `shown_lines`, and `without_folders`."""
    return without_folders(shown_lines(_near(text), most))


def _near(text: object) -> str:
    # Before non-ASCII characters are escaped. In a text of megabytes, folders are searched in the kept part alone.
    whole = worded(str, text)
    return without_folders(whole) if len(whole) <= _MOST_LINES else whole


def _escaped(text: str, most: int, only_ascii: bool) -> str:
    if len(text) <= most:
        if text.isprintable() and (text.isascii() or not only_ascii):
            return text
        escaped = _escapes(text, only_ascii)
        if len(escaped) <= most:
            return escaped
    tail = (most - _MARK) // 4
    head = most - _MARK - tail
    first, left = _fitting(text[:head], head, only_ascii)
    last, right = _fitting(text[: -tail - 1 : -1], tail, only_ascii)
    return f"{''.join(first)}... {len(text) - left - right:,} characters ...{''.join(reversed(last))}"


def _fitting(text: Iterable[str], room: int, only_ascii: bool) -> tuple[list[str], int]:
    """The escapes of the first characters, as many as there is room for, and the number of those characters."""
    found: list[str] = []
    for one in text:
        escape = _escapes(one, only_ascii)
        room -= len(escape)
        if room < 0:
            break
        found.append(escape)
    return found, len(found)


def _escapes(text: str, only_ascii: bool) -> str:
    return _UNPRINTABLE.sub(_escape_beyond if only_ascii else _escape, text)


def _escape(found: re.Match[str]) -> str:
    return found[0] if found[0].isprintable() else found[0].encode("unicode_escape").decode("ascii")


def _escape_beyond(found: re.Match[str]) -> str:
    return found[0] if found[0] in _SIGNS else found[0].encode("unicode_escape").decode("ascii")


def plain_output(text: str) -> str:
    """Return a program's output without colours, titles and other terminal sequences. Other unprintable characters are
    escaped, and each line ends with a newline alone."""
    if "\x1b" in text:
        text = _TERMINAL.sub("", text)
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _NOT_OUTPUT.sub(_escape, text)


def worded(wording: Callable[[Any], str], value: Any) -> str:
    """Return the `str` or `repr` of a value; a stranger's may raise, or return a subclass of `str`."""
    try:
        return str.__str__(wording(value))
    except Exception as error:
        return f"<{type(value).__name__} whose {wording.__name__} raises {type(error).__name__}>"


def without_folders(text: str) -> str:
    """Return the text with no folder of this machine or its user in it: a report is given to others.

    A file of the project or of a package is named as its import would find it, any other by its name alone: folders may
    be called after customers.
    """
    if "/" not in text and "\\" not in text:
        return text
    # By `os`, for `Path` takes as long as the rest, and a run's findings have ten thousand such texts.
    for folder, instead in _known_folders(os.getcwd(), os.path.expanduser("~"), tuple(sys.path)):  # noqa: PTH109, PTH111
        text = text.replace(folder, instead)
    return _FILE.sub(_named, _BELOW_HOME.sub("~/.../", text)) if os.sep == "/" else text


def _named(found: re.Match[str]) -> str:
    # An address such as /v1/chat/completions begins with no folder of this machine.
    top = found[1].split("/", 2)[1]
    return f".../{found[2][1:]}" if top in _roots() else found[0]


@cache
def _known_folders(cwd: str, home: str, path: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Folders that are not named, the longest first, each with its substitute."""
    project = Path(__file__).resolve().parents[2]
    stdlib = Path(os.__file__).resolve().parent
    folders = [Path(cwd), project, stdlib / "site-packages", stdlib]
    folders += [Path(entry) for entry in path if Path(entry).is_absolute()]
    known = {f"{folder}{os.sep}": "" for folder in folders if len(folder.parts) > 1}
    if len(Path(home).parts) > 1:
        known.setdefault(f"{home}{os.sep}", f"~{os.sep}")
    return tuple(sorted(known.items(), key=lambda one: -len(one[0])))


@cache
def _roots() -> frozenset[str]:
    """The folders at the top of this machine's file system."""
    try:
        return frozenset(entry.name for entry in Path("/").iterdir())
    except OSError:
        return frozenset()
