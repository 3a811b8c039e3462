"""The report of one run: its frames as Parquet, one page, one Markdown summary, one JUnit file."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from lab_utils.output import charts
from lab_utils.output.frames import OperationsFile, frames_of, quantity
from lab_utils.output.pages.templating import moment, printable, render, style
from lab_utils.output.store import OpenRun
from lab_utils.values.texts import reported

__all__ = ["publish"]

_MOST_ALIKE: Final = 3
_LONGEST_MESSAGE: Final = 2_000
_REPLAY: Final = "replay: registry-lab replay "
_HEADLINES: Final = {
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
    values = _values(run.about, frames, status)
    run.write("index.html", render("run.html.j2", title=values["headline"], css=style("style.css"), **values))
    run.write("summary.md", render("summary.md.j2", **values))
    run.write("junit.xml", _junit(frames, run.about))


def _values(about: Mapping[str, Any], frames: Mapping[str, pd.DataFrame], status: str) -> dict[str, Any]:
    """Everything that the templates ask for."""
    verdicts, findings, calibrations = (_rows(frames[name]) for name in ("verdicts", "findings", "calibrations"))
    looks_like = {row["check"]: row["looks_like"] for row in about["checks"]}
    checks = [
        {**_check(row, calibrations, frames["measurements"]), "looks_like": looks_like.get(row["check"], "")}
        for row in verdicts
    ]
    notebooks = about.get("notebooks", {})
    passed = sum(row["verdict"] == "PASS" for row in verdicts)
    caught = sum(row["caught"] for row in calibrations)
    made = about["provenance"]
    git = made["git"] or {}
    commit = git.get("commit") or "none"
    tree = ("clean tree" if git["clean"] else "changed tree") if git else "not a clone"
    lines = [f"{caught} of {len(calibrations)} planted registries were caught"]
    beside = sum(row["verdict"] == "NOT_APPLICABLE" for row in verdicts)
    lines += [f"{beside} not applicable to this target"] if beside else []
    lines += [f"only these were asked for: {', '.join(only)}"] if (only := about.get("only_checks")) else []
    lines += [
        reported(f"{category['name']} ended as {ended['status']}: {ended['message']}", _LONGEST_MESSAGE)
        for category in about["catalog"]
        if (ended := notebooks.get(category["name"])) and ended["status"] not in ("ok", "failed")
    ]
    return {
        "about": about,
        "state": status,
        "headline": _HEADLINES[status].format(passed=passed, all=len(verdicts) - beside),
        "lines": lines,
        "facts": [
            ("target", about["target"]),
            ("profile", about["profile"]),
            ("seed", about["seed"]),
            ("started", moment(about["started_at"])),
            ("lab commit", f"{commit[:12]}, {tree}"),
            ("Python", made["python"]),
        ],
        "checks": checks,
        "categories": [_category(category, checks, notebooks) for category in about["catalog"]],
        "findings": [{**one, "picture": _picture(one["sentence"], one["witness"])} for one in _alike(findings)],
        "figures": _figures(frames),
        "calibrations": calibrations,
        "calibrated_when": _when(calibrations, about),
        "caught": caught,
        "notebooks": [_notebook(name, entry, notebooks) for name, entry in about["files"].items()],
        "command": about["command"],
        "parameters": [
            (name, ", ".join(f"{key}={'none' if value == '' else value}" for key, value in values.items()))
            for name, values in about["parameters"].items()
        ],
        "provenance": [
            ("Python", f"{made['implementation']} {made['python']}"),
            ("system", f"{made['machine']['system']} {made['machine']['release']}"),
            ("processor", f"{made['machine']['processor'] or made['machine']['architecture']}"),
            ("cores", made["machine"]["cpus"]),
            ("memory", f"{made['machine']['memory_bytes'] / 2**30:.0f} GiB"),
            ("kernels", about["kernel_mode"]),
            ("lab commit", f"{commit}, {tree}"),
        ],
        "packages": [f"{name} {version}" for name, version in made["packages"].items()],
    }


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {str(key): printable(value) if isinstance(value, str) else value for key, value in row.items()}
        for row in frame.to_dict("records")
    ]


def _alike(findings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A few of each anomaly of each check, those that can be replayed first; the last says how many more there are."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for finding in findings:
        groups.setdefault((finding["check"], finding["anomaly"]), []).append(finding)
    shown = []
    for group in groups.values():
        group.sort(key=lambda finding: _REPLAY not in finding["witness"])
        shown += [{**finding, "more": 0} for finding in group[:_MOST_ALIKE]]
        shown[-1]["more"] = max(len(group) - _MOST_ALIKE, 0)
    return shown


def _picture(sentence: str, witness: str) -> str:
    drawn = charts.picture(sentence, witness)
    return drawn.html if drawn else ""


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
    if not kept:
        return "All of it was done in this run."
    by = [
        f"{moment(max(times))} by {f'run {run}' if run else 'no run'} ({len(times)})" for run, times in earlier.items()
    ]
    return (
        f"{len(calibrations) - kept} were run in this run. {kept} were not run again, because the lab, Python, the "
        f"packages, the profile, the parameters and the seed have not changed since: {'; '.join(by)}."
    )


def _check(row: dict[str, Any], calibrations: list[dict[str, Any]], measurements: pd.DataFrame) -> dict[str, Any]:
    planted = [one for one in calibrations if one["check"] == row["check"]]
    return {
        **row,
        "notes": row["notes"].splitlines(),
        "planted": planted,
        "missed": [one["planted"] for one in planted if not one["caught"]],
        "amount": f"{row['operations']:,} operations, {row['duration']:.2f} s",
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
    """One entry a value, its budgets beside it; those with a budget first, as they decide."""
    entries: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in _rows(measurements[measurements["check"] == check]):
        budgets = entries.setdefault((row["metric"], quantity(row["value"], row["unit"])), [])
        if row["budget"]:
            words = f"{'asked' if row['budget_source'] == 'asked' else 'lab'} {row['budget']}: {row['verdict']}"
            text = words if row["decides"] else f"{words}, does not decide"
            budgets.append({"text": text, "verdict": row["verdict"] if row["decides"] else ""})
    found = [{"metric": metric, "value": value, "budgets": each} for (metric, value), each in entries.items()]
    return sorted(found, key=lambda entry: not entry["budgets"])


def _junit(frames: Mapping[str, pd.DataFrame], about: Mapping[str, Any]) -> str:
    """One test case a check: FAIL or a planted defect missed is a failure, UNKNOWN an error, NOT_APPLICABLE skipped."""
    suites = ET.Element("testsuites", name="agent-registry-lab")
    verdicts, findings, planted = (_rows(frames[name]) for name in ("verdicts", "findings", "calibrations"))
    for category in about["catalog"]:
        suite = ET.SubElement(suites, "testsuite", name=category["name"], timestamp=about["started_at"])
        for row in verdicts:
            if row["category"] == category["name"]:
                case = _case(suite, category["name"], row["check"], row["duration"])
                tag = {"FAIL": "failure", "UNKNOWN": "error", "NOT_APPLICABLE": "skipped"}.get(row["verdict"])
                if tag:
                    told = [
                        f"{one['anomaly']}: {one['sentence']}\n{one['witness']}"
                        for one in findings
                        if one["check"] == row["check"]
                    ]
                    text = "\n\n".join([*told, row["traceback"]]).strip()
                    ET.SubElement(case, tag, message=row["reason"]).text = text or None
                for one in planted:
                    if one["check"] == row["check"] and not one["caught"]:
                        message = f"calibration: {one['planted']} was not caught ({one['defect']})"
                        ET.SubElement(case, "failure", message=message).text = one["reason"]
        for name, tag in (("tests", ""), ("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            suite.set(name, str(sum(not tag or case.find(tag) is not None for case in suite)))
    ET.indent(suites)
    return f"{ET.tostring(suites, encoding='unicode', xml_declaration=True)}\n"


def _case(suite: ET.Element, category: str, name: str, seconds: float) -> ET.Element:
    return ET.SubElement(suite, "testcase", classname=f"registry_lab.{category}", name=name, time=f"{seconds:.3f}")
