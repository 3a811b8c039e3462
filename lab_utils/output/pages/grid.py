"""The page of a grid: verdicts and measurements over the parameters, causes, margins, growth, and every run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from lab_utils.judges.anomalies import severity
from lab_utils.judges.growth import Growth, Margin, growths, margins, measured_by_point
from lab_utils.output.charts.heat import Layout, layout, measurement_map, verdict_map
from lab_utils.output.frames import budget_of
from lab_utils.output.pages.templating import printable, render, style
from lab_utils.output.store.grids import Cell, GridFolder
from lab_utils.values.digest import Digest
from lab_utils.values.grid import SEED, Point, spelled
from lab_utils.values.quantities import counted, moment, quantity
from lab_utils.values.result import Budget
from lab_utils.values.verdict import Outcome

__all__ = ["cell_word", "grid_page"]

_MOST_CHECKS: Final = 12
_MOST_MAPS: Final = 8
_MOST_ROWS: Final = 40
_WORDS: Final = {
    "passed": "Every run passed",
    "findings": "Not passed",
    "error": "Not all runs were made",
    "cancelled": "Interrupted",
    "running": "Under way",
}


def cell_word(cell: Cell) -> str:
    """A point in one word, that of its worst check."""
    if cell.digest is None:
        return "LAB FAILED" if cell.why else "NOT RUN"
    return _worst([check.outcome.value for check in cell.digest.checks], cell.digest.status)


def _worst(outcomes: Sequence[str], status: str) -> str:
    for outcome in (Outcome.FAIL, Outcome.UNKNOWN):
        if outcome.value in outcomes:
            return outcome.value
    if status == "findings" and Outcome.PASS.value in outcomes:
        return "NOT CAUGHT"
    return "PASS" if Outcome.PASS.value in outcomes else "NOT APPLICABLE"


def grid_page(grid: GridFolder) -> str:
    """Return the page. It needs no network, and no other file but the reports of the runs that it links to."""
    cells = grid.cells()
    runs = [(cell.point, cell.digest) for cell in cells if cell.digest is not None]
    links = {cell.point.number: cell.link for cell in cells}
    place = layout(grid.axes, grid.about["repeats"])
    words = [(cell.point, cell_word(cell)) for cell in cells]
    worst, growing = margins(runs), growths(grid.axes, runs)
    status = grid.about["status"]
    causes = _causes(runs, links)
    headline = f"{_WORDS.get(status, status)}: {_counts([word for _, word in words])}"
    return render(
        "grid.html.j2",
        title=f"Grid of runs: {headline}",
        css=style("style.css"),
        headline=headline,
        sentence=causes[0]["cause"] if causes else "",
        lines=[*_lines(causes, worst), _calibrated(grid)],
        command=printable(grid.about["command"]),
        state=status,
        facts=_facts(grid, runs),
        verdicts=[verdict_map("All checks", words, place).html, *_checks(cells, place)],
        causes=causes[:_MOST_ROWS],
        margins=[_margin(one, links) for one in worst[:_MOST_ROWS]],
        kept=sum(one.left >= 0 for one in worst),
        judged=len(worst),
        growths=[_growth(one) for one in growing[:_MOST_ROWS]],
        grown=len(growing),
        maps=[_map(check, metric, runs, worst, place) for check, metric in _shown(worst, growing)],
        failed=[(cell.point.name, printable(cell.why), cell.link) for cell in cells if cell.why],
        rows=[_row(cell) for cell in cells],
    )


def _calibrated(grid: GridFolder) -> str:
    mode = grid.about["words"].get("calibrate", "")
    if mode == "never":
        return "No check was calibrated: that each can fail was not shown by this grid."
    if mode:
        return "The checks of each run were calibrated on planted registries."
    first = grid.points[0].name
    return f"Calibrated on planted registries in the first run only, {first}; --calibrate changed does it in each."


def _counts(words: Sequence[str]) -> str:
    parts = [f"{words.count(word):,} {word}" for word in dict.fromkeys(sorted(words, key=lambda word: word == "PASS"))]
    return f"{len(words):,} runs, {', '.join(parts)}"


def _facts(grid: GridFolder, runs: Sequence[tuple[Point, Digest]]) -> dict[str, str]:
    about = grid.about
    varied = "; ".join(f"{axis.name} {_values([spelled(value) for value in axis.values])}" for axis in grid.axes)
    facts = {
        "swept": varied or "nothing",
        "runs of each": str(about["repeats"]),
        "target": about["target"],
        "profile": about["profile"],
        "seed": "" if any(axis.name == SEED for axis in grid.axes) else str(about["seed"]),
        "started": moment(about["started_at"]),
        "finished": moment(about["finished_at"] or ""),
        "machines": "; ".join(dict.fromkeys(run.machine for _, run in runs)),
        "lab": about["lab"],
    }
    return {name: printable(text) for name, text in facts.items() if text}


def _values(words: Sequence[str]) -> str:
    return ", ".join(words) if len(words) <= 8 else f"{', '.join(words[:4])} … {words[-1]} ({len(words)} values)"


def _checks(cells: Sequence[Cell], place: Layout) -> list[str]:
    """A map for each check that does not pass everywhere, while there are more checks than one."""
    every = list(dict.fromkeys(check.check for cell in cells if cell.digest for check in cell.digest.checks))
    charts = []
    for name in every if len(every) > 1 else ():
        words = [
            (cell.point, check.outcome.value.replace("_", " "))
            for cell in cells
            if cell.digest
            for check in cell.digest.checks
            if check.check == name
        ]
        if any(word not in ("PASS", "NOT APPLICABLE") for _, word in words):
            charts.append(verdict_map(name, words, place).html)
    return charts[:_MOST_CHECKS]


def _causes(runs: Sequence[tuple[Point, Digest]], links: dict[int, str]) -> list[dict[str, Any]]:
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for point, run in runs:
        for check in run.checks:
            for one in check.found:
                new = {"cause": printable(one.cause), "check": check.check, "anomaly": one.anomaly, "runs": 0}
                new |= {"of": len(runs), "first": point.name, "link": links[point.number]}
                row = found.setdefault((check.check, one.fingerprint), new)
                row["runs"] += 1
    return sorted(found.values(), key=lambda row: (severity(row["anomaly"]), -row["runs"]))


def _lines(causes: Sequence[dict[str, Any]], worst: Sequence[Margin]) -> list[str]:
    """The rest of the answer: how many runs are affected, and how close the budgets are."""
    lines = []
    if causes:
        checks = counted(len({row["check"] for row in causes}), "check")
        lines.append(f"In {causes[0]['runs']} of {causes[0]['of']} runs. {counted(len(causes), 'cause')} in {checks}.")
    if worst:
        kept = sum(one.left >= 0 for one in worst)
        least = (
            "" if kept < len(worst) else f"; the least margin is {worst[0].left:.0%}, of {printable(worst[0].metric)}"
        )
        lines.append(f"{kept} of {len(worst)} budgets hold in every run{least}.")
    return lines


def _margin(one: Margin, links: dict[int, str]) -> dict[str, Any]:
    budget = Budget(one.comparison, one.limit, "lab" if one.source == "lab" else "asked")  # type: ignore[arg-type]
    return {
        "metric": printable(one.metric),
        "check": one.check,
        "value": quantity(one.value, one.unit),
        "budget": f"{budget_of(budget, one.unit)} ({one.source})",
        "left": "broken" if one.left == -math.inf else f"{one.left:.0%}",
        "is_kept": one.left >= 0,
        "where": one.point.name,
        "link": links[one.point.number],
    }


def _growth(one: Growth) -> dict[str, str]:
    has_interval = not math.isnan(one.low)
    exponent, low, high = (f"{round(value, 2) + 0.0:.2f}" for value in (one.exponent, one.low, one.high))
    return {
        "metric": printable(one.metric),
        "check": one.check,
        "axis": one.axis,
        "exponent": exponent,
        "interval": f"{low} to {high}" if has_interval else "too few runs",
        "words": _in_words(one) if has_interval else "",
        "runs": f"{one.runs:,}",
    }


def _in_words(one: Growth) -> str:
    if one.low <= 0 <= one.high:
        return "no growth shown"
    if one.high < 0:
        return f"falls with {one.axis}"
    if one.low > 1:
        return f"faster than {one.axis}"
    return f"as {one.axis}" if one.high >= 1 else f"slower than {one.axis}"


def _shown(worst: Sequence[Margin], growing: Sequence[Growth]) -> list[tuple[str, str]]:
    """The measurements that are drawn: by turns the closest to a budget and the fastest growing."""
    close = [(one.check, one.metric) for one in worst]
    fast = [(one.check, one.metric) for one in growing]
    turns = [one for pair in zip(close, fast, strict=False) for one in pair] + close + fast
    return list(dict.fromkeys(turns))[:_MOST_MAPS]


def _map(check: str, metric: str, runs: Sequence[tuple[Point, Digest]], worst: Sequence[Margin], place: Layout) -> str:
    units = (one.unit for _, run in runs for each in run.checks for one in each.measured if one.metric == metric)
    limits = [
        one.limit for one in worst if (one.check, one.metric) == (check, metric) and one.comparison in ("<", "<=")
    ]
    values = measured_by_point(runs, check, metric)
    title = f"{metric} of {check}"
    return measurement_map(title, values, next(units, ""), place, min(limits, default=None)).html


def _row(cell: Cell) -> dict[str, str]:
    return {
        "name": cell.point.name,
        "word": cell_word(cell),
        "link": cell.link,
        "seconds": f"{cell.digest.seconds:.0f} s" if cell.digest else "",
        "run_id": cell.digest.run_id if cell.digest else "",
    }
