"""The figure of planted defects against checks: who is caught by whom."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.patches import Patch

from lab_utils.charts.drawing import COLOURS, Chart, NoChart, figure, styled, titled

__all__ = ["kill_matrix"]

_PASSED, _NAMED, _OTHER, _UNKNOWN = 1, 2, 3, 4
_LEGEND: Final = {
    _NAMED: ("caught under its own name", COLOURS[0]),
    _OTHER: ("found, under another name", "#f0c48f"),
    _UNKNOWN: ("unknown", "#8d949e"),
    _PASSED: ("run, nothing found", "#e9edf2"),
}
_MISSED: Final = COLOURS[1]


@styled
def kill_matrix(calibrations: pd.DataFrame) -> Chart | NoChart:
    """Planted registries by check; a cross marks a check that missed what was planted for it, blank is not run.

    A frame `calibrations`, with a column `own` where checks also ran on what was not planted for them.
    """
    title = "Planted defects by check"
    if calibrations.empty:
        return NoChart(title, "No check ran on a planted registry.")
    checks = list(dict.fromkeys(calibrations["check"]))
    place = {check: number for number, check in enumerate(checks)}
    if "own" not in calibrations:
        calibrations = calibrations.assign(own=True)
    own = calibrations[calibrations["own"]]
    if own.empty:
        return NoChart(title, "No check ran on a registry that was planted for it.")
    # Each defect beside those of the same check, so that what was planted for a check stands in one block.
    first = own.assign(column=own["check"].map(place)).groupby("planted")["column"].min()
    defects = sorted(first.index, key=lambda name: (first[name], name))
    calibrations = calibrations[calibrations["planted"].isin(defects)]
    row = {defect: number for number, defect in enumerate(defects)}

    cells = np.zeros((len(defects), len(checks)))
    missed: list[tuple[int, int]] = []
    for one in calibrations.to_dict("records"):
        spot = row[one["planted"]], place[one["check"]]
        cells[spot] = _kind(one["verdict"], bool(one["caught"]))
        if one["own"] and not one["caught"]:
            missed.append(spot)

    drawn, ((axes,),) = figure(2.9 + 0.125 * len(defects))
    colours = ListedColormap(["white", *(_LEGEND[kind][1] for kind in (_PASSED, _NAMED, _OTHER, _UNKNOWN))])
    axes.imshow(cells, aspect="auto", cmap=colours, norm=BoundaryNorm(np.arange(-0.5, 5.5), colours.N))
    axes.set_xticks(np.arange(-0.5, len(checks)), minor=True)
    axes.set_yticks(np.arange(-0.5, len(defects)), minor=True)
    axes.grid(visible=False)
    axes.grid(visible=True, which="minor", color="white", linewidth=1.0)
    axes.tick_params(which="both", length=0)
    for y, x in missed:
        axes.plot(x, y, marker="x", color=_MISSED, markersize=7, markeredgewidth=2)
    axes.set_xticks(range(len(checks)), checks, rotation=60, ha="left", rotation_mode="anchor", fontsize=7)
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(defects)), defects, fontsize=6.5)
    kinds = [kind for kind in _LEGEND if (cells == kind).any()]
    shown = [Patch(color=_LEGEND[kind][1], label=_LEGEND[kind][0]) for kind in kinds]
    drawn.legend(handles=shown, loc="outside lower left", ncols=4, fontsize=8)
    by_name = own.groupby("planted")["caught"].all()
    claim = f"{int(by_name.sum())} of {len(defects)} planted registries are caught by every check they were planted for"
    titled(drawn, claim, f"{len(checks)} checks, {len(calibrations):,} runs")
    names = ", ".join(sorted(by_name.index[~by_name]))
    return Chart(drawn, f"{title}: {claim}." + (f" Missed: {names}." if names else ""))


def _kind(verdict: str, caught: bool) -> int:
    if verdict == "FAIL":
        return _NAMED if caught else _OTHER
    return _UNKNOWN if verdict == "UNKNOWN" else _PASSED
