"""Figures of activity: the operations of each user over time, their durations, and the deliveries of events."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np
import pandas as pd

from lab_utils.output.charts.chart import Chart, Key, NoChart, Part, Table
from lab_utils.output.charts.drawing import BAD, COLOURS, GOOD, INK, Drawing
from lab_utils.output.charts.reading import busiest, judged, scaled
from lab_utils.output.charts.scale import Scale, brief
from lab_utils.output.charts.text import plain
from lab_utils.values.quantities import counted

__all__ = ["delivery_matrix", "latencies", "timeline"]

_MOST_ROWS: Final = 30
_MOST_CELLS: Final = 30
_MOST_LABELLED: Final = 12
_LEVELS: Final = 4
_MOST_ACTIONS: Final = 10
_MOST_SEGMENTS: Final = 450
_MOST_STEPS: Final = 250
_MOST_OUTLIERS: Final = 40
_SHORT: Final = 12
_ROW: Final = 15.0
_CELL: Final = 20.0
_KINDS: Final = {
    "ok": ("ok", COLOURS[0]),
    "fail": ("fail (refused, or raised)", COLOURS[1]),
    "info": ("info (unknown)", COLOURS[4]),
}


def timeline(operations: pd.DataFrame) -> Chart | NoChart:
    """Operations in flight over time, and below them each user's; of many users, the ones longest at work."""
    title = "Operations by user over time"
    if operations.empty:
        return NoChart(title, "The history has no operation.")
    shown, remark = busiest(operations)
    work = shown.groupby("user", sort=False)["latency"].sum().sort_values(ascending=False, kind="stable")
    users = len(work)
    rows = sorted(work.index[:_MOST_ROWS])
    factor, unit = scaled(float(shown["end"].max()))
    xs = Scale.of([*(shown["start"] * factor), *(shown["end"] * factor)])

    below = Drawing(_ROW * len(rows))
    below.rows(list(map(plain, rows)), _ROW)
    below.x_axis(xs, f"{unit} since the trial began")
    drawn = shown[shown["user"].isin(rows)]
    kinds = [kind for kind in _KINDS if (drawn["type"] == kind).any()]
    for kind in kinds:
        below.boxes(_segments(drawn[drawn["type"] == kind], rows, xs, factor), _KINDS[kind][1], 0.85)

    above = Drawing(72)
    above.indent(below.left)
    most = _in_flight(above, shown, xs, factor)
    below.indent(above.left)
    which = f"the {len(rows)} of {users:,} users longest at work" if users > len(rows) else f"{users} users"
    claim = f"Users at work: up to {counted(most, 'operation')} in flight at once"
    parts = (Part(above), Part(below, keys=tuple(Key(*_KINDS[kind]) for kind in kinds)))
    counts = shown.groupby("user")["latency"].size()
    table = Table(
        ("user", "operations", f"at work, {unit}"),
        [(plain(user), f"{counts[user]:,}", f"{work[user] * factor:.4g}") for user in work.index[:_SHORT]],
        "the numbers" if users <= _SHORT else f"the numbers of the {_SHORT} users longest at work",
        numbers=(1, 2),
    )
    remark = "; ".join(filter(None, [which, remark]))
    return Chart(claim, f"{title}, {which}. {claim}.", parts, remark=remark, table=table)


def _in_flight(above: Drawing, shown: pd.DataFrame, xs: Scale, factor: float) -> int:
    """Draw how many operations are under way; return the most at once."""
    steps = pd.concat([pd.Series(1, index=shown["start"]), pd.Series(-1, index=shown["end"])])
    flying = steps.groupby(level=0).sum().sort_index().cumsum()
    most = max(int(flying.max()), 1)
    ys = Scale(0, most * 1.08)
    above.y_axis(ys, "operations in flight", whole=True)
    places = np.array([xs.at(at * factor) for at in flying.index])
    # The highest of the values that fall into one place is drawn: no peak is lost, however many steps there are.
    cells = (places * _MOST_STEPS).astype(int)
    highest = pd.DataFrame({"x": places, "y": flying.to_numpy()}).groupby(cells).agg(x=("x", "first"), y=("y", "max"))
    line, last = [(float(highest["x"].iloc[0]), above.height)], above.height
    for x, count in zip(highest["x"], highest["y"], strict=True):
        y = above.up(ys, float(count))
        line += [(float(x), last), (float(x), y)]
        last = y
    line += [(1.0, last), (1.0, above.height)]
    above.area(line, COLOURS[0], 0.3)
    above.line(line[1:-1], COLOURS[0], 1.2)
    above.lines([((0, above.height), (1, above.height))], INK, opacity=0.5)
    return most


def _segments(
    drawn: pd.DataFrame, rows: Sequence[str], xs: Scale, factor: float
) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """A box an operation; those that nearly touch are one, as far as it takes to have few of them."""
    # Most of a million operations are drawn where another one is.
    places = drawn["user"].map({user: number for number, user in enumerate(rows)}).to_numpy()
    ends = ((drawn[end].to_numpy() * factor - xs.low) / (xs.high - xs.low) for end in ("start", "end"))
    spans = np.unique(np.stack([places, *(np.round(end, 4) for end in ends)], axis=1), axis=0).tolist()
    gap = 0.0
    while True:
        runs: list[list[float]] = []
        for row, left, right in spans:
            if runs and runs[-1][0] == row and left <= runs[-1][2] + gap:
                runs[-1][2] = max(runs[-1][2], right)
            else:
                runs.append([row, left, right])
        if len(runs) <= _MOST_SEGMENTS:
            break
        gap = max(gap * 2, 0.001)
    # Operations of no length are still to be seen.
    return [((left, row * _ROW + 2), (max(right, left + 0.003), (row + 1) * _ROW - 2)) for row, left, right in runs]


def latencies(operations: pd.DataFrame) -> Chart | NoChart:
    """How long each action took: the box is the middle half, the whiskers go from the 1st to the 99th percentile."""
    title = "Latency by action"
    if operations.empty:
        return NoChart(title, "The history has no operation.")
    medians = operations.groupby("action")["latency"].median().sort_values(ascending=False, kind="stable")
    actions = list(medians.index[:_MOST_ACTIONS])
    factor, unit = scaled(float(medians.iloc[0]))
    taken = [np.sort(operations.loc[operations["action"] == name, "latency"].to_numpy()) * factor for name in actions]
    every = np.concatenate(taken)
    # A logarithm has no place for zero; durations below the clock's resolution stand at the least one measured.
    least = float(every[every > 0].min()) if (every > 0).any() else 1.0
    wide = float(every.max()) > 20 * least
    xs = Scale.of(np.maximum(every, least).tolist(), "log") if wide else Scale(0, max(float(every.max()), least))

    row = 26.0
    drawing = Drawing(row * len(actions), right=14)
    drawing.rows([f"{plain(name)} ({len(values):,})" for name, values in zip(actions, taken, strict=True)], row)
    drawing.x_axis(xs, f"{unit}{', logarithmic' if wide else ''}")
    boxes, whiskers, middles, outliers, rows = [], [], [], [], []
    for place, (name, values) in enumerate(zip(actions, taken, strict=True)):
        low, left, middle, right, high = (float(one) for one in np.quantile(values, [0.01, 0.25, 0.5, 0.75, 0.99]))
        y = (place + 0.5) * row
        boxes.append(((xs.at(left), y - 7), (max(xs.at(right), xs.at(left) + 0.003), y + 7)))
        whiskers += [((xs.at(low), y), (xs.at(left), y)), ((xs.at(right), y), (xs.at(high), y))]
        whiskers += [((xs.at(end), y - 4), (xs.at(end), y + 4)) for end in (low, high)]
        middles.append(((xs.at(middle), y - 8), (xs.at(middle), y + 8)))
        beyond = sorted({round(xs.at(one), 3) for one in values[(values < low) | (values > high)].tolist()})
        outliers += [(one, y) for one in beyond[:: -(-len(beyond) // _MOST_OUTLIERS) or 1]]
        numbers = (f"{number:.3g}" for number in (middle, high, float(values[-1])))
        rows.append((plain(name), f"{len(values):,}", *numbers))
    drawing.boxes(boxes, COLOURS[0], 0.35)
    drawing.lines(whiskers, COLOURS[0], 1.2)
    drawing.dots(outliers, INK, 3.5, 0.45)
    drawing.lines(middles, COLOURS[1], 2.5)
    keys = (
        Key("25 to 75%", COLOURS[0], opacity=0.45),
        Key("1 to 99%", COLOURS[0], "solid"),
        Key("median", COLOURS[1], "solid"),
    )
    slowest = f"slowest median: {plain(actions[0])}, {medians.iloc[0] * factor:.3g} {unit}"
    more = f" {len(medians) - len(actions)} faster actions not shown." if len(medians) > len(actions) else ""
    table = Table(("action", "operations", f"median, {unit}", "99%", "longest"), rows, numbers=(1, 2, 3, 4))
    remark = f"{slowest}.{more}"
    claim = "How long an operation takes"
    return Chart(claim, f"{title}: {slowest}.{more}", [Part(drawing)], remark=remark, keys=keys, table=table)


def delivery_matrix(samples: pd.DataFrame) -> Chart | NoChart:
    """Events that reached another user than their own: senders by receivers. Where there are none, the events that
    each user received of its own."""
    title = "Events by sending and receiving user"
    sent = samples[samples["series"] == "delivered"]
    if sent.empty:
        return NoChart(title, "No sample of the series delivered.")
    sent, remark = busiest(sent)
    counts = pd.DataFrame(sent.groupby(["x", "y"], as_index=False, sort=False)["value"].sum())
    foreign = counts[(counts["x"] != counts["y"]) & (counts["value"] > 0)]
    total, crossed = int(counts["value"].sum()), int(foreign["value"].sum())
    users = sorted(set(counts["x"]) | set(counts["y"]))
    claim = f"{crossed:,} of {total:,} events reached another user"
    verdict, reasons = judged(samples, sent["check"])
    claim += verdict
    if foreign.empty:
        which = f"{len(users):,} users"
        parts, table = _diagonal(counts, users)
    else:
        senders, receivers = _involved(foreign["x"]), _involved(foreign["y"])
        which = f"rows: {len(senders)} of {len(users):,} users, those whose events reached others"
        parts, table = _crossed(counts, senders, receivers)
    remark = "; ".join(filter(None, [which, remark, reasons]))
    return Chart(claim, f"{title}: {claim}; {which}.", parts, remark=remark, table=table)


def _involved(users: pd.Series) -> list[str]:
    return sorted(set(users))[:_MOST_CELLS]


def _diagonal(counts: pd.DataFrame, users: list[str]) -> tuple[list[Part], Table]:
    own = counts.groupby("x")["value"].sum().reindex(users, fill_value=0).sort_values(ascending=False, kind="stable")
    ys = Scale(0, max(float(own.iloc[0]), 1.0) * 1.05)
    drawing = Drawing(64)
    drawing.y_axis(ys, "events of its own that each user received, most first", whole=True)
    # A thousand users are as many bars as there are pixels: neighbours that received the same share one.
    bars: list[tuple[tuple[float, float], tuple[float, float]]] = []
    values = own.to_numpy()
    edges = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    gap = 0.15 / len(values)
    for begin, end in pairwise(edges):
        top = drawing.up(ys, float(values[begin]))
        places = range(begin, end) if len(values) <= _MOST_CELLS else (begin,)
        for place in places:
            right = place + 1 if len(values) <= _MOST_CELLS else end
            bars.append(((place / len(values) + gap, top), (right / len(values) - gap, drawing.height)))
    drawing.boxes(bars, GOOD, 0.8)
    drawing.lines([((0, drawing.height), (1, drawing.height))], INK, opacity=0.5)
    rows = [(plain(str(user)), f"{int(count):,}") for user, count in own.head(_SHORT).items()]
    more = "" if len(own) <= _SHORT else f" of the {_SHORT} users who received most"
    return [Part(drawing)], Table(("user", "its own events"), rows, f"the numbers{more}", (1,))


def _crossed(counts: pd.DataFrame, senders: list[str], receivers: list[str]) -> tuple[list[Part], Table]:
    grid = counts.pivot_table(index="x", columns="y", values="value", aggfunc="sum", fill_value=0)
    cells = grid.reindex(index=senders, columns=receivers, fill_value=0).to_numpy(dtype=float)
    row, across = _CELL, 1 / len(receivers)
    drawing = Drawing(row * len(senders), top=24)
    drawing.rows(list(map(plain, senders)), row)
    most = max(cells.max(), 1.0)
    numbers = {user: str(place) for place, user in enumerate(receivers, 1)}
    # On a phone only some of many numbers have room.
    step = -(-18 * len(receivers) // int(drawing.room))
    for user, number in list(numbers.items())[::step]:
        drawing.text(((int(number) - 0.5) * across, -8), number, anchor="middle", size=11, soft=True, full=plain(user))
    outline = [((0.0, y * row), (1.0, y * row)) for y in range(len(senders) + 1)]
    outline += [((x * across, 0.0), (x * across, drawing.height)) for x in range(len(receivers) + 1)]
    drawing.lines(outline, INK, opacity=0.18)
    is_own = np.array(senders)[:, None] == np.array(receivers)
    strength = np.where(cells > 0, np.ceil(_LEVELS * np.log1p(cells) / np.log1p(most)), 0)
    for own, colour in ((True, GOOD), (False, BAD)):
        for level in range(1, _LEVELS + 1):
            spots = np.argwhere((strength == level) & (is_own == own)).tolist()
            boxes = (((x * across, y * row), ((x + 1) * across, (y + 1) * row)) for y, x in spots)
            drawing.boxes(boxes, colour, 0.1 + 0.12 * level)
    if len(receivers) <= _MOST_LABELLED:
        for y, x in np.argwhere(cells > 0).tolist():
            middle = ((x + 0.5) * across, (y + 0.5) * row + 4)
            drawing.text(middle, brief(float(cells[y, x])), anchor="middle", size=11, bold=not is_own[y, x])
    foreign = [
        (plain(senders[y]), f"{numbers[receivers[x]]}  {plain(receivers[x])}", f"{cells[y, x]:,.0f}")
        for y, x in np.argwhere((cells > 0) & ~is_own).tolist()
    ]
    keys = (Key("reached another user", BAD, opacity=0.5), Key("its own user", GOOD, opacity=0.5))
    head = "sent for (rows), received by (columns; the table below has their names)"
    more = "" if len(foreign) <= _MOST_CELLS else f", the first {_MOST_CELLS} of {len(foreign):,}"
    table = Table(
        ("sent for", "received by", "events"), foreign[:_MOST_CELLS], f"who received whose events{more}", (2,)
    )
    return [Part(drawing, head, keys)], table
