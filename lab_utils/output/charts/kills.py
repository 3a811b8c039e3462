"""The figure of planted defects against checks: who is caught by whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lab_utils.output.charts.drawing import COLOURS, GREY, WIDTH, Chart, NoChart, sheet, styled

__all__ = ["kill_matrix"]

_PASSED, _NAMED, _OTHER, _UNKNOWN = 1, 2, 3, 4
_LEGEND: Final = {
    _NAMED: ("caught under its own name", COLOURS[0]),
    _OTHER: ("found, under another name", "#f0c48f"),
    _UNKNOWN: ("unknown", "#8d949e"),
    _PASSED: ("run, nothing found", "#e9edf2"),
}
_MISSED: Final = COLOURS[1]
_CROSS: Any = {"marker": "x", "markersize": 7, "markeredgewidth": 2}
# In pixels, from the top: what stands above the panels, a line of text, a row of cells, the gap between panels.
_HEAD, _LINE, _ROW, _GAP, _NAMES, _EDGE = 88, 14, 13, 22, 168, 6


@styled
def kill_matrix(calibrations: pd.DataFrame) -> Chart | NoChart:
    """Planted registries by check, a panel a category; a cross marks a check that missed what was planted for it.

    Columns have a check's number, and the numbers their names above. Blank is not run. A frame `calibrations`, with a
    column `own` where checks also ran on what was not planted for them: then each panel has a column for each check.
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

    across = 1 if wide else 2
    rows = [panels[place : place + across] for place in range(0, len(panels), across)]
    key = -(-len(checks) // 2) * _LINE + _GAP if wide else 0
    height = _HEAD + key + sum(max(panel.height for panel in row) + _GAP for row in rows)
    drawn = sheet(height)
    by_name = own.groupby("planted")["caught"].all()
    claim = f"{int(by_name.sum())} of {len(by_name)} planted registries are caught by every check they were planted for"
    _say(drawn, 8, 16, claim, fontsize=11.5, fontweight="bold")
    _say(drawn, 8, 36, f"{len(checks)} checks, {len(calibrations):,} runs", fontsize=8.5, color=GREY)
    if wide:
        for place, check in enumerate(checks):
            column, line = divmod(place, -(-len(checks) // 2))
            _say(drawn, 8 + column * WIDTH / 2, _HEAD + line * _LINE, f"{numbers[check]}  {check}", fontsize=8)
    top = float(_HEAD + key)
    for row in rows:
        for place, panel in enumerate(row):
            panel.draw(drawn, place * WIDTH / across, top, WIDTH / across)
        top += max(panel.height for panel in row) + _GAP
    kinds = [kind for kind in _LEGEND if any((panel.cells == kind).any() for panel in panels)]
    shown: list[Artist] = [Patch(color=_LEGEND[kind][1], label=_LEGEND[kind][0]) for kind in kinds]
    if not by_name.all():
        shown.append(Line2D([], [], color=_MISSED, linestyle="", **_CROSS, label="missed what was planted for it"))
    spaced: Any = {"ncols": len(shown), "fontsize": 8, "handlelength": 1.4, "columnspacing": 1.2}
    drawn.legend(handles=shown, loc="center left", bbox_to_anchor=(0, 1 - 58 / height), **spaced)
    names = ", ".join(sorted(by_name.index[~by_name]))
    return Chart(drawn, f"{title}: {claim}." + (f" Missed: {names}." if names else ""))


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
        # Each defect beside those of the same check, so that what was planted for a check stands in one block.
        first = here.assign(number=here["check"].map(dict(numbers))).groupby("planted")["number"].min()
        self.defects = sorted(first.index, key=lambda name: (first[name], name))
        self.cells = np.zeros((len(self.defects), len(self.checks)))
        self._missed: list[tuple[int, int]] = []
        row = {defect: place for place, defect in enumerate(self.defects)}
        column = {check: place for place, check in enumerate(self.checks)}
        wanted = calibrations["planted"].isin(row) & calibrations["check"].isin(column)
        for one in calibrations[wanted].to_dict("records"):
            spot = row[one["planted"]], column[one["check"]]
            self.cells[spot] = _kind(one["verdict"], bool(one["caught"]))
            if one["own"] and not one["caught"]:
                self._missed.append(spot)
        # Of each check: the number planted for it, and the number of those caught.
        self._counts = {
            str(check): (int(caught.sum()), len(caught)) for check, caught in here.groupby("check")["caught"]
        }

    @property
    def height(self) -> float:
        """In pixels, with all that stands above the cells."""
        return (2 + (0 if self._wide else len(self.checks))) * _LINE + _ROW * len(self.defects)

    def draw(self, drawn: Figure, left: float, top: float, width: float) -> None:
        """Draw the panel with its upper left corner there, in pixels of the figure."""
        _say(drawn, left + 8, top, self._category, fontsize=9.5, fontweight="bold")
        for line, check in enumerate([] if self._wide else self.checks, 1):
            caught, size = self._counts[check]
            words = f"{self._numbers[check]}  {check}  {caught}/{size}"
            _say(drawn, left + 8, top + line * _LINE, words, fontsize=7.5, color=_MISSED if caught < size else GREY)
        total, above = drawn.get_size_inches()[1] * drawn.dpi, self.height - _ROW * len(self.defects)
        axes = drawn.add_axes((
            (left + _NAMES) / WIDTH,
            1 - (top + self.height) / total,
            (width - _NAMES - _EDGE - 10) / WIDTH,
            (self.height - above) / total,
        ))  # fmt: skip
        self._fill(axes)

    def _fill(self, axes: Axes) -> None:
        colours = ListedColormap(["white", *(_LEGEND[kind][1] for kind in (_PASSED, _NAMED, _OTHER, _UNKNOWN))])
        axes.imshow(self.cells, aspect="auto", cmap=colours, norm=BoundaryNorm(np.arange(-0.5, 5.5), colours.N))
        axes.grid(visible=False)
        # Not by minor ticks: each is an artist with a text of its own, and there are hundreds.
        across, down = np.arange(len(self.checks) + 1) - 0.5, np.arange(len(self.defects) + 1) - 0.5
        axes.vlines(across, down[0], down[-1], color="#e5e7eb", linewidth=0.7)
        axes.hlines(down, across[0], across[-1], color="#e5e7eb", linewidth=0.7)
        axes.tick_params(which="both", length=0, pad=3)
        for y, x in self._missed:
            axes.plot(x, y, color=_MISSED, **_CROSS)
        axes.set_xticks(range(len(self.checks)), [str(self._numbers[check]) for check in self.checks], fontsize=8)
        axes.xaxis.tick_top()
        axes.set_yticks(range(len(self.defects)), self.defects, fontsize=7.5)


def _say(drawn: Figure, left: float, top: float, words: str, **style: Any) -> None:
    """Write a line, its middle so many pixels from the top."""
    across, down = drawn.get_size_inches() * drawn.dpi
    drawn.text(left / across, 1 - top / down, words, ha="left", va="center", **style)


def _kind(verdict: str, caught: bool) -> int:
    if verdict == "FAIL":
        return _NAMED if caught else _OTHER
    return _UNKNOWN if verdict == "UNKNOWN" else _PASSED
