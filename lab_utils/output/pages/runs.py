"""The page that lists all runs, with the course of each measurement over them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final

from markupsafe import Markup, escape

from lab_utils.judges.comparison import Change, MeasuredChange, compare
from lab_utils.output.pages.templating import printable, render, style
from lab_utils.output.store import PARTIAL, RunRecord, Summary
from lab_utils.output.store.record import Calibrated
from lab_utils.values.digest import Digest
from lab_utils.values.quantities import moment, quantity

__all__ = ["runs_page", "trends_page"]

_MOST_KINDS: Final = 6
_MOST_RUNS: Final = 30
_MOST_ROWS: Final = 400
_MOST_NAMES: Final = 2
_ORDER: Final = ("FAIL", "UNKNOWN", "PASS")
_WIDE: Final = 160.0
_TALL: Final = 28.0
_BADGES: Final = {Change.WORSE: "FAIL", Change.BETTER: "PASS"}


def runs_page(runs: Iterable[Summary]) -> str:
    """Return the page that lists runs, in the order given, and below them how their measurements went. Unfinished and
    unreadable ones say so."""
    every = list(runs)
    digests = (one.digest for one in every if not one.folder.endswith(PARTIAL))
    return _page("Runs, newest first", [_line(run) for run in every], _trends(filter(None, digests)))


def trends_page(history: Iterable[Digest]) -> str:
    """Return the page of a history, newest run first: as `runs_page`, except for links to reports."""
    every = sorted(history, key=lambda run: run.started_at, reverse=True)
    return _page("Runs of a history, newest first", list(map(_kept, every)), _trends(every))


def _page(title: str, lines: list[dict[str, Any]], trends: list[dict[str, Any]]) -> str:
    return render(
        "runs.html.j2",
        title=title,
        css=style("style.css", "runs.css"),
        script=style("table.js"),
        runs=lines,
        trends=trends,
    )


# ---------------------------------------------------------------------------------------------------------- the list


def _line(run: Summary) -> dict[str, Any]:
    seconds = _between(*run.times)
    line = {
        "run_id": run.run_id,
        "badge": run.state,
        "state": run.state,
        "unfinished": run.folder.endswith(PARTIAL),
        "link": run.page or f"{run.folder}/",
        "what": run.why,
        "counts": _counts(run.outcomes),
        "calibrated": "",
        "seconds": seconds,
        "took": _took(seconds),
        "code": "",
    }
    return line if run.about is None else line | _told(run, run.about)


def _told(run: Summary, about: RunRecord) -> dict[str, Any]:
    git = about["provenance"]["git"]
    notebooks = [row["notebook"].removesuffix(".ipynb") for row in about["catalog"]]
    scope = ", ".join(notebooks) if len(notebooks) <= _MOST_NAMES else f"{len(notebooks)} notebooks"
    baseline = about.get("baseline")
    known = len(baseline["known"]) if baseline else 0
    seconds = _between(about["started_at"], about["finished_at"])
    is_known = run.state == "passed" and known
    return {
        "badge": "known" if is_known else run.state,
        "state": f"passed, {known} known" if is_known else run.state,
        # An interrupted run may have no report; its folder is still worth a look.
        "link": f"{run.folder}/index.html" if "outcomes" in about else f"{run.folder}/",
        "what": _words(moment(about["started_at"]), about["target"], about["profile"], f"seed {about['seed']}", scope),
        "counts": _counts(about.get("outcomes", {})),
        "calibrated": _calibrated(about.get("calibrated")),
        "seconds": seconds,
        "took": _took(seconds),
        "code": f"{git['commit'][:10]}{'' if git['clean'] else ', changed tree'}" if git and git["commit"] else "",
    }


def _kept(run: Digest) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "badge": run.status,
        "state": run.status,
        "unfinished": False,
        "link": "",
        "what": _words(moment(run.started_at), run.target, run.profile, f"seed {run.seed}"),
        "counts": _counts(Counter(check.outcome.value for check in run.checks)),
        "calibrated": "",
        "seconds": run.seconds,
        "took": _took(run.seconds),
        "code": run.commit[:10],
    }


def _counts(outcomes: Mapping[str, int]) -> list[tuple[str, int]]:
    """The number of checks of each verdict, the worst verdict first."""
    return sorted(outcomes.items(), key=lambda one: _ORDER.index(one[0]) if one[0] in _ORDER else len(_ORDER))


def _calibrated(counts: Calibrated | None) -> str:
    if counts is None:
        return ""
    return f"{counts['caught']} of {counts['planted']} planted caught" if counts["planted"] else "not calibrated"


def _words(*parts: str) -> str:
    return ", ".join(filter(None, parts))


def _between(*stamps: str | None) -> float | None:
    """The seconds from the first stamp to the last; None where one is not known."""
    began, ended = map(_time, stamps)
    return (ended - began).total_seconds() if began and ended else None


def _time(stamp: str | None) -> datetime | None:
    """The moment, in UTC where the stamp has no offset."""
    try:
        moment = datetime.fromisoformat(stamp) if stamp else None
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment and moment.tzinfo is None else moment


def _took(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


# ---------------------------------------------------------------------------------------------------------- the trends


def _trends(newest_first: Iterable[Digest]) -> list[dict[str, Any]]:
    """The course of every measurement, for each kind of runs whose measurements may be compared."""
    kinds: list[list[Digest]] = []
    for run in newest_first:
        kind = next((each for each in kinds if each[0].is_like(run)), None)
        if kind is not None:
            kind.append(run)
        elif len(kinds) < _MOST_KINDS:
            kinds.append([run])
    return [_trend(kind[:_MOST_RUNS][::-1]) for kind in kinds if len(kind) > 1]


def _trend(runs: Sequence[Digest]) -> dict[str, Any]:
    """The course over runs of one kind, oldest first. The values that changed last come first."""
    values: dict[tuple[str, str], list[float | None]] = {}
    units: dict[tuple[str, str], str] = {}
    for place, run in enumerate(runs):
        for check in run.checks:
            for one in check.measured:
                values.setdefault((check.check, one.metric), [None] * len(runs))[place] = one.value
                units[check.check, one.metric] = one.unit
    changes: dict[tuple[str, str], dict[int, MeasuredChange]] = {}
    flagged: dict[tuple[str, str], tuple[int, Change]] = {}
    for place, (before, after) in enumerate(pairwise(runs), 1):
        for change in compare(before, after, runs[:place]).measured:
            if change.change in _BADGES:
                key = change.check, change.metric
                # The runs after a step differ from the usual value too, until that is the new one.
                if flagged.get(key) != (place - 1, change.change):
                    changes.setdefault(key, {})[place] = change
                flagged[key] = (place, change.change)
    shown = [key for key, course in values.items() if sum(value is not None for value in course) > 1]
    shown.sort(key=lambda key: -max(changes.get(key, {}), default=0))
    rows = [_row(key, units[key], values[key], changes.get(key, {}), runs) for key in shown[:_MOST_ROWS]]
    newest = runs[-1]
    return {
        "title": f"{newest.target}, {newest.profile}, Python {newest.python.rpartition('.')[0]}",
        "runs": len(runs),
        "since": moment(runs[0].started_at),
        "changed": [row for row in rows if row["change"]],
        "steady": [row for row in rows if not row["change"]],
    }


def _row(
    key: tuple[str, str],
    unit: str,
    course: Sequence[float | None],
    changes: dict[int, MeasuredChange],
    runs: Sequence[Digest],
) -> dict[str, Any]:
    check, metric = key
    newest = next(value for value in reversed(course) if value is not None)
    row = {
        "check": check,
        "metric": printable(metric),
        "value": newest,
        "newest": quantity(newest, unit),
        "line": _sparkline(course, changes, unit),
        "change": "",
        "badge": "",
        "where": "",
        "times": len(changes),
    }
    if changes:
        place = max(changes)
        last, run = changes[place], runs[place]
        row |= {
            "change": last.change.value,
            "badge": _BADGES[last.change],
            "where": f"{quantity(last.before, unit)} → {quantity(last.after, unit)} at "
            f"{f'{run.commit[:10]}, {moment(run.started_at)}' if run.commit else run.run_id}",
        }
    return row


def _sparkline(course: Sequence[float | None], changes: dict[int, MeasuredChange], unit: str) -> Markup:
    """The course as a line, a dot at its end, and a larger one at each marked change."""
    known = [(place, value) for place, value in enumerate(course) if value is not None]
    low, high = min(value for _, value in known), max(value for _, value in known)
    step = (_WIDE - 12) / max(len(course) - 1, 1)

    def spot(place: int, value: float) -> str:
        share = (value - low) / (high - low) if high > low else 0.5
        return f"{6 + place * step:.1f} {_TALL - 6 - share * (_TALL - 12):.1f}"

    def dot(place: int, value: float, colour: str, size: float) -> str:
        x, y = spot(place, value).split()
        return f'<circle cx="{x}" cy="{y}" r="{size:g}" fill="var(--{colour})"/>'

    marks = [dot(place, value, _BADGES[changes[place].change].lower(), 4) for place, value in known if place in changes]
    words = f"{len(known)} runs, {quantity(low, unit)} to {quantity(high, unit)}"
    words += f", marked changes: {len(changes)}" if changes else ""
    path = "L".join(spot(place, value) for place, value in known)
    return Markup(
        f'<svg class="spark" viewBox="0 0 {_WIDE:g} {_TALL:g}" role="img" aria-label="{escape(words)}">'
        f'<title>{escape(words)}</title><path d="M{path}" fill="none" stroke="var(--link)" stroke-width="1.5"/>'
        f"{dot(*known[-1], 'link', 2.5)}{''.join(marks)}</svg>"
    )
