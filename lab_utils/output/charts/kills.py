"""The figure of planted defects against checks: which check catches which."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Final

import numpy as np
import pandas as pd

from lab_utils.output.charts.chart import Chart, Key, NoChart, Part
from lab_utils.output.charts.drawing import BACKGROUND, BAD, COLOURS, INK, Drawing

__all__ = ["kill_matrix"]

_PASSED, _NAMED, _OTHER, _UNKNOWN = 1, 2, 3, 4
_LEGEND: Final = {
    _NAMED: Key("caught under its own name", COLOURS[0], opacity=0.9),
    _OTHER: Key("found, under another name", COLOURS[4], opacity=0.6),
    _UNKNOWN: Key("unknown", INK, opacity=0.45),
    _PASSED: Key("run, nothing found", INK, opacity=0.13),
}
_ROW: Final = 13.0
_NAMES: Final = 150


def kill_matrix(calibrations: pd.DataFrame) -> Chart | NoChart:
    """Planted registries by check, a panel a category; a cross marks a check that missed a defect planted for it.

    Columns have a check's number, and the numbers their names above. Blank is not run. A frame `calibrations`, with a
    column `own` where checks also ran on defects that were not planted for them: then each panel has a column for each
    check.
    """
    title = "Planted defects by check"
    if calibrations.empty:
        return NoChart(title, "No check ran on a planted registry.")
    checks = list(dict.fromkeys(calibrations["check"]))
    numbers = {check: number for number, check in enumerate(checks, 1)}
    if "own" not in calibrations:
        calibrations = calibrations.assign(own=True)
    own = calibrations[calibrations["own"]]
    if own.empty:
        return NoChart(title, "No check ran on a registry that was planted for it.")
    calibrations = calibrations[calibrations["planted"].isin(own["planted"])]
    wide = not calibrations["own"].all()
    panels = [_Panel(name, calibrations, own, numbers, wide) for name in dict.fromkeys(own["category"])]
    panels = [panel for panel in panels if panel.defects]

    by_name = own.groupby("planted")["caught"].all()
    claim = f"{int(by_name.sum())} of {len(by_name)} planted registries are caught by every check they were planted for"
    remark = f"{len(checks)} checks, {len(calibrations):,} runs"
    if wide:
        remark += f": {', '.join(f'{number} {check}' for check, number in numbers.items())}"
    keys = [key for kind, key in _LEGEND.items() if any((panel.cells == kind).any() for panel in panels)]
    if not by_name.all():
        keys.append(Key("× missed a defect planted for it", BAD))
    names = ", ".join(sorted(by_name.index[~by_name]))
    words = f"{title}: {claim}." + (f" Missed: {names}." if names else "")
    return Chart(claim, words, [panel.part() for panel in panels], remark=remark, keys=keys)


class _Panel:
    """The defects that were planted for the checks of one category, by those checks (`wide`: by all checks)."""

    def __init__(
        self, category: str, calibrations: pd.DataFrame, own: pd.DataFrame, numbers: Mapping[str, int], wide: bool
    ) -> None:
        self._category, self._numbers, self._wide = category, numbers, wide
        here = own[own["category"] == category]
        self.checks: Sequence[str] = list(numbers) if wide else list(dict.fromkeys(here["check"]))
        # Where the columns are all checks, a row has all that is to be said of a defect, and stands once.
        elsewhere = own.drop_duplicates("planted")
        here = here[here["planted"].isin(elsewhere.loc[elsewhere["category"] == category, "planted"])] if wide else here
        # Each defect beside those of the same check, so that the defects planted for a check stand in one block.
        first = here.assign(number=here["check"].map(dict(numbers))).groupby("planted")["number"].min()
        self.defects = sorted(first.index, key=lambda name: (first[name], name))
        self.cells = np.zeros((len(self.defects), len(self.checks)), dtype=int)
        self._missed: list[tuple[int, int]] = []
        row = {defect: place for place, defect in enumerate(self.defects)}
        column = {check: place for place, check in enumerate(self.checks)}
        wanted = calibrations["planted"].isin(row) & calibrations["check"].isin(column)
        for one in calibrations[wanted].to_dict("records"):
            spot = row[one["planted"]], column[one["check"]]
            self.cells[spot] = _kind(one["verdict"], bool(one["caught"]))
            if one["own"] and not one["caught"]:
                self._missed.append(spot)
        # For each check: the number planted for it, and the number of those caught.
        self._counts = {
            str(check): (int(caught.sum()), len(caught)) for check, caught in here.groupby("check")["caught"]
        }

    def part(self) -> Part:
        """The panel, headed by its category and, where it has columns of its own, by the names of its checks."""
        across, down = len(self.checks), len(self.defects)
        drawing = Drawing(_ROW * down, top=16, right=4)
        drawing.rows(self.defects, _ROW, most=_NAMES, size=10.5)
        for kind, key in _LEGEND.items():
            boxes = (
                ((left / across, y * _ROW + 1), (right / across, (y + 1) * _ROW))
                for y, row in enumerate(self.cells)
                for left, right in _runs(row, kind)
            )
            drawing.boxes(boxes, key.colour, key.opacity)
        drawing.lines((((0, y * _ROW + 0.5), (1, y * _ROW + 0.5)) for y in range(down + 1)), INK, opacity=0.15)
        columns = [x / across for x in range(1, across)]
        drawing.lines((((x, 0), (x, drawing.height)) for x in columns), BACKGROUND, 1.5)
        for y, x in self._missed:
            words = f"{self.checks[x]} missed {self.defects[y]}"
            drawing.cross(((x + 0.5) / across, (y + 0.5) * _ROW), 4, BAD, words)
        for x, check in enumerate(self.checks):
            middle = ((x + 0.5) / across, -4.0)
            drawing.text(middle, str(self._numbers[check]), anchor="middle", size=10.5, soft=True, full=check)
        lines = [self._category, *([] if self._wide else map(self._named, self.checks))]
        return Part(drawing, "\n".join(lines), wide=760 if self._wide else 350)

    def _named(self, check: str) -> str:
        caught, size = self._counts[check]
        return f"{self._numbers[check]}  {check}  {caught}/{size}{'' if caught == size else ' MISSED'}"


def _runs(row: np.ndarray, kind: int) -> Iterator[tuple[int, int]]:
    """Where cells of that kind stand, each stretch of neighbours once."""
    for is_kind, stretch in groupby(enumerate(row.tolist()), key=lambda cell: cell[1] == kind):
        if is_kind:
            places = [place for place, _ in stretch]
            yield places[0], places[-1] + 1


def _kind(verdict: str, caught: bool) -> int:
    if verdict == "FAIL":
        return _NAMED if caught else _OTHER
    return _UNKNOWN if verdict == "UNKNOWN" else _PASSED
