"""Figures of what a registry takes and gives back."""

from __future__ import annotations

from typing import Final

import pandas as pd
from matplotlib.axes import Axes

from lab_utils.output.charts.drawing import COLOURS, GREY, Chart, NoChart, figure, styled, titled

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


@styled
def memory_over_time(samples: pd.DataFrame) -> Chart | NoChart:
    """Memory above its baseline, in MiB over seconds, a row of panels a check: traced objects, and the process.

    The dotted line is the last value after everybody had left.
    """
    wanted = samples[samples["series"].isin([name for panel in PANELS for name in panel[1]])]
    title = "Memory over time"
    if wanted.empty:
        return NoChart(title, "No sample of memory.")
    checks = list(dict.fromkeys(wanted["check"]))[:_MOST_PANELS]
    drawn, rows = figure(0.9 + 2.2 * len(checks), len(checks), len(PANELS))
    words = []
    for panels, check in zip(rows, checks, strict=True):
        of_check = wanted[wanted["check"] == check]
        ends = [_memory_panel(axes, of_check, *panel) for axes, panel in zip(panels, PANELS, strict=True)]
        panels[0].set_ylabel("MiB above baseline")
        panels[0].text(0, 1.16, check, transform=panels[0].transAxes, fontsize=8.5, color=GREY)
        words.append(f"{check}: {', '.join(filter(None, ends)) or 'no freed phase was recorded'}.")
    for axes in rows[-1]:
        axes.set_xlabel("seconds since the trial began")
    left_out = wanted["check"].nunique() - len(checks)
    shown = "dotted: once everybody had left"
    titled(drawn, "Memory above its baseline", f"{shown}; {left_out} other check(s) not shown" if left_out else shown)
    return Chart(drawn, f"{title}, above the baseline, once freed. {' '.join(words)}")


def _memory_panel(axes: Axes, samples: pd.DataFrame, what: str, names: tuple[str, ...]) -> str:
    axes.axhline(0.0, color=GREY, linewidth=1.2, linestyle=(0, (5, 3)), label="baseline")
    ends = []
    for place, name in enumerate(names):
        series = samples[samples["series"] == name].sort_values("at", kind="stable")
        if series.empty:
            continue
        mib = series["value"] * series["unit"].map(_in_mib)
        before = mib[series["phase"].isin(BASELINE)]
        above = mib - (before.iloc[0] if len(before) else mib.iloc[0])
        colour, dashes = COLOURS[place], "-" if place == 0 else (0, (2, 1))
        freed = above[series["phase"].isin(FREED)]
        label = name
        if len(freed):
            last = float(freed.iloc[-1])
            axes.axhline(last, color=colour, linewidth=1.2, linestyle=":")
            label = f"{name}, freed {last:+.2f}"
            ends.append(f"{name} {last:+.2f} MiB")
        axes.plot(
            series["at"], above, color=colour, linestyle=dashes, linewidth=1.6, marker="o", markersize=3, label=label
        )
    # A flat line is to look flat: less than a hundredth of a MiB is not blown up to fill the panel. Above the lines
    # there is room for the legend.
    low, high = axes.get_ylim()
    low, high = min(low, -0.02), max(high, 0.02)
    axes.set_ylim(low - 0.1 * (high - low), high + 0.55 * (high - low))
    axes.set_title(what, fontsize=9, fontweight="normal", pad=4)
    axes.legend(loc="upper right", ncols=2, fontsize=7, frameon=True, framealpha=0.8, edgecolor="none")
    if not ends:
        axes.text(0.5, 0.5, "nothing was recorded" if samples[samples["series"].isin(names)].empty else "",
                  transform=axes.transAxes, ha="center", color=GREY)  # fmt: skip
    return ", ".join(ends)


def _in_mib(unit: str) -> float:
    sizes = {"B": 1 / _MIB, "bytes": 1 / _MIB, "KiB": 1 / 1024, "KB": 1e3 / _MIB, "MiB": 1.0, "MB": 1e6 / _MIB}
    if unit not in sizes:
        raise ValueError(f"unknown unit of memory {unit!r}; known: {', '.join(sizes)}")
    return sizes[unit]


@styled
def object_counts(samples: pd.DataFrame) -> Chart | NoChart:
    """Live objects by kind before, during (the most seen) and after; of many kinds, those that grew most."""
    title = "Live objects before, during and after"
    counted = samples[samples["series"].str.startswith("live_objects")]
    if counted.empty:
        return NoChart(title, "No sample of the series live_objects.")
    counted = counted.assign(
        kind=counted["series"].str.partition(":")[2].replace("", "all"),
        when=counted["phase"].map(
            lambda phase: "before" if phase in BASELINE else "after" if phase in FREED else "during"
        ),
    )
    # Of several cycles the first beginning and the last end count, and the most that was ever there between.
    by = counted.groupby(["check", "kind", "when"], sort=False)["value"]
    table = pd.DataFrame({"first": by.first(), "last": by.last(), "most": by.max()}).reset_index()
    table["shown"] = table["most"].where(table["when"] == "during", table["last"])
    table["shown"] = table["first"].where(table["when"] == "before", table["shown"])
    # A kind that several checks counted is shown where it was most numerous.
    wide = table.pivot_table(index=["check", "kind"], columns="when", values="shown", aggfunc="max")
    wide = wide.reindex(columns=["before", "during", "after"])
    # Where a check counted at all, a kind that it does not name was not there.
    counted_at = counted.groupby("check")["when"].unique()
    for check, kind in wide.index:
        for when in counted_at[check]:
            if pd.isna(wide.loc[(check, kind), when]):
                wide.loc[(check, kind), when] = 0.0
    grown = wide.max(axis=1) - wide["before"].fillna(0)
    order = grown.sort_values(ascending=False, kind="stable").index
    # What never changed tells nothing; it is shown only where there is nothing else.
    moved = order[: max(int((grown > 0).sum()), 1)]
    shown = wide.loc[moved].reset_index().drop_duplicates("kind").head(_MOST_KINDS)
    left_out = counted["kind"].nunique() - len(shown)

    drawn, ((axes,),) = figure(1.5 + 0.5 * len(shown))
    places = range(len(shown))
    for offset, (when, colour, hatch) in enumerate(
        (("before", COLOURS[5], ""), ("during", COLOURS[0], ""), ("after", COLOURS[1], "////"))
    ):
        values = shown[when].fillna(0.0)
        spots = [place + (offset - 1) * 0.27 for place in places]
        bars = axes.barh(spots, values, height=0.25, color=colour, label=when, hatch=hatch, edgecolor="white")
        labels = ["not counted" if pd.isna(value) else f"{value:,.0f}" for value in shown[when]]
        axes.bar_label(bars, labels, padding=4, fontsize=8.5)
    axes.set_yticks(list(places), list(shown["kind"]))
    axes.invert_yaxis()
    axes.set_xscale("symlog", linthresh=10)
    # Room for the numbers beside the bars.
    axes.set_xlim(0, max(float(shown[["before", "during", "after"]].max().max()), 10.0) * 3)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("live objects (linear to 10, then logarithmic)")
    left = int((wide["after"].fillna(0) - wide["before"].fillna(0)).clip(lower=0).sum())
    claim = "nothing is left" if left == 0 else f"{left:,} more are left than were there before"
    if wide["after"].isna().all():
        claim = "what is left was not counted"
    more = f"{left_out} kinds that grew less or not at all are not shown" if left_out > 0 else ""
    titled(drawn, f"Live objects: {claim}", more)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return Chart(drawn, f"{title}: {claim}. {more}".rstrip())
