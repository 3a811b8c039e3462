"""Figures of the memory that a registry takes and gives back."""

from __future__ import annotations

from typing import Final

import pandas as pd

from lab_utils.output.charts.chart import Chart, Key, NoChart, Part, Table
from lab_utils.output.charts.drawing import COLOURS, INK, Drawing
from lab_utils.output.charts.reading import judged
from lab_utils.output.charts.scale import Scale
from lab_utils.values.quantities import counted

__all__ = ["memory_over_time", "object_counts"]

BASELINE: Final = ("baseline", "before")
FREED: Final = ("freed", "after")
PANELS: Final = (
    ("bytes that Python objects hold (traced)", ("traced",)),
    ("the whole process (never decides alone)", ("anonymous", "uss", "rss")),
)
_MIB: Final = 2.0**20
_MOST_PANELS: Final = 4
_MOST_KINDS: Final = 12
_MOST_POINTS: Final = 150
_MOST_DOTS: Final = 40


def memory_over_time(samples: pd.DataFrame) -> Chart | NoChart:
    """Memory above its baseline, in MiB over seconds, a row of panels a check: traced objects, and the process.

    The dotted line is the last value after everybody had left.
    """
    wanted = samples[samples["series"].isin([name for panel in PANELS for name in panel[1]])]
    title = "Memory over time"
    if wanted.empty:
        return NoChart(title, "No sample of memory.")
    checks = list(dict.fromkeys(wanted["check"]))[:_MOST_PANELS]
    parts: list[Part] = []
    words: list[str] = []
    rows: list[tuple[str, ...]] = []
    for check in checks:
        of_check = wanted[wanted["check"] == check]
        ends = []
        for what, names in PANELS:
            part, told, numbers = _memory_panel(of_check, f"{check}: {what}", names)
            parts.append(part)
            ends += told
            rows += [(f"{check}: {row[0]}", *row[1:]) for row in numbers]
        words.append(f"{check}: {', '.join(ends) or 'no freed phase was recorded'}.")
    left_out = wanted["check"].nunique() - len(checks)
    shown = "MiB over seconds; dotted: once everybody had left"
    remark = f"{shown}; {counted(left_out, 'other check')} not shown" if left_out else shown
    claim = "Memory above its baseline"
    verdict, reasons = judged(samples, checks)
    claim += verdict
    remark = "; ".join(filter(None, [remark, reasons]))
    table = Table(("series", "baseline, MiB", "most above", "freed"), rows, numbers=(1, 2, 3))
    said = f"{title}, above the baseline, once freed. {' '.join(words)}"
    return Chart(claim, said, parts, remark=remark, table=table)


def _memory_panel(
    samples: pd.DataFrame, head: str, names: tuple[str, ...]
) -> tuple[Part, list[str], list[tuple[str, ...]]]:
    """One panel, its statement on the end, and a row of numbers a series."""
    drawing = Drawing(112, right=10)
    lines: list[tuple[str, pd.Series, pd.Series]] = []
    keys: list[Key] = []
    ends: list[str] = []
    rows: list[tuple[str, ...]] = []
    for place, name in enumerate(names):
        series = samples[samples["series"] == name].sort_values("at", kind="stable")
        if series.empty:
            continue
        mib = series["value"] * series["unit"].map(_in_mib)
        before = mib[series["phase"].isin(BASELINE)]
        first = float(before.iloc[0] if len(before) else mib.iloc[0])
        above = mib - first
        lines.append((COLOURS[place], series["at"], above))
        freed = above[series["phase"].isin(FREED)]
        last = ""
        if len(freed):
            last = f"{float(freed.iloc[-1]):+.2f}"
            ends.append(f"{name} {last} MiB")
        keys.append(Key(f"{name}, freed {last}" if last else name, COLOURS[place], "solid"))
        rows.append((name, f"{first:,.2f}", f"{float(above.max()):+.2f}", last))
    if not lines:
        drawing.lines([((0, 112), (1, 112))], INK, opacity=0.5)
        drawing.text((0.5, 60), "nothing was recorded", anchor="middle", soft=True)
        return Part(drawing, head, wide=340), ends, rows
    # A flat line is to look flat: less than a hundredth of a MiB is not blown up to fill the panel.
    every = [0.02, -0.02, *(float(end) for _, _, above in lines for end in (above.min(), above.max()))]
    ys = Scale(min(every) - 0.02 * (max(every) - min(every)), max(every) + 0.05 * (max(every) - min(every)))
    xs = Scale.of([float(at) for _, times, _ in lines for at in times])
    drawing.y_axis(ys)
    drawing.x_axis(xs, "seconds since the trial began")
    drawing.line([(0, drawing.up(ys, 0)), (1, drawing.up(ys, 0))], INK, 1, "5 3")
    for colour, times, above in reversed(lines):
        points = [(xs.at(at), drawing.up(ys, value)) for at, value in zip(times, above, strict=True)]
        freed_at = samples.loc[times.index, "phase"].isin(FREED)
        if freed_at.any():
            y = drawing.up(ys, float(above[freed_at].iloc[-1]))
            drawing.line([(0, y), (1, y)], colour, 1.2, "1.5 3")
        drawing.line(_fewer(points), colour, 1.6)
        if len(points) <= _MOST_DOTS:
            drawing.dots(points, colour, 5)
    return Part(drawing, head, (Key("baseline", INK, "dashed"), *keys), 340), ends, rows


def _fewer(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points, or of each stretch of them the first, the lowest and the highest, so that every extreme is drawn."""
    if len(points) <= _MOST_POINTS:
        return points
    size = -(-len(points) * 3 // _MOST_POINTS)
    kept = []
    for begin in range(0, len(points), size):
        stretch = range(begin, min(begin + size, len(points)))
        extremes = {begin, min(stretch, key=lambda n: points[n][1]), max(stretch, key=lambda n: points[n][1])}
        kept += [points[place] for place in sorted(extremes)]
    return [*kept, points[-1]]


def _in_mib(unit: str) -> float:
    sizes = {"B": 1 / _MIB, "bytes": 1 / _MIB, "KiB": 1 / 1024, "KB": 1e3 / _MIB, "MiB": 1.0, "MB": 1e6 / _MIB}
    if unit not in sizes:
        raise ValueError(f"unknown unit of memory {unit!r}; known: {', '.join(sizes)}")
    return sizes[unit]


def object_counts(samples: pd.DataFrame) -> Chart | NoChart:
    """Live objects by kind before, during (the most seen) and after; of many kinds, those that grew most."""
    title = "Live objects before, during and after"
    counted = samples[samples["series"].str.startswith("live_objects")]
    if counted.empty:
        return NoChart(title, "No sample of the series live_objects.")
    wide = _by_kind(counted)
    grown = wide.max(axis=1) - wide["before"].fillna(0)
    order = grown.sort_values(ascending=False, kind="stable").index
    # A series that never changed shows nothing; it is drawn only where there is no other.
    moved = order[: max(int((grown > 0).sum()), 1)]
    shown = wide.loc[moved].reset_index().drop_duplicates("kind").head(_MOST_KINDS)
    left_out = wide.reset_index()["kind"].nunique() - len(shown)

    row, bar = 44.0, 12.0
    times = (("before", COLOURS[5], 0.7), ("during", COLOURS[0], 0.9), ("after", COLOURS[1], 0.9))
    drawing = Drawing(row * len(shown), right=52)
    drawing.rows([str(kind) for kind in shown["kind"]], row, most=120)
    xs = Scale(0, max(float(shown[["before", "during", "after"]].max().max()), 10.0), "symlog")
    drawing.x_axis(xs, "live objects (linear to 10, then logarithmic)")
    numbers = {when: ["not counted" if pd.isna(value) else f"{value:,.0f}" for value in shown[when]] for when in wide}
    for offset, (when, colour, opacity) in enumerate(times):
        tops = [place * row + 3 + offset * (bar + 1) for place in range(len(shown))]
        ends = [xs.at(float(value)) for value in shown[when].fillna(0.0)]
        drawing.boxes((((0, top), (end, top + bar)) for top, end in zip(tops, ends, strict=True)), colour, opacity)
        for top, end, words in zip(tops, ends, numbers[when], strict=True):
            drawing.text((end, top + bar - 2), words, aside=4, size=11)
    claim = _left(wide)
    verdict, reasons = judged(samples, counted["check"])
    if verdict:
        claim = claim.replace("nothing is left", "no kind counted here is above its number before") + verdict
    more = f"{left_out} kinds that grew less or not at all are not shown" if left_out > 0 else ""
    table = Table(
        ("kind", "before", "during", "after"),
        list(zip(shown["kind"], *(numbers[when] for when in wide), strict=True)),
        numbers=(1, 2, 3),
    )
    keys = [Key(when, colour, opacity=opacity) for when, colour, opacity in times]
    remark = "; ".join(filter(None, [more, reasons]))
    said = f"{title}: {claim}. {remark}".rstrip()
    return Chart(f"Live objects: {claim}", said, [Part(drawing)], remark=remark, keys=keys, table=table)


def _by_kind(counted: pd.DataFrame) -> pd.DataFrame:
    """One row a check and kind: the numbers before, during and after; NaN where the check did not count then."""
    counted = counted.assign(
        kind=counted["series"].str.partition(":")[2].replace("", "all"),
        when=counted["phase"].map(
            lambda phase: "before" if phase in BASELINE else "after" if phase in FREED else "during"
        ),
    )
    # The first beginning and the last end of several cycles count, and the most that was ever there between.
    by = counted.groupby(["check", "kind", "when"], sort=False)["value"]
    table = pd.DataFrame({"first": by.first(), "last": by.last(), "most": by.max()}).reset_index()
    table["shown"] = table["most"].where(table["when"] == "during", table["last"])
    table["shown"] = table["first"].where(table["when"] == "before", table["shown"])
    # A kind that several checks counted is shown where it was most numerous.
    wide = table.pivot_table(index=["check", "kind"], columns="when", values="shown", aggfunc="max")
    wide = wide.reindex(columns=["before", "during", "after"])
    # Where a check counted at all, a kind that it does not name was not there.
    checks = wide.index.get_level_values("check")
    for check, whens in counted.groupby("check")["when"].unique().items():
        for when in whens:
            wide.loc[checks == check, when] = wide.loc[checks == check, when].fillna(0.0)
    return wide


def _left(wide: pd.DataFrame) -> str:
    if wide["after"].isna().all():
        return "the objects left were not counted"
    left = int((wide["after"].fillna(0) - wide["before"].fillna(0)).clip(lower=0).sum())
    return "nothing is left" if left == 0 else f"{left:,} more are left than were there before"
