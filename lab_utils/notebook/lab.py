"""The one object that a category's notebook holds: it calibrates, runs, shows, saves and gates."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Final

from IPython.display import display

from lab_utils.checks import CHECKS
from lab_utils.notebook.finding import FindingView, found_in
from lab_utils.notebook.progress import Live, announce, is_watched, with_progress
from lab_utils.notebook.protects import read_protects
from lab_utils.notebook.views import CalibrationView, CheckView, ResultsView, View, WitnessView, anchor_of, badge, table
from lab_utils.output import frames
from lab_utils.output.store import PARTIAL, Calibration, CategoryResults, load_category, place, save_category
from lab_utils.runner import AnyTarget, calibrations, runner, target_name
from lab_utils.runner.preflight import IS_SLOW
from lab_utils.target import Capability
from lab_utils.targets import PLANTED
from lab_utils.trial import PROTECTS
from lab_utils.values.profiles import CATEGORIES, UsageError, Value, parameters_for, unknown
from lab_utils.values.quantities import counted
from lab_utils.values.result import CheckResult
from lab_utils.values.verdict import FINE, Outcome

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import DisplayHandle

    from lab_utils.notebook.form import Form

__all__ = ["CHECKS_VARIABLE", "RESUME_VARIABLE", "GateFailed", "Lab"]

CHECKS_VARIABLE: Final = "REGISTRY_LAB_CHECKS"
"""The environment variable that names the only checks to run, a comma between two; the cells of others say so."""

RESUME_VARIABLE: Final = "REGISTRY_LAB_RESUME"
"""The environment variable that names an interrupted run, whose results lie in the run's folder and are kept."""


class GateFailed(Exception):
    """A check of the notebook did not pass, or a planted registry was not caught. Shown without its traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"GateFailed: {self}"]


class Lab:
    """The checks of one category with the parameters of one notebook, and their results so far.

    `target` is a name, an import path, or a class or factory, defined in a cell too.

    The parameters are those of the category at the profile, with the ones given here in their place. With `save_to`,
    the folder of a run, each result is kept there as soon as it is found. `protects` names a TOML file with your own
    texts. Raises `UsageError` for an unknown name or a wrong value, before anything runs; `StoreError` as `place`
    does.
    """

    def __init__(
        self,
        category: str,
        *,
        target: AnyTarget = "agent_registry",
        profile: str = "smoke",
        seed: int = 0,
        protects: str = "",
        save_to: str = "",
        **parameters: Value,
    ) -> None:
        self.parameters = parameters_for(category, profile, parameters)
        self.category, self.profile, self.seed = CATEGORIES[category], profile, seed
        self.target = target_name(target)
        self._made_by = target
        self.checks = {name: check for name, check in CHECKS.items() if check.category == category}
        self._asked = _asked() or tuple(self.checks)
        self._protects = read_protects(place(protects), (*CHECKS, *PROTECTS)) if protects else {}
        self._save_to = place(save_to) if save_to else None
        self._results: dict[str, CheckResult] = {}
        self._every: list[CheckResult] = []
        self._calibrations: dict[str, tuple[Calibration, ...]] = {}
        self._capabilities: frozenset[Capability] | None = None
        self._before = self._done_before() if os.environ.get(RESUME_VARIABLE) else {}
        self._top: DisplayHandle | None = None

    def __repr__(self) -> str:
        return f"<Lab {self.category.name} checks={len(self._results)}/{len(self.checks)} target={self.target}>"

    def _repr_html_(self) -> str:
        return self._view()._repr_html_()

    def _view(self) -> View:
        rows = []
        for parameter in self.category.parameters:
            value, usual = self.parameters[parameter.name], parameter.value(self.profile)
            remark = "" if value == usual else f"the profile {self.profile} has {usual}"
            shown = str(value) if isinstance(value, str) else f"{value} {parameter.unit}"
            cells = (parameter.name, shown, parameter.meaning, remark)
            rows.append([escape(cell) for cell in cells])
        asked = sum(name in self._asked for name in self.checks)
        some = f"{asked} of " if asked < len(self.checks) else ""
        what = (
            f"{some}{len(self.checks)} checks on <code>{escape(self.target)}</code>, profile {self.profile}, "
            f"seed {self.seed}"
        )
        parameters = table(("parameter", "value", "meaning", ""), rows)
        return View(f"<p>{what}.</p>{self._so_far()}{parameters}", repr(self))

    def _ipython_display_(self) -> None:
        # What is shown here is renewed after each check, so that the top of the notebook leads to what failed.
        self._top = display(self._view(), display_id=True)  # type: ignore[no-untyped-call]

    def _so_far(self) -> str:
        """The verdicts until now, each that is no pass with a link to its place in the notebook."""
        if not self._results:
            return ""
        links = [
            f"{badge(one.outcome)} {_link(name)}" for name, one in self._results.items() if one.outcome not in FINE
        ]
        passed = sum(one.outcome is Outcome.PASS for one in self._results.values())
        count = f"{len(self._results)} of {len(self._asked_here)} checks ran, {passed} passed."
        return f"<p>{'<br>'.join([count, *links])}</p>"

    @property
    def _asked_here(self) -> list[str]:
        return [name for name in self.checks if name in self._asked]

    # ------------------------------------------------------------------------------------------------------- running

    def calibrate(self, check: str) -> View:
        """Show that the check catches the registries that are planted for it, in the profile smoke one for each
        anomaly: as was found before, where nothing has changed since on which that depends, else by running it now. One
        that is not caught fails the gate.

        A check that does not apply to the target is not calibrated.
        """
        self._known(check)
        if check not in self._asked:
            return self._left_out(check)
        if not self._applies(check):
            return CalibrationView(check, (), f"it does not apply to {self.target}")

        def work(live: Live) -> calibrations.Calibrated:
            return calibrations.calibrated(
                check,
                profile=self.profile,
                seed=self.seed,
                parameters=self.parameters,
                run=self._run_name(),
                on_progress=live.report,
            )

        announce(check, "calibrating")
        made = with_progress(f"calibrating {check}", work)
        found = tuple(
            Calibration(one.name, one.defect, tuple(sorted(one.anomalies)), result, made.made_at, made.made_by)
            for result in made.results
            for one in [PLANTED[result.target]]
        )
        self._calibrations[check] = found
        self._keep(complete=False)
        return CalibrationView(check, found, "calibration is switched off", len(self.checks[check].planted))

    def run(self, check: str, *, seed: int | None = None, **parameters: Value) -> View:
        """Run the check on the target and show its verdict. A check that crashes is UNKNOWN, with its traceback.

        With another seed or other parameters than the notebook's it is an experiment: it is kept beside all earlier
        results, and the notebook saves and gates the last run without them.
        """
        self._known(check)
        if check not in self._asked:
            return self._left_out(check)
        is_experiment = seed is not None or bool(parameters)
        values = parameters_for(self.category.name, self.profile, {**self.parameters, **parameters})

        def work(live: Live) -> CheckResult:
            return self._judged(check, live, self._made_by, self.profile, seed, values, None)

        before = None if is_experiment else self._before.pop(check, None)
        announce(check, "running")
        place = f"{self._asked_here.index(check) + 1} of {len(self._asked_here)}: {check}"
        result = with_progress(place, work) if before is None else before
        remark = next((note for note in result.notes if note.startswith(IS_SLOW)), "")
        announce(check, "ended", result.outcome.value, result.duration_s, remark)
        earlier = sum(len(one.verdict.findings) for one in self._every)
        self._every.append(result)
        if not is_experiment:
            self._results[check] = result
            self._keep(complete=False)
            if self._top is not None:
                self._top.update(self._view())  # type: ignore[no-untyped-call]
        return CheckView(result, "" if is_experiment else anchor_of(check), earlier)

    def attempt(
        self,
        check: str,
        live: Live,
        *,
        target: str,
        profile: str,
        seed: int,
        parameters: Mapping[str, Value],
        cancelled: threading.Event,
    ) -> CheckResult:
        """Run the check as an experiment, on any target: what `form` does, from another thread.

        The result is kept beside all earlier ones. Shows nothing but in `live`. Raises as `run_check` does.
        """
        self._known(check)
        made_by = self._made_by if target == self.target else target
        result = self._judged(check, live, made_by, profile, seed, parameters, cancelled)
        self._every.append(result)
        return result

    def _judged(
        self,
        check: str,
        live: Live,
        target: AnyTarget,
        profile: str,
        seed: int | None,
        parameters: Mapping[str, Value],
        cancelled: threading.Event | None,
    ) -> CheckResult:
        return runner.run_check(
            check,
            target=target,
            profile=profile,
            seed=self.seed if seed is None else seed,
            parameters=parameters,
            protects=self._protects.get(check) or self._protects.get(CHECKS[check].protects, ""),
            on_progress=live.report,
            on_look=live.look if is_watched() else None,
            cancelled=cancelled,
            log=self._save_to / "logs" / f"{check}.log" if self._save_to else None,
        )

    def _done_before(self) -> dict[str, CheckResult]:
        """The results of the interrupted run that this one goes on with."""
        found = load_category(self._save_to, self.category.name) if self._save_to else None
        asked = (self.target, self.profile, self.seed, self.parameters)
        return {
            one.check: one
            for one in (found.results if found else ())
            if (one.target, one.profile, one.seed, dict(one.parameters)) == asked
        }

    def _known(self, check: str) -> None:
        if check not in self.checks:
            raise UsageError(f"{unknown('check', check, tuple(self.checks))} (category {self.category.name})")

    def _left_out(self, check: str) -> View:
        text = f"{check}: not run, as only {', '.join(self._asked)} was asked for."
        return View(f"<p>{escape(text)}</p>", text)

    def _applies(self, check: str) -> bool:
        if self._capabilities is None:
            self._capabilities = runner.capabilities_of(self._made_by)
        return not CHECKS[check].lacking(self._capabilities)

    def _run_name(self) -> str:
        return self._save_to.name.removesuffix(PARTIAL) if self._save_to else ""

    # ------------------------------------------------------------------------------------------------------- showing

    def verdicts(self) -> pd.DataFrame:
        """One row a check that ran: its verdict, why, and how long it took."""
        _unabridged()
        shown = frames.verdicts("", self._results.values()).round({"duration": 2})
        return shown[["check", "verdict", "reason", "findings", "duration"]]

    def measurements(self, check: str = "") -> pd.DataFrame:
        """One row a measurement and budget, of one check or of all."""
        _unabridged()
        shown = frames.measurements("", self._of(check))
        return shown[["check", "metric", "value", "unit", "budget", "budget_source", "decides", "verdict"]]

    def measured(self, check: str = "") -> pd.DataFrame:
        """The measurements with every column of their frame, as figures are drawn from them."""
        return frames.measurements("", self._of(check))

    def findings(self) -> pd.DataFrame:
        """One row a finding of every run of a check in this notebook, experiments too; `key` is for `finding`."""
        _unabridged()
        shown = frames.findings("", self._every)
        return shown[["key", "check", "anomaly", "sentence", "witness", "fingerprint", "cause"]]

    def finding(self, key: str) -> FindingView:
        """The finding of that key, `F1` for the first, to be looked into and run again."""
        return found_in(self._every, key, self._made_by)

    def runs(self) -> pd.DataFrame:
        """One row a run of a check in this notebook, in order: its seed, the parameters that are not the notebook's,
        and its verdict."""
        import pandas as pd

        rows = [
            (
                result.check,
                result.seed,
                ", ".join(
                    f"{name}={value}" for name, value in result.parameters.items() if value != self.parameters.get(name)
                ),
                result.outcome.value,
                len(result.verdict.findings),
                result.duration_s,
            )
            for result in self._every
        ]
        return pd.DataFrame(rows, columns=["check", "seed", "parameters", "verdict", "findings", "seconds"])

    def results(self) -> ResultsView:
        """Every run of a check in this notebook, experiments too, as a table that sorts and filters."""
        return ResultsView(self._every, self.parameters)

    def form(self) -> Form | View:
        """A form that runs checks of this category on any target, with any sizes. Its results are experiments.

        papermill shows a sentence in its place, a run's page nothing, and a kernel without ipywidgets the remedy.
        """
        from lab_utils.notebook.form import make_form

        return make_form(self)

    def operations(self, check: str = "") -> pd.DataFrame:
        """One row an operation, of one check or of all."""
        _unabridged()
        return frames.operations("", self._of(check))

    def samples(self, check: str = "") -> pd.DataFrame:
        """One row a sample, of one check or of all."""
        _unabridged()
        return frames.samples("", self._of(check))

    def witness(self, planted: str) -> View:
        """Show the whole witness with which a planted registry was caught; for a race, the least interleaving."""
        caught = {one.planted: one for found in self._calibrations.values() for one in found}
        if planted in caught:
            return WitnessView(caught[planted])
        here = {name: check.name for check in self.checks.values() for name in check.planted}
        if planted not in here:
            raise UsageError(f"{unknown('planted registry', planted, tuple(here))} (category {self.category.name})")
        text = (
            f"{planted}: no check of this notebook was calibrated on it, so there is no witness; "
            f"registry-lab check {here[planted]} --target {planted} shows one."
        )
        return View(f"<p>{escape(text)}</p>", text)

    def _of(self, check: str) -> list[CheckResult]:
        if check and check not in self.checks:
            raise UsageError(f"{unknown('check', check, tuple(self.checks))} (category {self.category.name})")
        return [result for name, result in self._results.items() if check in ("", name)]

    # -------------------------------------------------------------------------------------------------------- ending

    def save(self) -> View:
        """Keep everything in the run's folder, for good; without one, say how to get a versioned report."""
        if not self._save_to:
            text = (
                "Kept in this notebook only. `registry-lab run` leaves a versioned report with frames; or set `save_to`"
                " to a folder."
            )
            return View(f"<p>{escape(text)}</p>", text)
        path = self._keep(complete=True)
        kinds = ("measurement", "operation", "sample")
        counts = {kind: sum(len(getattr(result, f"{kind}s")) for result in self._results.values()) for kind in kinds}
        amounts = ", ".join(counted(count, kind) for kind, count in {"verdict": len(self._results), **counts}.items())
        where = f"Saved in run {self._run_name()} as results/{path.name}"
        text = f"{where}: {amounts}. The run's frames/ has them as Parquet."
        return View(f"<p>{escape(text)}</p>", text)

    def _keep(self, *, complete: bool) -> Path:
        calibrated = tuple(one for found in self._calibrations.values() for one in found)
        found = CategoryResults(self.category.name, complete, tuple(self._results.values()), calibrated)
        return save_category(self._save_to, found) if self._save_to else Path()

    def problems(self) -> list[str]:
        """The reasons that keep this notebook from passing, one sentence each."""
        return [problem for _, problem in self._problems()]

    def _problems(self) -> Iterator[tuple[str, str]]:
        """The check, and what is wrong with it."""
        for name in self._asked_here:
            if name not in self._results:
                yield name, f"{name} was not run"
            elif (outcome := self._results[name].outcome) not in FINE:
                # Each result shows for itself what was left out of it.
                reason, _, _ = self._results[name].verdict.reason.partition("; left out: ")
                yield name, f"{name} is {outcome}: {reason}"
            if not self._calibrations.get(name) and self._is_calibrated(name):
                yield name, f"{name} was not calibrated"
            for one in self._calibrations.get(name, ()):
                if not one.caught:
                    yield name, f"{name} did not catch {one.planted}"

    def _is_calibrated(self, check: str) -> bool:
        """Whether the check was to be calibrated: it applies to the target, and calibration was not switched off."""
        does_apply = check in self._results and self._results[check].outcome is not Outcome.NOT_APPLICABLE
        return does_apply and calibrations.calibration_mode() != "never"

    def gate(self, fail_on_findings: bool) -> View:
        """Show whether every check passed and every planted registry was caught, with links to those that did not.

        Raises `GateFailed` where not, if `fail_on_findings`: so a notebook run headless ends as failed.
        """
        problems = self.problems()
        if problems:
            lines = "".join(
                f"<li>{_link(name)}{escape(problem.removeprefix(name))}</li>" for name, problem in self._problems()
            )
            shown = View(f"<p><strong>This notebook did not pass:</strong></p><ul>{lines}</ul>", "\n".join(problems))
            if not fail_on_findings:
                return shown
            display(shown)  # type: ignore[no-untyped-call]
            raise GateFailed("; ".join(problems))
        passed = sum(result.outcome is Outcome.PASS for result in self._results.values())
        others = len(self._results) - passed
        planted = sum(len(found) for found in self._calibrations.values())
        beside = f" Not applicable to this target: {others}." if others else ""
        caught = f"all {planted} planted registries were caught" if planted else "none was calibrated"
        left_out = sum(name not in self._asked for name in self.checks)
        beside += f" Not run, as only others were asked for: {left_out}." if left_out else ""
        text = f"{counted(passed, 'check')} passed, and {caught}.{beside}"
        return View(f"<p><strong>{text}</strong></p>", text)


def _link(check: str) -> str:
    return f'<a href="#{anchor_of(check)}">{escape(check)}</a>'


def _asked() -> tuple[str, ...]:
    names = tuple(filter(None, os.environ.get(CHECKS_VARIABLE, "").split(",")))
    for name in names:
        if name not in CHECKS:
            raise UsageError(f"{unknown('check', name, CHECKS)} (from ${CHECKS_VARIABLE})")
    return names


def _unabridged() -> None:
    # Here and not above: pandas is 40,000 objects, and every count of live objects would pass over them.
    import pandas as pd

    # Reasons and witnesses are sentences; pandas would cut them at 50 characters.
    pd.set_option("display.max_colwidth", None, "display.max_rows", 200)
