"""The planted registries as a notebook shows them: which check caught which, and by which witness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import pandas as pd

from lab_utils.checks import CHECKS
from lab_utils.notebook.overview import open_run
from lab_utils.notebook.progress import Live, with_progress
from lab_utils.notebook.views import GalleryView, View, badge, table
from lab_utils.output import frames
from lab_utils.output.store import LATEST, Calibration
from lab_utils.runner import runner
from lab_utils.targets import PLANTED
from lab_utils.values.profiles import DEFAULT_PROFILE, UsageError, unknown
from lab_utils.values.verdict import Outcome

__all__ = ["PAIRS", "Gallery"]

PAIRS: Final = ("calibrated", "all")


class Gallery:
    """Every planted registry, and the checks' findings on it.

    `pairs` is "calibrated" (the findings of the run `run`: each check on the registries planted for it; nothing is run
    here) or "all" (every check on every planted registry, run now; of `checks` and `planted` alone, where given).
    Raises `UsageError` for an unknown name, and `StoreError` where there is no run.
    """

    def __init__(
        self,
        *,
        run: str = LATEST,
        pairs: str = "calibrated",
        profile: str = DEFAULT_PROFILE,
        seed: int = runner.DEFAULT_SEED,
        checks: Sequence[str] = (),
        planted: Sequence[str] = (),
    ) -> None:
        if pairs not in PAIRS:
            raise UsageError(unknown("pairs", pairs, PAIRS))
        for name in checks:
            if name not in CHECKS:
                raise UsageError(unknown("check", name, CHECKS))
        for name in planted:
            if name not in PLANTED:
                raise UsageError(unknown("planted registry", name, PLANTED))
        self._which = run
        if pairs == "all":
            self._which = f"{profile}, seed {seed}"
            self._found = _run_all(checks or tuple(CHECKS), planted or tuple(PLANTED), profile, seed)
        else:
            opened = open_run(run)
            self._which = opened.run_id
            self._found = opened.calibrated_results()
        # A run calibrates its checks on the defects planted for them, and on nothing else.
        self._is_own = [pairs != "all" or one.planted in CHECKS[one.result.check].planted for one in self._found]

    @property
    def _own(self) -> list[Calibration]:
        return [one for one, is_own in zip(self._found, self._is_own, strict=True) if is_own]

    def calibrations(self) -> pd.DataFrame:
        """The frame `calibrations`, one row a run of a check on a planted registry, with a column `own`: whether it
        was planted for that check."""
        return frames.calibrations(self._which, self._found).assign(own=self._is_own)

    def witnesses(self) -> pd.DataFrame:
        """One row a planted registry and check: the defect, the anomaly that was named, and the first witness."""
        shown = frames.calibrations(self._which, self._own)
        shown["witness"] = shown["witness"].str.split("\n").str[0]
        return shown[["planted", "defect", "check", "caught", "expected", "sentence", "witness"]]

    def missed(self) -> pd.DataFrame:
        """The rows of `witnesses` whose registry was not caught by its name."""
        shown = self.witnesses()
        return shown[~shown["caught"]].reset_index(drop=True)

    def by_anomaly(self) -> pd.DataFrame:
        """One row an anomaly: how many registries were planted with it, and how many of them were caught by every
        check that they were planted for."""
        shown = frames.calibrations(self._which, self._own)
        each = shown.groupby(["expected", "planted"], as_index=False)["caught"].all()
        grouped = each.groupby("expected").agg(planted=("planted", "size"), caught=("caught", "sum"))
        return grouped.reset_index().rename(columns={"expected": "anomaly"})

    def by_check(self) -> View:
        """Each check with the defects planted for it, to be unfolded: the defect, the finding, the first of the
        evidence. Checks that missed something are open."""
        return GalleryView(self._own)

    def __repr__(self) -> str:
        own = self._own
        planted, caught = len({one.planted for one in own}), sum(one.caught for one in own)
        return f"<Gallery {self._which} planted={planted} pairs={len(own)} caught={caught}>"

    def _repr_html_(self) -> str:
        own = self._own
        caught = sum(one.caught for one in own)
        word = badge("CAUGHT" if caught == len(own) else "NOT CAUGHT")
        pairs = f"{word} {caught} of {len(own)} pairs of a check and a registry"
        rows = [
            ["from", self._which],
            ["planted registries", str(len({one.planted for one in own}))],
            ["checks", str(len({one.result.check for one in self._found}))],
            ["caught under their own name", pairs if own else "no check ran on a planted registry"],
        ]
        if len(self._found) > len(own):
            others = [one for one, is_own in zip(self._found, self._is_own, strict=True) if not is_own]
            found = sum(one.result.outcome is Outcome.FAIL for one in others)
            rows.append(["found by a check that was not made for it", f"{found} of {len(others)} other pairs"])
        return View(table(("", ""), rows), repr(self))._repr_html_()


def _run_all(checks: Sequence[str], planted: Sequence[str], profile: str, seed: int) -> list[Calibration]:
    def work(live: Live) -> list[Calibration]:
        found = []
        for number, name in enumerate(planted):
            for place, check in enumerate(checks):
                live.report(f"{name}, {check}", (number + place / len(checks)) / len(planted))
                found.append(_run_one(check, name, profile, seed))
        return found

    return with_progress("the gallery", work)


def _run_one(check: str, name: str, profile: str, seed: int) -> Calibration:
    result = runner.run_check(check, target=name, profile=profile, seed=seed)
    one = PLANTED[name]
    return Calibration(name, one.defect, tuple(sorted(one.anomalies)), replace(result, operations=(), samples=()))
