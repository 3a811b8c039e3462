"""A notebook's one object: its pages, its results and its gate, with checks that answer at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab_utils.notebook import FinishedRun, GateFailed, Lab, lab, open_run, overview
from lab_utils.notebook.progress import with_progress
from lab_utils.notebook.views import CalibrationView, CheckView, FindingsView, ResultsView, View
from lab_utils.output.store import Calibration, StoreError
from lab_utils.output.store.results import load_category
from lab_utils.runner import calibrations, runner
from lab_utils.runner.calibrations import Calibrated
from lab_utils.target import Capability
from lab_utils.targets import Planted
from lab_utils.targets.reference import ReferenceTarget
from lab_utils.trial import Check
from lab_utils.values.profiles import UsageError
from lab_utils.values.result import CheckResult
from lab_utils.values.verdict import Finding, Verdict
from tests.lab_utils.made import CATEGORY, HOSTILE, calibration, failed, finished, result


async def nothing(_: object) -> None: ...


CHECKS = {
    name: Check(name, CATEGORY, f"{name} holds", "data", "looks bad", nothing, ("SharedDispatcher",))
    for name in ("first", "second")
}
PLANTED = {
    "SharedDispatcher": Planted("SharedDispatcher", "one for all", frozenset({"shared-object"}), ReferenceTarget, "x")
}


class Answers:
    """Stands where the runner is: it gives the set answers, and keeps its requests."""

    def __init__(self) -> None:
        self.verdicts: dict[str, Verdict] = {}
        self.caught = True
        self.asked: list[Mapping[str, Any]] = []

    def run_check(self, name: str, **asked: Any) -> CheckResult:
        self.asked.append({"name": name, **asked})
        asked["on_progress"]("step", 0.5)
        return result(name, self.verdicts.get(name), protects=asked["protects"] or "usual")

    def calibrated(self, name: str, **asked: Any) -> Calibrated:
        self.asked.append({"name": name, **asked})
        result = replace(calibration(name, caught=self.caught).result, target="SharedDispatcher")
        return Calibrated((result,), "2026-01-02T03:04:05+00:00", "earlier")


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    made = Answers()
    monkeypatch.setattr(runner, "run_check", made.run_check)
    monkeypatch.setattr(calibrations, "calibrated", made.calibrated)
    monkeypatch.setattr(lab, "CHECKS", CHECKS)
    monkeypatch.setattr(lab, "PLANTED", PLANTED)
    return made


def everything(made: Lab) -> Lab:
    for check in CHECKS:
        made.calibrate(check)
        made.run(check)
    return made


def test_a_lab_where_all_is_well_passes_its_gate(answers: Answers) -> None:
    made = everything(Lab(CATEGORY))
    assert made.problems() == []
    assert "2 checks passed, and all 2 planted registries" in repr(made.gate(fail_on_findings=True))
    assert made.verdicts()["verdict"].tolist() == ["PASS", "PASS"]


def test_the_runner_is_asked_with_the_notebooks_own_parameters(answers: Answers) -> None:
    Lab(CATEGORY, target="reference", profile="standard", seed=3, users=50).run("first")
    (asked,) = answers.asked
    assert asked["parameters"] == {"users": 50, "agents_per_user": 10, "cycles": 10, "patience": 30}
    assert (asked["target"], asked["profile"], asked["seed"], asked["protects"]) == ("reference", "standard", 3, "")


def test_checks_that_were_not_asked_for_are_left_out_and_no_problem(
    answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(lab.CHECKS_VARIABLE, "second")
    made = everything(Lab(CATEGORY))
    assert {asked["name"] for asked in answers.asked} == {"second"}
    for shown in (made.run("first"), made.calibrate("first")):
        assert repr(shown) == "first: not run, as only second was asked for."
        assert "only second was asked for" in shown._repr_html_()
    assert "1 of 2 checks" in made._repr_html_()
    assert made.operations("first").empty
    assert made.verdicts()["check"].tolist() == ["second"]
    assert repr(made.gate(fail_on_findings=True)) == (
        "1 check passed, and all 1 planted registries were caught. Not run, as only others were asked for: 1."
    )
    answers.verdicts["second"] = failed()
    made.run("second")
    with pytest.raises(GateFailed, match="second is FAIL"):
        made.gate(fail_on_findings=True)


def test_what_failed_is_linked_from_the_top_and_from_the_gate(
    answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []

    class Display:
        def __init__(self, view: View, **_: object) -> None:
            self.update(view)

        def update(self, view: View) -> None:
            shown.append(view._repr_html_())

    monkeypatch.setattr(lab, "display", Display)
    answers.verdicts["second"] = failed()
    made = Lab(CATEGORY)
    made._ipython_display_()
    link = 'href="#check-second"'
    assert link not in shown[0]
    assert link in everything(made).gate(fail_on_findings=False)._repr_html_()
    assert link in shown[-1]
    assert "2 of 2 checks ran, 1 passed" in shown[-1]
    assert 'id="check-second"' in made.run("second")._repr_html_()
    before = len(shown)
    assert 'id="check-second"' not in made.run("second", users=3)._repr_html_()
    assert len(shown) == before
    with pytest.raises(GateFailed):
        made.gate(fail_on_findings=True)
    assert link in shown[-1]


def test_an_unknown_check_that_is_asked_for_is_said_at_once(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(lab.CHECKS_VARIABLE, "secnd")
    with pytest.raises(UsageError, match="did you mean 'second'"):
        Lab(CATEGORY)


def test_a_planted_registry_that_was_not_run_has_no_witness_and_ends_nothing(answers: Answers) -> None:
    shown = repr(Lab(CATEGORY).witness("SharedDispatcher"))
    assert "no check of this notebook was calibrated on it" in shown
    assert re.search("registry-lab check (first|second) --target SharedDispatcher shows one", shown)


def not_run(made: Lab) -> None:
    made.calibrate("second")


def not_calibrated(made: Lab) -> None:
    made.run("second")


@pytest.mark.parametrize(
    ("second", "words"),
    [(not_run, "second was not run"), (not_calibrated, "second was not calibrated"), (lambda made: None, "second was")],
)
def test_silence_fails_the_gate(answers: Answers, second: Callable[[Lab], None], words: str) -> None:
    made = Lab(CATEGORY)
    made.calibrate("first")
    made.run("first")
    second(made)
    assert words in repr(made.gate(fail_on_findings=False))
    with pytest.raises(GateFailed, match=words):
        made.gate(fail_on_findings=True)


@pytest.mark.parametrize("verdict", [failed(), Verdict.unknown("nothing was exercised")])
def test_a_finding_and_an_unknown_fail_the_gate(answers: Answers, verdict: Verdict) -> None:
    answers.verdicts["second"] = verdict
    with pytest.raises(GateFailed, match=f"second is {verdict.outcome}"):
        everything(Lab(CATEGORY)).gate(fail_on_findings=True)


def test_a_calibration_on_fewer_than_all_says_so(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "There is one for each anomaly" not in repr(Lab(CATEGORY).calibrate("first"))
    more = replace(CHECKS["first"], planted=("SharedDispatcher", "CaseFoldedKeys"))
    monkeypatch.setattr(lab, "CHECKS", {"first": more})
    assert "There is one for each anomaly; --calibrate all runs all 2." in repr(Lab(CATEGORY).calibrate("first"))


def test_a_planted_registry_that_was_not_caught_is_marked_and_fails_the_gate(answers: Answers) -> None:
    answers.caught = False
    made = Lab(CATEGORY)
    view = made.calibrate("first")
    assert "NOT CAUGHT: SharedDispatcher" in repr(view)
    assert "NOT CAUGHT" in view._repr_html_()
    assert "planted was shared-object" in view._repr_html_()
    with pytest.raises(GateFailed, match="first did not catch SharedDispatcher"):
        everything(made).gate(fail_on_findings=True)


def test_a_check_that_does_not_apply_is_neither_passed_nor_a_problem(answers: Answers) -> None:
    answers.verdicts["second"] = Verdict.not_applicable("no threads")
    shown = repr(everything(Lab(CATEGORY)).gate(fail_on_findings=True))
    assert "1 check passed" in shown
    assert "Not applicable to this target: 1." in shown


def test_a_failure_shows_its_witness_and_escapes_it(answers: Answers) -> None:
    answers.verdicts["first"] = failed(Finding("canary-leak", HOSTILE, (HOSTILE, "op 9")))
    view = Lab(CATEGORY).run("first")
    html = view._repr_html_()
    assert "FAIL" in html
    assert "op 9" in html
    assert "<script>" not in html
    assert "canary-leak" in view._repr_markdown_()
    for text in ("0.42 MB", "&lt; 50 MB: PASS", "&lt; 0.5 MB: PASS", "does not decide"):
        assert text in html


def test_the_whole_witness_of_a_planted_registry_is_shown(answers: Answers) -> None:
    made = everything(Lab(CATEGORY))
    view = made.witness("SharedDispatcher")
    for shown in (view._repr_html_(), repr(view)):
        assert "shared-object" in shown
        assert "ada.tools\nbo.tools" in shown
    with pytest.raises(UsageError, match="did you mean 'SharedDispatcher'"):
        made.witness("SharedDispacher")
    answers.caught = False
    assert "NOT CAUGHT" in repr(everything(Lab(CATEGORY)).witness("SharedDispatcher"))


def test_an_anomaly_is_not_hidden_by_many_of_another(answers: Answers) -> None:
    many = [Finding("leak", f"number {n}", ("w",)) for n in range(40)]
    answers.verdicts["first"] = failed(*many, Finding("race", "the other one", ("w",)))
    shown = Lab(CATEGORY).run("first")._repr_html_()
    assert "number 0" in shown
    assert "the other one" in shown
    assert "number 3" in shown
    assert "number 4" not in shown
    assert "and 36 more findings" in shown


def test_a_crash_shows_its_traceback(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    crashed = result("first", Verdict.unknown("the check crashed"), traceback="Traceback: boom")
    monkeypatch.setattr(runner, "run_check", lambda name, **_: crashed)
    assert "Traceback: boom" in Lab(CATEGORY).run("first")._repr_html_()


def test_frames_are_of_one_check_or_of_all(answers: Answers) -> None:
    made = everything(Lab(CATEGORY))
    assert set(made.measurements()["check"]) == {"first", "second"}
    assert set(made.operations("second")["check"]) == {"second"}
    assert len(made.samples("first")) == 1
    assert made.findings().empty
    with pytest.raises(UsageError, match="did you mean 'second'"):
        made.operations("secnd")


@pytest.mark.parametrize(
    ("category", "given", "words"),
    [
        ("user_isolatoin", {}, "did you mean 'user_isolation'"),
        (CATEGORY, {"user": 3}, "did you mean 'users'"),
        (CATEGORY, {"users": "3"}, "is of type str"),
        (CATEGORY, {"users": 1}, "below 2"),
        (CATEGORY, {"profile": "smok"}, "did you mean 'smoke'"),
    ],
)
def test_wrong_names_and_values_are_said_at_once(
    answers: Answers, category: str, given: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        Lab(category, **given)
    assert answers.asked == []


def test_a_check_of_another_category_is_refused(answers: Answers) -> None:
    with pytest.raises(UsageError, match="first"):
        Lab(CATEGORY).run("frst")
    assert answers.asked == []


def test_parameters_beside_the_profile_are_marked(answers: Answers) -> None:
    shown = Lab(CATEGORY, profile="standard", users=8)._repr_html_()
    assert "the profile standard has 20" in shown
    assert "the profile standard has 10" not in shown


def test_own_texts_stand_beside_the_verdict(answers: Answers, tmp_path: Path) -> None:
    texts = tmp_path / "own.toml"
    texts.write_text('second = "the Zürich contract"\ndata = "our customers"')
    made = Lab(CATEGORY, protects=str(texts))
    assert "the Zürich contract" in made.run("second")._repr_html_()
    assert "our customers" in made.run("first")._repr_html_()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("frist = 'x'", "did you mean 'first'"),
        ("first = 3", "give it a text"),
        ("first", "not TOML"),
        (None, "cannot read"),
    ],
)
def test_own_texts_that_are_none_are_refused(answers: Answers, tmp_path: Path, text: str | None, words: str) -> None:
    if text is not None:
        (tmp_path / "own.toml").write_text(text)
    with pytest.raises(UsageError, match=words):
        Lab(CATEGORY, protects=str(tmp_path / "own.toml"))


def test_results_are_kept_as_soon_as_they_are_found(answers: Answers, tmp_path: Path) -> None:
    made = Lab(CATEGORY, save_to=str(tmp_path))
    made.calibrate("first")
    made.run("first")
    early = load_category(tmp_path, CATEGORY)
    assert early is not None
    assert (early.complete, len(early.results), len(early.calibrations)) == (False, 1, 1)
    assert "results/user_isolation.json: 1 verdict," in repr(made.save())
    late = load_category(tmp_path, CATEGORY)
    assert late is not None
    assert late.complete


def test_a_kept_notebook_that_is_run_again_by_hand_says_that_its_run_is_over(
    answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REGISTRY_LAB_RUN", raising=False)
    with pytest.raises(StoreError, match="name a folder, or leave it as it was"):
        Lab(CATEGORY, save_to="$REGISTRY_LAB_RUN")
    with pytest.raises(StoreError, match="name a folder, or leave it as it was"):
        Lab(CATEGORY, protects="$REGISTRY_LAB_RUN/protects.toml")
    (tmp_path / "protects.toml").write_text("data = 'ours'")
    monkeypatch.setenv("REGISTRY_LAB_RUN", str(tmp_path))
    made = Lab(CATEGORY, save_to="$REGISTRY_LAB_RUN", protects="$REGISTRY_LAB_RUN/protects.toml")
    made.run("first")
    assert f"run {tmp_path.name} as results/" in repr(made.save())
    assert load_category(tmp_path, CATEGORY) is not None


def test_a_check_that_is_run_again_is_kept_once(answers: Answers) -> None:
    made = Lab(CATEGORY)
    made.run("first")
    answers.verdicts["first"] = failed()
    made.run("first")
    assert made.verdicts()["verdict"].tolist() == ["FAIL"]


def test_nothing_is_written_unless_it_was_asked(
    answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "registry-lab run" in repr(everything(Lab(CATEGORY)).save())
    assert list(tmp_path.iterdir()) == []


def test_the_gate_fails_without_a_page_of_traceback() -> None:
    assert GateFailed("second is UNKNOWN")._render_traceback_() == ["GateFailed: second is UNKNOWN"]


def test_a_check_that_does_not_apply_is_not_calibrated(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    needy = Check("first", CATEGORY, "holds", "data", "bad", nothing, ("SharedDispatcher",), frozenset(Capability))
    monkeypatch.setitem(CHECKS, "first", needy)
    answers.verdicts["first"] = Verdict.not_applicable("no threads")
    made = Lab(CATEGORY, target="reference")
    assert "NOT CALIBRATED: first: it does not apply to reference" in repr(made.calibrate("first"))
    assert answers.asked == []
    made.run("first")
    made.calibrate("second")
    made.run("second")
    assert made.problems() == []


def test_a_run_that_was_told_not_to_calibrate_says_so_and_is_not_called_calibrated(
    answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(calibrations.MODE_VARIABLE, "never")
    monkeypatch.setattr(calibrations, "calibrated", lambda check, **_: Calibrated((), "", ""))
    made = everything(Lab(CATEGORY))
    assert "calibration is switched off" in repr(made.calibrate("first"))
    assert "none was calibrated" in repr(made.gate(fail_on_findings=True))


def test_a_calibration_says_when_and_by_which_run_it_was_made(answers: Answers) -> None:
    assert "Seen 2026-01-02 03:04:05 UTC by run earlier." in repr(Lab(CATEGORY).calibrate("first"))


def test_every_run_is_a_row_of_a_table_with_the_keys_of_its_findings(answers: Answers) -> None:
    made = Lab(CATEGORY)
    assert repr(made.results()) == "No check has run yet."
    assert "<script" not in made.results()._repr_html_()
    answers.verdicts["second"] = failed(*failed().findings, *failed().findings)
    made.run("second")
    made.run("first")
    made.run("second", users=3)
    shown = repr(made.results())
    assert shown.count("| FAIL |") == 2
    assert ("F1 to F2" in shown, "F3 to F4" in shown) == (True, True)
    assert made.finding("F3").check == "second"
    page = ResultsView([result(HOSTILE, failed(), target=HOSTILE)], {})._repr_html_()
    assert HOSTILE not in page


def test_outside_a_kernel_progress_shows_nothing_and_hides_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert with_progress("title", lambda live: live.report("step", 0.5)) is None
    with pytest.raises(ZeroDivisionError):
        with_progress("title", lambda live: 1 / 0)
    assert capsys.readouterr().out == ""


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return finished(tmp_path / "outputs", result(), result("second", failed()), calibrations=(calibration(),))


def test_a_finished_run_is_opened_by_its_name_its_path_or_as_the_last(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "a" / "b" / "c"
    elsewhere.mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "outputs" / "lab").mkdir()
    for here in (tmp_path, tmp_path / "notebooks", tmp_path / "outputs" / "lab"):
        monkeypatch.chdir(here)
        for name in ("latest", kept.name, str(kept)):
            assert kept.name in repr(open_run(name))
    monkeypatch.chdir(kept)
    monkeypatch.setenv("REGISTRY_LAB_RUN", str(kept))
    assert kept.name in repr(open_run("$REGISTRY_LAB_RUN"))
    monkeypatch.chdir(elsewhere)
    with pytest.raises(StoreError, match="no outputs folder"):
        open_run()


def test_a_finished_run_shows_what_was_kept(kept: Path) -> None:
    run: FinishedRun = overview.open_run(str(kept))
    assert run.verdicts()["verdict"].tolist() == ["PASS", "FAIL"]
    asked = run.measurements("asked")
    assert set(asked["budget_source"]) == {"asked"}
    assert asked[["metric", "measured", "budget", "decides"]].values.tolist()[:2] == [
        ["growth", "0.42 MB", "< 50 MB", True],
        ["rss", "70 MB", "< 50 MB", False],
    ]
    assert len(run.findings()) == 1
    assert "op 3: write ada -&gt; ok &#x27;ada/1&#x27;" in run.evidence()._repr_html_()
    assert run.calibrations()["caught"].tolist() == [True]
    assert run.calibrated().values.tolist() == [["first", 1, 1, ""], ["second", 0, 0, ""]]
    assert len(run.operations()) == 4
    assert len(run.samples()) == 2
    shown = run._repr_html_()
    assert "1 of 1" in shown
    assert "changed tree" in shown


def test_the_evidence_has_the_first_of_each_anomaly_whole_and_counts_the_others() -> None:
    alike = [Finding("leak", f"number {n}.", (f"seen {n}", "twice")) for n in range(5)]
    found = failed(*alike, Finding("race", "the other one", ("w",)))
    view = FindingsView([result("clean"), result("a_check_of_many", found)])
    for text in (view._repr_html_(), repr(view)):
        assert [f"number {n}." in text for n in range(5)] == [True, True, True, False, False]
        assert "and 2 more leak" in text
        assert "the other one" in text
        assert "twice" in text
        assert "clean" not in text
    assert "a_<wbr>check_<wbr>of_<wbr>many" in view._repr_html_()
    assert "Nothing was found." in FindingsView([result("clean")])._repr_html_()


def test_a_check_shows_how_to_look_into_each_finding_and_folds_up_those_alike() -> None:
    found = failed(Finding("leak", "one", ("w1",)), Finding("leak", "two", ("w2",)), Finding("race", "three", ("w3",)))
    html = CheckView(result("second", found), earlier=4)._repr_html_()
    assert re.findall(r'lab\.finding\("(F\d)"\)', html) == ["F5", "F7", "F6"]
    (folded,) = re.findall(r"<details>(.*?)</details>", html)
    assert [word in folded for word in ("w1", "w2", "w3")] == [False, True, False]


def test_a_witness_too_long_for_a_table_is_cut_and_said_once() -> None:
    long = Finding("leak", "x" * 300, ("x" * 300,))
    one = Calibration("SharedDispatcher", "one for all", ("leak",), result("first", failed(long)))
    html = CalibrationView("first", [one])._repr_html_()
    assert f"{'x' * 240}… (300 characters)" in html
    assert html.count("xxx…") == 1
    assert "x" * 241 not in html
    assert "Shared<wbr>Dispatcher" in html
