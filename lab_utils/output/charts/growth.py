"""The figure of growth a cycle: readings over cycles, with the slope and its interval."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from lab_utils.output.charts.chart import Chart, Key, NoChart, Part, Table
from lab_utils.output.charts.drawing import COLOURS, INK, Drawing
from lab_utils.output.charts.reading import judged
from lab_utils.output.charts.scale import Scale
from lab_utils.values.quantities import quantity

__all__ = ["slopes"]

_SERIES: Final = "cycles: "
_MOST_PANELS: Final = 6
_MOST_POINTS: Final = 150


def slopes(samples: pd.DataFrame, measurements: pd.DataFrame) -> Chart | NoChart:
    """The readings after each cycle of the same work, and the slope with its interval of 95%, a panel a quantity.

    Of a quantity that was measured in several series, one after another, the slope is that of the last.
    """
    title = "Growth over cycles"
    read = samples[samples["series"].str.startswith(_SERIES)]
    fits = _fits(measurements)
    found = [
        (str(check), str(series).removeprefix(_SERIES), points)
        for (check, series), points in read.groupby(["check", "series"], sort=False)
    ]
    found = [(check, what, points) for check, what, points in found if (check, what) in fits]
    if not found:
        return NoChart(title, "No slope was measured.")
    grows = [what for check, what, _ in found if fits[check, what][1] > 0 and not _is_kept(measurements, check, what)]
    # Growing quantities first, and deciding ones before those only shown.
    found.sort(key=lambda one: (one[1] not in grows, not _has_budget(measurements, *one[:2])))
    claim = f"Grows from cycle to cycle: {', '.join(grows)}" if grows else "Nothing grows steadily over cycles"
    verdict, reasons = judged(samples, [check for check, *_ in found])
    if verdict and not grows:
        claim = "No budget for growth over cycles is exceeded"
    claim += verdict
    parts, rows = [], []
    for check, what, points in found[:_MOST_PANELS]:
        slope, low, high = fits[check, what]
        unit = str(points["unit"].iloc[0])
        shown = [quantity(value, unit) for value in (slope, low, high)]
        interval = f"{shown[0]} a cycle (95%: {shown[1]} to {shown[2]})"
        drawing, cycles = _panel(points, slope, low, high, unit)
        parts.append(Part(drawing, f"{what}: {interval}", wide=260))
        rows.append((what, f"{cycles:,}", *shown))
    keys = (
        Key("read after a cycle", COLOURS[0]),
        Key("slope", COLOURS[1], "solid"),
        Key("95%", COLOURS[1], opacity=0.3),
    )
    left_out = len(found) - len(parts)
    remark = "; ".join(filter(None, [f"{left_out} more quantities are not shown" if left_out else "", reasons]))
    table = Table(("quantity", "cycles", "a cycle", "at least", "at most"), rows, numbers=(1, 2, 3, 4))
    said = "; ".join(f"{row[0]} {row[2]} a cycle, {row[3]} to {row[4]}" for row in rows)
    return Chart(claim, f"{title}: {said}. {claim}.", parts, remark=remark, keys=keys, table=table)


def _fits(measurements: pd.DataFrame) -> dict[tuple[str, str], tuple[float, float, float]]:
    """By check and quantity: the slope, and the ends of its interval."""
    known = {(check, metric): value for check, metric, value in zip(
        measurements["check"], measurements["metric"], measurements["value"], strict=True)}  # fmt: skip
    found = {}
    for (check, metric), slope in known.items():
        if metric.startswith("slope, of ") and metric.endswith(" (95%)"):
            what = metric.removeprefix("slope, of ").removesuffix(" (95%)")
            ends = [known.get((check, f"slope, at {end}, of {what} (95%)"), slope) for end in ("least", "most")]
            found[check, what] = (float(slope), float(ends[0]), float(ends[1]))
    return found


def _steady(measurements: pd.DataFrame, check: str, what: str) -> pd.DataFrame:
    return measurements[(measurements["check"] == check) & (measurements["metric"] == f"steady growth of {what}")]


def _has_budget(measurements: pd.DataFrame, check: str, what: str) -> bool:
    """Whether the growth decides: that of the process's memory does not."""
    return not _steady(measurements, check, what).empty


def _is_kept(measurements: pd.DataFrame, check: str, what: str) -> bool:
    """Whether no budget of this growth is exceeded."""
    return not (_steady(measurements, check, what)["verdict"] == "FAIL").any()


def _panel(points: pd.DataFrame, slope: float, low: float, high: float, unit: str) -> tuple[Drawing, int]:
    """One quantity over all cycles of all series, and how many those are."""
    factor, name = (1e6, "MB") if unit == "bytes" and points["value"].max() >= 1e6 else (1.0, unit)
    factor, name = (1e3, "kB") if factor == 1.0 and unit == "bytes" else (factor, name)
    places, values = points["x"].astype(float).to_numpy(), points["value"].to_numpy(dtype=float)
    # Each series counts its cycles from one, and goes on where the one before ended.
    number, phases = points["phase"].factorize()
    ends = np.cumsum([0.0, *(places[number == one].max() for one in range(len(phases)))])
    cycles, last = places + ends[number], number == len(phases) - 1
    at, read = cycles[last], values[last]
    xs = Scale.of([0.0, float(ends[-1])])
    middle, level = float(np.median(at)), float(np.median(read - slope * (at - np.median(at))))
    lines = [
        [(x, level + each * (x - middle)) for x in (float(at.min()), float(at.max()))] for each in (slope, low, high)
    ]
    every = [*values.tolist(), *(y for line in lines for _, y in line)]
    room = max(max(every) - min(every), abs(level) * 0.02, 1.0)
    ys = Scale((min(every) - 0.1 * room) / factor, (max(every) + 0.1 * room) / factor)

    drawing = Drawing(112, right=10)
    drawing.y_axis(ys, name)
    drawing.x_axis(xs, "cycle", whole=True)

    def spot(x: float, y: float) -> tuple[float, float]:
        return xs.at(x), drawing.up(ys, y / factor)

    middle_line, lower, upper = ([spot(*end) for end in line] for line in lines)
    drawing.area([lower[0], (xs.at(middle), drawing.up(ys, level / factor)), upper[0]], COLOURS[1], 0.25)
    drawing.area([lower[1], (xs.at(middle), drawing.up(ys, level / factor)), upper[1]], COLOURS[1], 0.25)
    dots = [spot(float(x), float(y)) for x, y in zip(cycles, values, strict=True)]
    drawing.dots(dots[:: -(-len(dots) // _MOST_POINTS)], COLOURS[0], 4.5, 0.8)
    drawing.line(middle_line, COLOURS[1], 2)
    drawing.lines((((xs.at(end), 0), (xs.at(end), drawing.height)) for end in ends[1:-1].tolist()), INK, opacity=0.4)
    return drawing, int(ends[-1])
