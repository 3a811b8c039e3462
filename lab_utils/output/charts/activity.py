"""Figures of who did what when, how long it took, and who received whose events."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd
from matplotlib.collections import PolyCollection
from matplotlib.colors import LogNorm
from matplotlib.ticker import FuncFormatter, MaxNLocator

from lab_utils.output.charts.drawing import COLOURS, GREY, INK, Chart, NoChart, busiest, figure, scaled, styled, titled

__all__ = ["delivery_matrix", "latencies", "timeline"]

_MOST_ROWS: Final = 30
_MOST_CELLS: Final = 30
_MOST_ACTIONS: Final = 10
_MOST_SEGMENTS: Final = 4_000


@styled
def timeline(operations: pd.DataFrame) -> Chart | NoChart:
    """Operations in flight over time, and below them each user's; of many users, the ones longest at work."""
    title = "Operations by user over time"
    if operations.empty:
        return NoChart(title, "The history has no operation.")
    shown, remark = busiest(operations)
    users = shown["user"].nunique()
    work = shown.groupby("user", sort=False)["latency"].sum().sort_values(ascending=False, kind="stable")
    rows = sorted(work.index[:_MOST_ROWS])
    factor, unit = scaled(float(shown["end"].max()))

    drawn, ((above,), (below,)) = figure(
        2.4 + 0.19 * len(rows), 2, sharex=True, height_ratios=[1.3, 0.6 + 0.19 * len(rows)]
    )
    steps = pd.concat([pd.Series(1, index=shown["start"]), pd.Series(-1, index=shown["end"])])
    flying = steps.groupby(level=0).sum().sort_index().cumsum()
    most = max(int(flying.max()), 1)
    above.fill_between(flying.index * factor, flying, step="post", color=COLOURS[0], alpha=0.35, linewidth=0)
    above.step(flying.index * factor, flying, where="post", color=COLOURS[0], linewidth=1.2)
    above.set_ylabel("in flight")
    above.set_ylim(0, most * 1.08)
    above.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))

    drawn_ops = shown[shown["user"].isin(rows)].nlargest(_MOST_SEGMENTS, "latency", keep="first")
    place = {user: number for number, user in enumerate(rows)}
    least = float(shown["end"].max() - shown["start"].min()) * 0.002
    for kind, colour in (("ok", COLOURS[0]), ("fail", COLOURS[1]), ("info", COLOURS[4])):
        these = drawn_ops[drawn_ops["type"] == kind]
        if these.empty:
            continue
        left = these["start"].to_numpy() * factor
        # Operations of no length are still to be seen.
        right = left + np.maximum(these["latency"].to_numpy(), least) * factor
        middle = np.array([place[user] for user in these["user"]])
        low, high = middle - 0.35, middle + 0.35
        # Thousands of bars as one artist: as many would take a second.
        corners = list(np.stack([[left, low], [right, low], [right, high], [left, high]]).transpose(2, 0, 1))
        label = {"ok": "ok", "fail": "fail (refused, or raised)", "info": "info (unknown)"}[kind]
        bars = PolyCollection(corners, facecolor=colour, alpha=0.75, linewidth=0, label=label)
        bars.sticky_edges.x.append(left.min())
        below.add_collection(bars)
    below.set_yticks(range(len(rows)), [_short(user) for user in rows], fontsize=8)
    below.set_ylim(len(rows) - 0.4, -0.6)
    below.grid(visible=False, axis="y")
    below.set_xlabel(f"{unit} since the trial began")
    below.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    which = f"the {len(rows)} of {users:,} users longest at work" if users > len(rows) else f"{users} users"
    claim = f"Users at work: up to {most:,} operations in flight at once"
    titled(drawn, claim, "; ".join(filter(None, [which, remark])))
    return Chart(drawn, f"{title}, {which}. {claim}.")


@styled
def latencies(operations: pd.DataFrame) -> Chart | NoChart:
    """How long each action took: the box is the middle half, the whiskers go from the 1st to the 99th percentile."""
    title = "Latency by action"
    if operations.empty:
        return NoChart(title, "The history has no operation.")
    medians = operations.groupby("action")["latency"].median().sort_values(ascending=False, kind="stable")
    actions = list(medians.index[:_MOST_ACTIONS])
    factor, unit = scaled(float(medians.iloc[0]))
    taken = [operations.loc[operations["action"] == action, "latency"].to_numpy() * factor for action in actions]
    every = np.concatenate(taken)
    # A logarithm has no place for zero; what took less than the clock can tell stands at the least that it told.
    least = float(every[every > 0].min()) if (every > 0).any() else 1.0
    taken = [np.maximum(values, least) for values in taken]

    drawn, ((axes,),) = figure(1.4 + 0.42 * len(actions))
    boxes = axes.boxplot(
        taken,
        orientation="horizontal",
        whis=(1, 99),
        widths=0.55,
        patch_artist=True,
        flierprops={"marker": ".", "markersize": 3, "markeredgecolor": GREY},
        medianprops={"color": INK, "linewidth": 2},
    )
    for box in boxes["boxes"]:
        box.set(facecolor="#cfe3f1", edgecolor=COLOURS[0])
    labels = [f"{action}  (n={len(values):,})" for action, values in zip(actions, taken, strict=True)]
    axes.set_yticks(range(1, len(actions) + 1), labels)
    axes.invert_yaxis()
    if every.max() > 20 * least:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel(f"latency, {unit}; box 25 to 75%, whiskers 1 to 99%, line: median")
    axes.grid(visible=False, axis="y")
    slowest = f"slowest median: {actions[0]}, {medians.iloc[0] * factor:.3g} {unit}"
    titled(drawn, "How long an operation takes", slowest)
    more = f" {len(medians) - len(actions)} faster actions not shown." if len(medians) > len(actions) else ""
    return Chart(drawn, f"{title}: {slowest}.{more}")


@styled
def delivery_matrix(samples: pd.DataFrame) -> Chart | NoChart:
    """Events by sending and receiving user: isolation is a diagonal. Users with a foreign event are shown first."""
    title = "Events by sending and receiving user"
    sent = samples[samples["series"] == "delivered"]
    if sent.empty:
        return NoChart(title, "No sample of the series delivered.")
    sent, remark = busiest(sent)
    counts = sent.groupby(["x", "y"], as_index=False, sort=False)["value"].sum()
    foreign = counts[(counts["x"] != counts["y"]) & (counts["value"] > 0)]
    total, crossed = int(counts["value"].sum()), int(foreign["value"].sum())
    users = sorted(set(counts["x"]) | set(counts["y"]))
    involved = [user for user in users if user in set(foreign["x"]) | set(foreign["y"])]
    shown = users
    if len(users) > _MOST_CELLS:
        shown = sorted([*involved, *(user for user in users if user not in set(involved))][:_MOST_CELLS])

    grid = counts.pivot_table(index="x", columns="y", values="value", aggfunc="sum", fill_value=0)
    cells = grid.reindex(index=shown, columns=shown, fill_value=0).to_numpy(dtype=float)
    side = 0.17 * len(shown) + 1.9
    drawn, ((axes,),) = figure(max(side, 3.4))
    picture = axes.imshow(
        np.where(cells > 0, cells, np.nan),
        aspect="auto",
        cmap="Blues",
        norm=LogNorm(vmin=0.5, vmax=max(cells.max(), 1.0) * 1.5),
    )
    drawn.colorbar(picture, ax=axes, shrink=0.7, label="events (logarithmic)", format=lambda value, _: f"{value:g}")
    for row, column in zip(*np.nonzero(cells), strict=True):
        if row != column:
            axes.plot(column, row, marker="x", color=COLOURS[1], markersize=7, markeredgewidth=2)
    names = [_short(user) for user in shown]
    axes.set_xticks(range(len(shown)), names, rotation=90, fontsize=7.5)
    axes.set_yticks(range(len(shown)), names, fontsize=7.5)
    axes.set_xlabel("received by")
    axes.set_ylabel("sent for")
    axes.grid(visible=False)
    claim = f"{crossed:,} of {total:,} events reached another user"
    which = f"{len(shown)} of {len(users):,} users shown" if len(shown) < len(users) else f"{len(users)} users"
    if len(shown) < len(users) and involved:
        which += f", those with a foreign event first ({len(involved):,})"
    titled(drawn, claim, "; ".join(filter(None, [which, remark])))
    return Chart(drawn, f"{title}: {claim}; {which}.")


def _short(user: str) -> str:
    """A user's id as a label: no control character, no glyph that the font lacks, no formula."""
    plain = user.encode("unicode_escape").decode("ascii")
    return (plain if len(plain) <= 18 else f"{plain[:8]}…{plain[-8:]}").replace("$", r"\$")
