"""The figure of a grid of runs: verdicts, or one measurement, over two parameters."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from lab_utils.output.charts.chart import Chart, Key, NoChart, Part, Table
from lab_utils.output.charts.drawing import BACKGROUND, BAD, COLOURS, GOOD, INK, Drawing
from lab_utils.output.charts.text import fitted, width
from lab_utils.values.grid import Axis, Point, spelled
from lab_utils.values.quantities import quantity

__all__ = ["Layout", "layout", "measurement_map", "verdict_map"]

_ROW: Final = 30.0
_MOST_COLUMNS: Final = 40
_MOST_ROWS: Final = 40
_STEPS: Final = (0.1, 0.24, 0.4, 0.56, 0.72)

_WORST: Final = {
    "FAIL": Key("FAIL", BAD, opacity=0.75),
    "LAB FAILED": Key("the lab failed", COLOURS[3], opacity=0.75),
    "UNKNOWN": Key("UNKNOWN", COLOURS[4], opacity=0.75),
    "NOT CAUGHT": Key("a planted registry was not caught", COLOURS[5], opacity=0.75),
    "NOT RUN": Key("not run yet", INK, opacity=0.1),
    "NOT APPLICABLE": Key("does not apply", INK, opacity=0.25),
    "PASS": Key("PASS", GOOD, opacity=0.55),
}
"""From the worst on: what a cell of several runs shows."""
_LETTERS: Final = {
    "FAIL": "F", "LAB FAILED": "L", "UNKNOWN": "?", "NOT CAUGHT": "N", "NOT RUN": "", "NOT APPLICABLE": "–",
    "PASS": "P",
}  # fmt: skip
"""Beside its colour each cell has a letter."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Which axis goes across and which down; the rest, `merged`, share a cell."""

    across: Axis | None
    down: Axis | None
    merged: tuple[str, ...]

    def cell(self, point: Point) -> tuple[int, int]:
        """The row and the column of a point."""
        return _at(self.down, point), _at(self.across, point)

    @property
    def columns(self) -> list[str]:
        return _spelled(self.across)

    @property
    def rows(self) -> list[str]:
        return _spelled(self.down)

    @property
    def words(self) -> str:
        """The axes in words."""
        named = [axis.name for axis in (self.down, self.across) if axis]
        return " × ".join(named) or "all runs"


def layout(axes: Sequence[Axis], repeats: int) -> Layout:
    """The axis with most values goes across, the next one down."""
    wide = sorted((axis for axis in axes if len(axis.values) > 1), key=lambda axis: -len(axis.values))
    merged = [axis.name for axis in wide[2:]] + ["repeats"] * (repeats > 1)
    return Layout(wide[0] if wide else None, wide[1] if len(wide) > 1 else None, tuple(merged))


def verdict_map(title: str, cells: Sequence[tuple[Point, str]], place: Layout) -> Chart | NoChart:
    """The verdict of each point; of several that share a cell the worst one."""
    if not cells:
        return NoChart(title, "No run was planned.")
    by_cell = _grouped(cells, place)
    order = list(_WORST)
    worst = {cell: min(words, key=order.index) for cell, words in by_cell.items()}
    counts = {word: sum(one == word for one in (word for _, word in cells)) for word in order}
    said = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    remarks = [f"of {' and '.join(place.merged)} the worst"] * bool(place.merged) + _left_out(place)
    drawing = _drawn(place, worst, lambda word: (_WORST[word].colour, _WORST[word].opacity), _LETTERS.__getitem__)
    keys = [Key(f"{_LETTERS[word]} {key.words}".strip(), key.colour, opacity=key.opacity)
            for word, key in _WORST.items() if word in worst.values()]  # fmt: skip
    table = _table(place, worst, str)
    return Chart(f"{title}: {said}", f"{title} over {place.words}: {said}.", [Part(drawing)],
                 remark="; ".join(remarks), keys=keys, table=table)  # fmt: skip


def measurement_map(
    title: str, values: Sequence[tuple[Point, float]], unit: str, place: Layout, limit: float | None = None
) -> Chart | NoChart:
    """One measurement at each point, the darker the larger; of several that share a cell the median.

    A cell beyond `limit` is marked.
    """
    known = [(point, value) for point, value in values if math.isfinite(value)]
    if not known:
        return NoChart(title, "No run measured it.")
    medians = {cell: statistics.median(group) for cell, group in _grouped(known, place).items()}
    least, most = min(medians.values()), max(medians.values())
    is_log = least > 0 and most > 20 * least

    # What varies by less than half is to look so.
    reach = max(most - least, 0.5 * max(abs(most), abs(least))) or 1.0

    def shade(value: float) -> float:
        share = math.log(value / least) / math.log(most / least) if is_log else (value - least) / reach
        return _STEPS[min(int(share * len(_STEPS)), len(_STEPS) - 1)]

    broken = {cell for cell, value in medians.items() if limit is not None and value > limit}
    drawing = _drawn(place, medians, lambda value: (COLOURS[0], shade(value)), lambda value: quantity(value, unit))
    for row, column in sorted(broken):
        drawing.cross(((column + 0.5) / len(place.columns), (row + 0.2) * _ROW), 3, BAD, "beyond the budget")
    said = f"{quantity(least, unit)} to {quantity(most, unit)}"
    keys = [Key(quantity(value, unit), COLOURS[0], opacity=shade(value)) for value in dict.fromkeys((least, most))]
    remarks = ["logarithmic shades"] * is_log + [f"of {' and '.join(place.merged)} the median"] * bool(place.merged)
    remarks += _left_out(place)
    remarks += [f"{len(broken)} beyond the budget of {quantity(limit or 0.0, unit)}"] * bool(broken)
    table = _table(place, medians, lambda value: quantity(value, unit))
    return Chart(f"{title}: {said}", f"{title} over {place.words}: {said}.", [Part(drawing)],
                 remark="; ".join(remarks), keys=keys, table=table)  # fmt: skip


T = TypeVar("T")
_Cell = tuple[int, int]


def _drawn(
    place: Layout, cells: Mapping[_Cell, T], looks: Callable[[T], tuple[str, float]], words: Callable[[T], str]
) -> Drawing:
    columns, rows = place.columns[:_MOST_COLUMNS], place.rows[:_MOST_ROWS]
    drawing = Drawing(_ROW * len(rows), right=4)
    drawing.rows([f"{place.down.name} {row}" if place.down else "" for row in rows], _ROW)
    by_look: dict[tuple[str, float], list[_Cell]] = {}
    room = drawing.room / len(columns)
    for (row, column), value in sorted(cells.items()):
        if row < len(rows) and column < len(columns):
            by_look.setdefault(looks(value), []).append((row, column))
    for (colour, opacity), group in by_look.items():
        boxes = (((x / len(columns), y * _ROW + 1), ((x + 1) / len(columns), (y + 1) * _ROW - 1)) for y, x in group)
        drawing.boxes(boxes, colour, opacity)
    edges = [x / len(columns) for x in range(1, len(columns))]
    drawing.lines((((x, 0), (x, drawing.height)) for x in edges), BACKGROUND, 2)
    for (row, column), value in sorted(cells.items()):
        if row < len(rows) and column < len(columns):
            spot = (column + 0.5) / len(columns), row * _ROW + 19
            full = " ".join(filter(None, [_named(place.down, row), _named(place.across, column)]))
            shown = words(value) if width(words(value), 11) <= room else ""
            drawing.text(spot, shown, anchor="middle", size=11, full=f"{full}: {words(value)}")
    _columns(drawing, place, columns, room)
    return drawing


def _left_out(place: Layout) -> list[str]:
    """A remark on what has no room in the drawing."""
    is_all = len(place.columns) <= _MOST_COLUMNS and len(place.rows) <= _MOST_ROWS
    return [] if is_all else [f"the first {_MOST_COLUMNS} values are drawn, the table has all"]


def _columns(drawing: Drawing, place: Layout, columns: Sequence[str], room: float) -> None:
    """The values of the axis below their columns, as many as have room."""
    if place.across is None:
        return
    each = max(1, math.ceil((max(width(word, 11) for word in columns) + 8) / room))
    for number in range(0, len(columns), each):
        spot = (number + 0.5) / len(columns), drawing.height + 15
        drawing.text(spot, fitted(columns[number], room * each, 11), anchor="middle", size=11, soft=True)
    drawing.text((1.0, drawing.height + 31), place.across.name, anchor="end", size=11, soft=True)
    drawing.below(36)


def _table(place: Layout, cells: Mapping[_Cell, T], words: Callable[[T], str]) -> Table:
    down = place.down.name if place.down else ""
    head = [f"{down} \\ {place.across.name}" if place.across and down else down, *place.columns]
    rows = [
        (row, *(words(cells[y, x]) if (y, x) in cells else "" for x in range(len(place.columns))))
        for y, row in enumerate(place.rows)
    ]
    return Table(head, rows, numbers=tuple(range(1, len(head))))


def _grouped(cells: Sequence[tuple[Point, T]], place: Layout) -> dict[_Cell, list[T]]:
    found: dict[_Cell, list[T]] = {}
    for point, value in cells:
        found.setdefault(place.cell(point), []).append(value)
    return found


def _at(axis: Axis | None, point: Point) -> int:
    return axis.values.index(point.values[axis.name]) if axis else 0


def _spelled(axis: Axis | None) -> list[str]:
    return [spelled(value) for value in axis.values] if axis else ["all"]


def _named(axis: Axis | None, place: int) -> str:
    return f"{axis.name}={spelled(axis.values[place])}" if axis else ""
