"""The report of one run: its frames as Parquet, one page, one Markdown summary, one JUnit file."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pandas as pd

from lab_utils.output import charts
from lab_utils.output.frames import OperationsFile, frames_of
from lab_utils.output.pages.causes import cause_cards
from lab_utils.output.pages.junit import junit
from lab_utils.output.pages.templating import printable, render, style
from lab_utils.output.store import DIGEST, OpenRun
from lab_utils.output.store.digests import digest_of
from lab_utils.values.digest import written_digest
from lab_utils.values.profiles import DEFAULT_PROFILE
from lab_utils.values.quantities import counted, moment, quantity
from lab_utils.values.texts import reported

__all__ = ["publish"]

_LONGEST_SUMMARY: Final = 20_000
"""Bytes of the summary, at most."""
_LIMITS: Final = [
    {
        "most_causes": causes,
        "most_findings": findings,
        "most_lines": lines,
        "most_metrics": metrics,
        "most_letters": 200,
    }
    for causes, findings, lines, metrics in ((20, 3, 12, 3), (10, 2, 6, 2), (10, 1, 3, 0), (5, 1, 0, 0))
]
"""How much of each the summary shows: the first of these with which it is short enough."""
_LONGEST_MESSAGE: Final = 2_000
_PAGE: Final = {"most_cards": 30, "most_rows": 500}
"""How many causes have a card on the page, and how many more it lists."""
_MOST_AMOUNTS: Final = 6
_MOST_PARTS: Final = 2
_AMOUNT: Final = re.compile(r"(?:^|; )(\d+) ([a-z][a-z ]*?)(?=[,;(]| \(|$)")
_CELLS: Final = {
    "PASS": ("✓", "passed"),
    "FAIL": ("✗", "failed"),
    "KNOWN": ("✗", "known"),
    "MISSED": ("!", "did not catch a planted defect"),
    "UNKNOWN": ("?", "no verdict"),
    "NOT_APPLICABLE": ("–", "not applicable"),
}
"""How the strip of verdicts shows one: its sign and its words."""
_BASELINE: Final = {"new": "new", "expired": "expired", "regressions": "worse", "gone": "gone"}
_HEADLINES: Final = {
    "known": "Passed, apart from known findings: {passed} of {all} checks passed",
    "passed": "{passed} of {all} checks passed",
    "findings": "Not passed: {passed} of {all} checks passed",
    "error": "The lab itself failed; {passed} of {all} checks passed",
    "cancelled": "Interrupted; {passed} of {all} checks passed so far",
}


def publish(run: OpenRun, status: str) -> None:
    """Write the run's frames and its report. `status`, how the run ended, is the headline.

    The count of each verdict, and of the planted registries caught, goes into run.json, for the list of runs.
    """
    read = run.read()
    frames = frames_of(run.run_id, read.results, read.calibrations)
    run.write_frames({**frames, "operations": OperationsFile(run.run_id, read.results)})
    caught = frames["calibrations"]["caught"]
    run.note(
        outcomes={str(word): int(n) for word, n in frames["verdicts"]["verdict"].value_counts().items()},
        calibrated={"planted": len(caught), "caught": int(caught.sum())},
    )
    reasons = {one["fingerprint"]: one["reason"] for one in (run.about.get("baseline") or {}).get("known", ())}
    values = _values(run.about, frames, status, cause_cards(read.results, _typed(run), reasons), _resuming(run))
    run.write(DIGEST, written_digest(digest_of(read, status)).decode())
    page = render("run.html.j2", css=style("style.css"), script=style("table.js"), **_PAGE, **values)
    run.write("index.html", page)
    run.write("summary.md", _summary(values))
    run.write("junit.xml", junit(run.about, values["checks"], values["causes"]))


def _typed(run: OpenRun) -> str:
    """The run as a command names it where it was made: by its path where it is not in the folder that is looked in."""
    home, here = run.folder.parent.resolve(), Path.cwd()
    if home == here / "outputs" or not home.is_relative_to(here):
        return run.run_id
    return shlex.quote(str((home / run.run_id).relative_to(here)))


def _resuming(run: OpenRun) -> str:
    """How to make what the run lacks, by a command that is typed where it was made. A page holds no path of a machine:
    of a folder elsewhere it says which one is meant."""
    home, here = run.folder.parent.resolve(), Path.cwd()
    command = f"registry-lab run --resume {run.run_id}"
    if home == here / "outputs":
        return f"{command} makes what is missing"
    if home.is_relative_to(here):
        return f"{command} --out {shlex.quote(str(home.relative_to(here)))} makes what is missing"
    return f"{command} --out FOLDER makes what is missing, where FOLDER is the folder that this run is in"


def _summary(values: Mapping[str, Any]) -> str:
    """The summary, with as much as there is room for: it is shown beside a change, where long texts are refused."""
    for limits in _LIMITS:
        text = render("summary.md.j2", **values, **limits)
        if len(text.encode()) <= _LONGEST_SUMMARY:
            return text
    # Cut between two lines: elements still open are closed by the page that shows the text.
    kept = text.encode()[: _LONGEST_SUMMARY - 100].decode(errors="ignore")
    return f"{kept[: kept.rfind(chr(10))]}\n\nThe rest is in the report.\n"


def _values(
    about: Mapping[str, Any],
    frames: Mapping[str, pd.DataFrame],
    status: str,
    cards: list[dict[str, Any]],
    resuming: str,
) -> dict[str, Any]:
    """Everything that the templates ask for. `resuming`: how to make what an interrupted run lacks."""
    verdicts, calibrations = (_rows(frames[name]) for name in ("verdicts", "calibrations"))
    looks_like = {row["check"]: row.get("looks_like", "") for row in about["checks"]}
    known = (about.get("baseline") or {}).get("known", [])
    new = {check for card in cards if not card["known"] for check in card["checks"]}
    excused = {one["check"] for one in known} - new
    checks = [
        {**_check(row, calibrations, frames["measurements"], excused), "looks_like": looks_like.get(row["check"], "")}
        for row in verdicts
    ]
    notebooks = about.get("notebooks", {})
    passed = sum(row["verdict"] == "PASS" for row in verdicts)
    beside = sum(row["verdict"] == "NOT_APPLICABLE" for row in verdicts)
    is_known = status == "passed" and bool(known)
    headline = _HEADLINES["known" if is_known else status].format(passed=passed, all=len(verdicts) - beside)
    sentence = _sentence(is_known, checks, cards, known) or headline
    lines = [
        *_extent(cards),
        *([compared] if (compared := _compared(checks)) and not cards else []),
        _calibrated(calibrations),
        *([f"{counted(beside, 'check')} {'does' if beside == 1 else 'do'} not apply to this target"] if beside else []),
        *([f"Only these were asked for: {', '.join(only)}"] if (only := about.get("only_checks")) else []),
        *_cut_off(about, status, resuming),
        *_by_baseline(about),
    ]
    return {
        "about": about,
        "state": "known" if is_known else status,
        "title": headline if sentence == headline else f"{headline}: {sentence}",
        "headline": headline,
        "sentence": sentence,
        "lines": [f"{line.rstrip('.')}." for line in lines],
        "known": known,
        "checks": checks,
        "categories": [_category(category, checks, notebooks) for category in about["catalog"]],
        "causes": cards,
        "figures": _figures(frames),
        "calibrations": calibrations,
        "calibrated_when": _when(calibrations, about),
        "caught": sum(row["caught"] for row in calibrations),
        "notebooks": [_notebook(name, entry, notebooks) for name, entry in about["files"].items()],
        "command": about["command"],
        "parameters": [
            (name, ", ".join(f"{key}={'none' if value == '' else value}" for key, value in values.items()))
            for name, values in about["parameters"].items()
        ],
        **_provenance(about),
    }


def _provenance(about: Mapping[str, Any]) -> dict[str, Any]:
    """Where the run comes from: in a few facts at the top of the page, and in full at its end."""
    made, machine = about["provenance"], about["provenance"]["machine"]
    git = made["git"] or {}
    commit = git.get("commit") or "none"
    tree = ("clean tree" if git["clean"] else "changed tree") if git else "not a clone"
    return {
        "facts": [
            ("target", about["target"]),
            ("profile", about["profile"]),
            ("seed", about["seed"]),
            ("started", moment(about["started_at"])),
            ("lab commit", f"{commit[:12]}, {tree}" if git else tree),
            ("Python", made["python"]),
        ],
        "provenance": [
            ("Python", f"{made['implementation']} {made['python']}"),
            ("system", f"{machine['system']} {machine['release']}"),
            ("processor", f"{machine['processor'] or machine['architecture']}"),
            ("cores", machine["cpus"]),
            ("memory", f"{machine['memory_bytes'] / 2**30:.0f} GiB"),
            ("kernels", about["kernel_mode"]),
            ("lab commit", f"{commit}, {tree}" if git else tree),
        ],
        "packages": [f"{name} {version}" for name, version in made["packages"].items()],
    }


def _sentence(
    is_known: bool, checks: list[dict[str, Any]], cards: list[dict[str, Any]], known: list[dict[str, Any]]
) -> str:
    """The answer in one sentence for people: the worst that is wrong. "" where the count of checks says it all."""
    if is_known:
        return f"Nothing new was found beside {counted(len(known), 'known finding')}."
    if cards:
        return str(cards[0]["effect"])
    if missed := [row["check"] for row in checks if row["missed"]]:
        return f"{counted(len(missed), 'check')} did not catch a planted defect: a pass of it means nothing."
    silent = [row for row in checks if row["verdict"] == "UNKNOWN"]
    return f"{counted(len(silent), 'check')} gave no verdict." if silent else ""


def _extent(cards: list[dict[str, Any]]) -> list[str]:
    """Who is affected and how much was found, over all causes."""
    if not cards:
        return []
    users = {user for card in cards for user in card["users"]}
    found = counted(sum(card["count"] for card in cards), "finding")
    words = [f"{counted(len(users), 'user')} affected"] if users else []
    words.append(f"{found} of {counted(len(cards), 'cause')} in {counted(len({*_checks(cards)}), 'check')}")
    return ["; ".join(words)]


def _checks(cards: list[dict[str, Any]]) -> Iterator[str]:
    return (check for card in cards for check in card["checks"])


def _compared(checks: list[dict[str, Any]]) -> str:
    """The main things that the passing checks have looked at: one line."""
    amounts: dict[str, int] = {}
    for row in checks:
        if row["verdict"] == "PASS":
            for count, what in _AMOUNT.findall(row["reason"]):
                amounts[what] = amounts.get(what, 0) + int(count)
    for held in ("expectations held", "expectation held"):
        amounts.pop(held, None)
    most = sorted(amounts.items(), key=lambda one: -one[1])[:_MOST_AMOUNTS]
    return f"Looked at {', '.join(f'{count:,} {what}' for what, count in most)}" if most else ""


def _calibrated(calibrations: list[dict[str, Any]]) -> str:
    if not calibrations:
        return "No check was calibrated: that each can fail was not shown by this run"
    caught = sum(row["caught"] for row in calibrations)
    return f"{caught} of {len(calibrations)} planted registries were caught, each wrong in one way"


def _cut_off(about: Mapping[str, Any], status: str, resuming: str) -> Iterator[str]:
    """The notebooks that did not end by themselves: the interrupted ones together, the others with their reason."""
    notebooks = about.get("notebooks", {})
    ends = [(one["name"], notebooks[one["name"]]) for one in about["catalog"] if notebooks.get(one["name"])]
    interrupted = [name for name, ended in ends if ended["status"] == "cancelled"]
    if interrupted or status == "cancelled":
        # Of a notebook that was cut off before it came to its first check nothing is recorded.
        yield f"Cut off{': ' if interrupted else ''}{', '.join(interrupted)}; {resuming}"
    for name, ended in ends:
        if ended["status"] not in ("ok", "failed", "cancelled"):
            yield reported(f"{name} ended as {ended['status']}: {ended['message']}", _LONGEST_MESSAGE)


def _by_baseline(about: Mapping[str, Any]) -> list[str]:
    """The judgement of a baseline."""
    baseline = about.get("baseline")
    if not baseline:
        return []
    counts = [f"{len(baseline['known'])} known"]
    counts += [f"{baseline[name]} {word}" for name, word in _BASELINE.items() if baseline[name]]
    return [f"Baseline {baseline['source']}: {', '.join(counts)}"]


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {str(key): printable(value) if isinstance(value, str) else value for key, value in row.items()}
        for row in frame.to_dict("records")
    ]


def _figures(frames: Mapping[str, pd.DataFrame]) -> list[str]:
    """The figures of all checks, those that there is something to draw for."""
    made = (charts.budgets(frames["measurements"]), charts.slopes(frames["samples"], frames["measurements"]))
    return [one.html for one in made if isinstance(one, charts.Chart)]


def _category(
    category: Mapping[str, Any], checks: list[dict[str, Any]], notebooks: Mapping[str, Any]
) -> dict[str, Any]:
    name = category["name"]
    of_category = [row for row in checks if row["category"] == name]
    return {
        "question": category["question"],
        **_notebook(name, category["notebook"], notebooks),
        "name": name,
        "checks": of_category,
        "passed": sum(row["verdict"] == "PASS" for row in of_category),
        "applicable": sum(row["verdict"] != "NOT_APPLICABLE" for row in of_category),
        "planted": sum(len(row["planted"]) for row in of_category),
        "caught": sum(len(row["planted"]) - len(row["missed"]) for row in of_category),
    }


def _when(calibrations: list[dict[str, Any]], about: Mapping[str, Any]) -> str:
    """When and by which runs the calibrations were made, or why there are none: sentences."""
    if not calibrations:
        off = "Calibration was switched off (--calibrate never), so this run is not calibrated."
        return off if about.get("calibrate") == "never" else "No planted registry was run."
    earlier: dict[str, list[str]] = {}
    for one in calibrations:
        if one["made_by"] != about["run_id"]:
            earlier.setdefault(one["made_by"], []).append(one["made_at"])
    kept = sum(map(len, earlier.values()))
    first = ""
    if about["profile"] == DEFAULT_PROFILE and about.get("calibrate") != "all":
        first = (
            "There is one for each anomaly that is planted for a check; --calibrate all runs every one. A defect that "
            "may show by several names stands for all of them: the tables say which was seen. "
        )
    if not kept:
        return f"{first}All of it was done in this run."
    by = [
        f"{moment(max(times))} by {f'run {run}' if run else 'no run'} ({len(times)})" for run, times in earlier.items()
    ]
    return (
        f"{first}{len(calibrations) - kept} were run in this run. {kept} were not run again, because the lab, Python, "
        f"the packages, the profile, the parameters and the seed have not changed since: {'; '.join(by)}."
    )


def _check(
    row: dict[str, Any], calibrations: list[dict[str, Any]], measurements: pd.DataFrame, excused: set[str]
) -> dict[str, Any]:
    planted = [one for one in calibrations if one["check"] == row["check"]]
    missed = [one["planted"] for one in planted if not one["caught"]]
    cell = "KNOWN" if row["verdict"] == "FAIL" and row["check"] in excused else row["verdict"]
    cell = "MISSED" if missed and cell == "PASS" else cell
    mark, word = _CELLS[cell]
    parts = row["reason"].split("; ")
    return {
        **row,
        "notes": row["notes"].splitlines(),
        "planted": planted,
        "missed": missed,
        "cell": cell,
        "mark": mark,
        "word": word,
        "short": "; ".join(parts[:_MOST_PARTS]),
        "rest": "; ".join(parts[_MOST_PARTS:]),
        "seconds": f"{row['duration']:.2f}",
        "amount": counted(row["operations"], "operation"),
        "metrics": _metrics(measurements, row["check"]),
    }


def _notebook(name: str, file: str, notebooks: Mapping[str, Any]) -> dict[str, Any]:
    ended = notebooks.get(name, {})
    began = bool(ended) and ended["seconds"] > 0
    return {
        "notebook": file,
        "page": f"notebooks/{file.removesuffix('.ipynb')}.html" if began else "",
        "ipynb": f"notebooks/{file}",
        "status": ended.get("status", "cancelled"),
        "message": reported(ended.get("message", "not started"), _LONGEST_MESSAGE),
        "seconds": f"{ended.get('seconds', 0.0):.1f}",
    }


def _metrics(measurements: pd.DataFrame, check: str) -> list[dict[str, Any]]:
    """One entry a value, its budgets beside it; those that decide come first."""
    entries: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in _rows(measurements[measurements["check"] == check]):
        budgets = entries.setdefault((row["metric"], quantity(row["value"], row["unit"])), [])
        if row["budget"]:
            words = f"{'asked' if row['budget_source'] == 'asked' else 'lab'} {row['budget']}: {row['verdict']}"
            text = words if row["decides"] else f"{words}, does not decide"
            budgets.append({"text": text, "verdict": row["verdict"] if row["decides"] else ""})
    found = [{"metric": metric, "value": value, "budgets": each} for (metric, value), each in entries.items()]
    return sorted(found, key=lambda entry: not any(budget["verdict"] for budget in entry["budgets"]))
