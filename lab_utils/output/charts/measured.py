"""The figure of measured values beside the budgets that they are held against."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import pandas as pd

from lab_utils.output.charts.chart import Chart, Key, NoChart, Part, Table
from lab_utils.output.charts.drawing import BAD, COLOURS, GOOD, INK, Drawing
from lab_utils.output.charts.scale import Scale
from lab_utils.values import texts
from lab_utils.values.quantities import counted, quantity

__all__ = ["budgets"]

_MOST: Final = 12
_MOST_ROWS: Final = 24
_BAR: Final = 15.0
_WIDE: Final = 30
"""Where a limit is that many times the value, the row is logarithmic: a short bar shows nothing."""
_BESIDE: Final = COLOURS[4]
_COLOURS: Final = {GOOD: "value, kept", BAD: "value, not kept", _BESIDE: "not kept, decides nothing"}
_SOURCES: Final = {"asked": ("asked for", INK), "lab": ("the lab's own", COLOURS[3])}


@dataclass(frozen=True, slots=True)
class _Row:
    check: str
    metric: str
    value: float
    unit: str
    limits: tuple[tuple[str, str, float], ...]
    """Source, comparison, limit."""
    broken: tuple[str, ...]
    decides: bool

    @property
    def used(self) -> float:
        """How much of the tightest budget is used: 1 is all of it."""
        return max(
            (limit / self.value if comparison in (">", ">=") else self.value / limit) if limit and self.value else 0.0
            for _, comparison, limit in self.limits
        )

    @property
    def colour(self) -> str:
        """That of the bar."""
        return GOOD if not self.broken else BAD if self.decides else _BESIDE

    @property
    def has_room(self) -> bool:
        """Whether the value could come closer to a budget and keep it: 100% where 100% is asked for cannot."""
        return all(comparison in ("<", "<=") for _, comparison, _ in self.limits)

    @property
    def words(self) -> str:
        named = (
            f"{source} {comparison} {quantity(limit, self.unit)}" for source, comparison, limit in reversed(self.limits)
        )
        return " · ".join([*named, *([] if self.decides else ["decides nothing"])])


def budgets(measurements: pd.DataFrame) -> Chart | NoChart:
    """A bar a measured value, with a mark at the required limit and one at the lab's own budget; the closest first.

    Each bar has an axis of its own. Budgets of zero have no bar; they are in the table.
    """
    title = "Values against their budgets"
    rows = _rows(measurements[measurements["budget_source"] != ""])
    if not rows:
        return NoChart(title, "No measurement has a budget.")
    # A value that decides nothing stands last.
    rows.sort(key=lambda row: (not row.decides, not row.broken, not row.has_room, -row.used))
    deciding = [row for row in rows if row.decides]
    broken = [row for row in deciding if row.broken]
    claim = f"{len(deciding) - len(broken)} of {len(deciding)} measured values keep their budgets"
    if not deciding:
        claim = "No measured value with a budget decides"
    shown = [row for row in rows if any(limit for *_, limit in row.limits)][:_MOST]
    zeros = [row for row in rows if not any(limit for *_, limit in row.limits)]
    remarks = []
    if shown:
        remarks.append(f"{'closest' if not broken else 'worst'} first; each bar has an axis of its own")
    if zeros:
        kept = sum(not row.broken for row in zeros)
        remarks.append(f"{counted(len(zeros), 'budget')} of zero without a bar, {kept} kept")
    left_out = [row for row in rows if row not in shown and row not in zeros]
    if further := sum(row.decides for row in left_out):
        remarks.append(f"not drawn: {counted(further, 'value')} that {'is' if further == 1 else 'are'} no closer")
    if beside := sum(not row.decides for row in left_out):
        remarks.append(f"not drawn: {counted(beside, 'value')} that {'decides' if beside == 1 else 'decide'} nothing")

    # A value that several checks measure is labelled with the check.
    several = {row.metric for row in shown if sum(other.metric == row.metric for other in shown) > 1}
    parts = [_part(row, f" · {row.check}" if row.metric in several else "") for row in shown]
    used = {row.colour for row in shown}
    keys = [Key(words, colour, opacity=0.85) for colour, words in _COLOURS.items() if colour in used]
    sources = {source for row in shown for source, *_ in row.limits}
    keys += [Key(name, colour, "solid") for source, (name, colour) in _SOURCES.items() if source in sources]
    table = Table(
        ("measured", "value", "budgets", "check"),
        [(row.metric, quantity(row.value, row.unit), _kept(row), row.check) for row in rows[:_MOST_ROWS]],
        "the numbers" if len(rows) <= _MOST_ROWS else f"the numbers, {_MOST_ROWS} of {len(rows)}",
        numbers=(1,),
    )
    names = f" Not kept: {', '.join(row.metric for row in broken)}." if broken else ""
    return Chart(claim, f"{title}: {claim}.{names}", parts, remark="; ".join(remarks), keys=keys, table=table)


def _rows(measurements: pd.DataFrame) -> list[_Row]:
    found = []
    for (check, metric), same in measurements.groupby(["check", "metric"], sort=False):
        first = same.iloc[0]
        limits = tuple(zip(same["budget_source"], same["comparison"], same["limit"].astype(float), strict=True))
        broken = tuple(same.loc[same["verdict"] != "PASS", "budget_source"])
        value, decides = float(first["value"]), bool(same["decides"].any())
        found.append(_Row(str(check), str(metric), value, str(first["unit"]), limits, broken, decides))
    return found


def _kept(row: _Row) -> str:
    return f"{row.words}: {'not kept' if row.broken else 'kept'}"


def _part(row: _Row, where: str) -> Part:
    ends = [limit for *_, limit in row.limits if math.isfinite(limit)]
    value = row.value if math.isfinite(row.value) else 0.0
    least, most = min([*ends, value]), max([*ends, value])
    smallest = min((end for end in (*ends, value) if end > 0), default=1.0)
    if least >= 0 and most > _WIDE * smallest:
        scale = Scale(smallest / 3, most * 1.3, "log")
    else:
        scale = Scale(min(least, 0.0), most * 1.05 if most > 0 else 1.0)
    drawing = Drawing(_BAR, left=2, right=10, top=0, bottom=0)
    drawing.boxes([((0, 3), (1, _BAR - 3))], INK, 0.1)
    drawing.boxes([((0, 3), (scale.at(value), _BAR - 3))], row.colour, 0.85)
    for source, _, limit in row.limits:
        place = scale.at(limit)
        drawing.lines([((place, 0), (place, _BAR))], _SOURCES[source][1], 2.5)
    words = f"{row.words}{', logarithmic' if scale.kind == 'log' else ''}{where}"
    return Part(drawing, texts.shown(row.metric), value=quantity(row.value, row.unit), foot=words)
