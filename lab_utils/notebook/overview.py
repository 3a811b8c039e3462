"""A finished run, opened in a notebook."""

from __future__ import annotations

from collections import Counter
from html import escape
from pathlib import Path

import pandas as pd

from lab_utils.notebook.finding import FindingView, NoFinding, found_in
from lab_utils.notebook.views import FindingsView, View, badge, table
from lab_utils.output import frames
from lab_utils.output.store import LATEST, Calibration, Run, StoreError, find_run, place, read_run
from lab_utils.values.quantities import quantity

__all__ = ["FinishedRun", "finished", "open_finding", "open_run"]


def open_run(run: str = LATEST) -> FinishedRun:
    """Open a run by the path of its folder, or by its name below `outputs/`; `latest` is the last finished one.

    `outputs` is looked for here and in the two folders above, where it is as seen from `notebooks/` and from the
    copies that `registry-lab lab` makes.
    """
    return FinishedRun(finished(run))


def finished(run: str) -> Run:
    """Read the run that `open_run` opens."""
    if ((folder := place(run)) / "run.json").is_file():
        return read_run(folder)
    places = [place for place in (Path("outputs"), Path("../outputs"), Path("../../outputs")) if place.is_dir()]
    if not places:
        raise StoreError("there is no outputs folder here; run `registry-lab run`, or give the path of a run's folder")
    return read_run(find_run(places[0], run))


def open_finding(run: str, key: str) -> FindingView | NoFinding:
    """Open a finding of a run by its key, `F1` for the first. Without a run it is none, which shows that in its place.

    Raises `StoreError` for an unknown run, and `UsageError` for an unknown key.
    """
    return open_run(run).finding(key) if run else NoFinding()


class FinishedRun:
    """One run and its frames."""

    def __init__(self, run: Run) -> None:
        self._run = run
        pd.set_option("display.max_colwidth", None, "display.max_rows", 200)

    def __repr__(self) -> str:
        return f"<FinishedRun {self._run.run_id} checks={len(self._run.results)}>"

    def _repr_html_(self) -> str:
        about = self._run.about
        counts = Counter(str(result.outcome) for result in self._run.results)
        words = " ".join(f"{badge(word)}&nbsp;{count}" for word, count in counts.items())
        caught = sum(one.caught for one in self._run.calibrations)
        git = about["provenance"]["git"]
        tree = {True: "clean tree", False: "changed tree", None: "tree unknown"}[git["clean"] if git else None]
        rows = [
            ("run", self._run.run_id),
            ("target", about["target"]),
            ("profile, seed", f"{about['profile']}, {about['seed']}"),
            ("planted registries caught", f"{caught} of {len(self._run.calibrations)}"),
            ("lab commit", f"{git['commit'] if git and git['commit'] else 'none'} ({tree})"),
            ("Python", about["provenance"]["python"]),
        ]
        cells = [[escape(name), escape(str(value))] for name, value in rows]
        return View(f"<p>{words}</p>{table(('', ''), cells)}", "")._repr_html_()

    def verdicts(self) -> pd.DataFrame:
        """One row a check."""
        shown = frames.verdicts(self._run.run_id, self._run.results).round({"duration": 2})
        return shown[["check", "verdict", "reason", "duration"]]

    def measurements(self, budget_source: str = "") -> pd.DataFrame:
        """One row a measurement and budget, in words; of one source, `asked` or `lab`, or all. The frame on disk has
        the numbers."""
        shown = frames.measurements(self._run.run_id, self._run.results)
        words = [quantity(value, unit) for value, unit in zip(shown["value"], shown["unit"], strict=True)]
        shown = shown.assign(measured=words)
        kept = shown[shown["budget_source"] == budget_source] if budget_source else shown
        return kept.reset_index()[["check", "metric", "measured", "budget", "budget_source", "decides", "verdict"]]

    def measured(self) -> pd.DataFrame:
        """The measurements with every column of their frame, as figures are drawn from them."""
        return frames.measurements(self._run.run_id, self._run.results)

    def findings(self) -> pd.DataFrame:
        """One row a finding."""
        shown = frames.findings(self._run.run_id, self._run.results)
        return shown[["key", "check", "anomaly", "sentence", "witness", "fingerprint", "cause"]]

    def finding(self, key: str) -> FindingView:
        """The finding of that key, as `F1`, to be looked into and run again."""
        return found_in(self._run.results, key)

    def evidence(self) -> View:
        """The findings, the first few of each anomaly of each check, with the whole witness of each."""
        return FindingsView(self._run.results)

    def calibrations(self) -> pd.DataFrame:
        """One row a planted registry."""
        shown = frames.calibrations(self._run.run_id, self._run.calibrations)
        return shown[["check", "planted", "defect", "caught", "anomalies"]]

    def calibrated(self) -> pd.DataFrame:
        """One row a check: how many registries were planted for it, how many it caught, and the names of the others."""
        rows = []
        for result in self._run.results:
            planted = [one for one in self._run.calibrations if one.result.check == result.check]
            missed = [one.planted for one in planted if not one.caught]
            rows.append((result.check, len(planted), len(planted) - len(missed), ", ".join(missed)))
        return pd.DataFrame(rows, columns=["check", "planted", "caught", "missed"])

    @property
    def run_id(self) -> str:
        """The name of the run."""
        return self._run.run_id

    def calibrated_results(self) -> list[Calibration]:
        """The findings of each check on each registry planted for it."""
        return list(self._run.calibrations)

    def operations(self) -> pd.DataFrame:
        """One row an operation."""
        return frames.operations(self._run.run_id, self._run.results)

    def samples(self) -> pd.DataFrame:
        """One row a sample."""
        return frames.samples(self._run.run_id, self._run.results)
