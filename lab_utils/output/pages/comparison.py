"""The page of two runs: new, fixed and remaining findings, and the values measured in both."""

from __future__ import annotations

import math
from typing import Any

from lab_utils.judges.anomalies import severity
from lab_utils.judges.comparison import Change, Comparison, FindingChange, MeasuredChange
from lab_utils.output.pages.templating import printable, render, style
from lab_utils.values.digest import Digest, FoundDigest
from lab_utils.values.quantities import counted, moment, quantity

__all__ = ["comparison_page"]

_ORDER = (Change.WORSE, Change.BETTER, Change.SAME)


def comparison_page(made: Comparison) -> str:
    """Return the page. It needs no other file and no network."""
    new, worse = made.of(Change.NEW), made.regressions
    fixed = len(made.of(Change.FIXED))
    words = [counted(len(new), "new finding")] * bool(new) + [counted(len(worse), "regression")] * bool(worse)
    words += [counted(fixed, "finding") + " fixed"] * bool(fixed)
    headline = ": ".join(filter(None, ["Worse" if made.is_worse else "Not worse", ", ".join(words)]))
    return render(
        "comparison.html.j2",
        title=f"Two runs compared: {headline}",
        css=style("style.css"),
        script=style("table.js"),
        headline=headline,
        lines=_lines(made),
        state="findings" if made.is_worse else "passed",
        sides=[_side("before", made.before), _side("after", made.after)],
        groups=[
            (
                change.value,
                [_finding(one.found, one.check, one.before, one.after) for one in _worst_first(made, change)],
            )
            for change in (Change.NEW, Change.FIXED, Change.STILL, Change.UNSEEN)
        ],
        verdicts=made.verdicts,
        measured=[_row(one) for change in _ORDER for one in made.measured if one.change is change],
        why_not=made.why_not,
    )


def _lines(made: Comparison) -> list[str]:
    """The worst of what is new, else of what is fixed; and how far the two can be compared."""
    lines = []
    for change, words in ((Change.NEW, "New"), (Change.FIXED, "No longer found")):
        if found := _worst_first(made, change):
            lines.append(f"{words}: {found[0].found.cause}")
            break
    targets = made.before.target, made.after.target
    if targets[0] != targets[1]:
        lines.append(f"The runs are of two targets, {targets[0]} and {targets[1]}.")
    return lines


def _worst_first(made: Comparison, change: Change) -> list[FindingChange]:
    return sorted(made.of(change), key=lambda one: severity(one.found.anomaly))


def _side(word: str, run: Digest) -> dict[str, str]:
    about = {
        "run": run.run_id,
        "target": run.target,
        "profile": run.profile,
        "seed": str(run.seed),
        "started": moment(run.started_at),
        "lab commit": run.commit[:12] or "none",
        "Python": run.python,
        "machine": run.machine,
    }
    return {"": word, **{name: printable(value) for name, value in about.items()}}


def _finding(found: FoundDigest, check: str, before: int, after: int) -> dict[str, Any]:
    return {
        "cause": printable(found.cause),
        "sentence": printable(found.sentence),
        "anomaly": printable(found.anomaly),
        "fingerprint": found.fingerprint,
        "check": check,
        "key": found.key if after else "",
        "before": before,
        "after": after,
    }


def _row(one: MeasuredChange) -> dict[str, str]:
    ratio = "" if math.isnan(one.ratio) else f"× {one.ratio:.3g}"
    interval = "" if math.isnan(one.low) or one.low == one.high else f"{one.low:.3g} to {one.high:.3g}"
    return {
        "change": one.change.value,
        "check": one.check,
        "metric": printable(one.metric),
        "before": quantity(one.before, one.unit),
        "after": quantity(one.after, one.unit),
        "ratio": ratio,
        "interval": interval,
        "why": one.why,
    }
