"""Shows two values that differ as their difference, line by line; runs nothing."""

from __future__ import annotations

import ast
import difflib
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

__all__ = ["Line", "difference", "witness_lines"]

Line = tuple[str, str]
"""A mark and a text: "-" of the first value, "+" of the second, " " of both, "" for a line outside of the
difference."""

_PAIRS: Final = (
    *(("before", "after"), ("alone", "beside"), ("expected", "got"), ("expected", "found"), ("wrote", "read")),
    *(("emitted", "received"), ("emitted first", "received first"), ("to be closed", "cleanups")),
)
_LABELLED: Final = re.compile(r"([a-z][a-z ]{0,50}?): +(?=\S)")
_PLACED: Final = re.compile(r"(.{1,100}?: )(expected|got) (?=\S)")
_LONGEST: Final = 20_000
_MOST_LINES: Final = 60
_AROUND: Final = 1
_WIDTH: Final = 76
_BESIDE: Final = 30
_SHORT: Final = 300
_PART: Final = re.compile(r"[\s,:(){}\[\]]|[^\s,:(){}\[\]]+")
_MOST_PARTS: Final = 2_000
_PARTS_BESIDE: Final = 6
_MOST_PLACES: Final = 10


def witness_lines(witness: Sequence[str]) -> list[Line]:
    """The lines of a witness. Where two entries are the two sides of a comparison, their difference stands in their
    place, below a line that names both."""
    lines: list[Line] = []
    place = 0
    while place < len(witness):
        pair = _pair(witness[place], witness[place + 1]) if place + 1 < len(witness) else None
        if pair is None:
            lines += [("", line) for line in witness[place].splitlines() or [""]]
            place += 1
            continue
        (label, first), (other, second) = pair
        lines += [("", f"{label} (-) and {other} (+):"), *difference(first, second)]
        place += 2
    return lines


def difference(first: str, second: str) -> list[Line]:
    """The lines of two texts that differ, each with a line beside it. Texts that read as Python values or as JSON are
    laid out first; of others only the part that differs is shown. Equal texts give that text."""
    if first == second:
        return [(" ", first)]
    values = [_read(text) for text in (first, second)]
    if all(value is not None for value in values):
        laid_out = [list(_laid_out(value)) for value in values]
        lines = list(_unlike(*laid_out))
        # Equal when laid out: they differ in their spelling alone.
        if any(mark != " " for mark, _ in lines):
            return lines[:_MOST_LINES] + (
                [("", f"... {len(lines) - _MOST_LINES} more lines")] if len(lines) > _MOST_LINES else []
            )
    return list(_middle(first, second))


def _pair(one: str, other: str) -> tuple[tuple[str, str], tuple[str, str]] | None:
    placed = _PLACED.match(one), _PLACED.match(other)
    if placed[0] and placed[1] and placed[0][1] == placed[1][1] and (placed[0][2], placed[1][2]) == ("expected", "got"):
        place = placed[0][1]
        return (f"{place}expected", one[placed[0].end() :]), ("got", other[placed[1].end() :])
    left, right = _LABELLED.match(one), _LABELLED.match(other)
    if left is None or right is None or "\n" in one + other:
        return None
    if not any(left[1].startswith(first) and right[1].startswith(second) for first, second in _PAIRS):
        return None
    return (left[1], one[left.end() :]), (right[1], other[right.end() :])


def _read(text: str) -> Any:
    """The value that a text stands for, if the value has parts; else None."""
    if len(text) > _LONGEST or text[:1] not in "[{(":
        return None
    for read in (ast.literal_eval, json.loads):
        try:
            value = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        return value if isinstance(value, list | dict | tuple | set) else None
    return None


def _laid_out(value: Any, before: str = "", after: str = "") -> Iterator[str]:
    """The lines of a value: an item a line where it is too wide for one, so that a change is seen at the item alone."""
    whole = repr(value)
    is_short = len(before) + len(whole) + len(after) <= _WIDTH
    # A value that is nested beyond the width of the page stays in one line.
    if is_short or not value or not isinstance(value, list | dict | tuple | set) or len(before) >= _WIDTH:
        yield f"{before}{whole}{after}"
        return
    inner = f"{' ' * (len(before) - len(before.lstrip()))}  "
    opens, closes = ("(", ")") if isinstance(value, tuple) else ("[", "]") if isinstance(value, list) else ("{", "}")
    yield before + opens
    if isinstance(value, dict):
        for key, item in sorted(value.items(), key=lambda entry: repr(entry[0])):
            yield from _laid_out(item, f"{inner}{key!r}: ", ",")
    else:
        for item in sorted(value, key=repr) if isinstance(value, set) else value:
            yield from _laid_out(item, inner, ",")
    yield f"{inner[2:]}{closes}{after}"


def _unlike(first: Sequence[str], second: Sequence[str]) -> Iterator[Line]:
    matcher = difflib.SequenceMatcher(None, first, second, autojunk=False)
    ended = 0
    for group in matcher.get_grouped_opcodes(_AROUND):
        if group[0][1] > ended:
            yield " ", "..."
        for tag, start, stop, other_start, other_stop in group:
            if tag == "equal":
                yield from ((" ", line) for line in first[start:stop])
            else:
                yield from (("-", line) for line in first[start:stop])
                yield from (("+", line) for line in second[other_start:other_stop])
            ended = stop
    if ended < len(first):
        yield " ", "..."


def _middle(first: str, second: str) -> Iterator[Line]:
    """Both texts without their common parts; of long ones, a pair of lines for each place where they differ."""
    parts = [_PART.findall(text) for text in (first, second)]
    if max(map(len, (first, second))) <= _SHORT or max(map(len, parts)) > _MOST_PARTS:
        yield from _one_place(first, second)
        return
    mine, theirs = parts
    groups = list(difflib.SequenceMatcher(None, mine, theirs, autojunk=False).get_grouped_opcodes(_PARTS_BESIDE))
    for group in groups[:_MOST_PLACES]:
        (_, start, _, other_start, _), (_, _, stop, _, other_stop) = group[0], group[-1]
        yield "-", _piece(mine, start, stop)
        yield "+", _piece(theirs, other_start, other_stop)
    if len(groups) > _MOST_PLACES:
        yield "", f"... {len(groups) - _MOST_PLACES} more places"


def _piece(parts: Sequence[str], start: int, stop: int) -> str:
    return f"{'...' if start else ''}{''.join(parts[start:stop])}{'...' if stop < len(parts) else ''}"


def _one_place(first: str, second: str) -> Iterator[Line]:
    least = min(len(first), len(second))
    head = next((place for place in range(least) if first[place] != second[place]), least)
    tail = next((n for n in range(least - head) if first[-1 - n] != second[-1 - n]), least - head)
    begin, end = max(head - _BESIDE, 0), max(tail - _BESIDE, 0)
    for mark, text in (("-", first), ("+", second)):
        yield mark, f"{'...' if begin else ''}{text[begin : len(text) - end]}{'...' if end else ''}"
