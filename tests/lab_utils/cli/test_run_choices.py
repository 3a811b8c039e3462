"""A run after an earlier one: known findings pass, failed checks are run again, shares are joined, work is kept."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lab_utils.batch import Ended, Status
from lab_utils.cli import main
from lab_utils.cli.choosing import share_of
from lab_utils.notebook import Lab
from lab_utils.notebook.lab import RESUME_VARIABLE
from lab_utils.output.store import CategoryResults, Store, find_run, read_run, save_category, summaries
from lab_utils.output.store.history import open_history
from lab_utils.runner import runner
from lab_utils.values.profiles import UsageError
from lab_utils.values.result import CheckResult
from lab_utils.values.verdict import Finding, Verdict
from tests.lab_utils.cli.notebooks import NAMES, Notebooks
from tests.lab_utils.made import CATEGORY, about, failed, result

LEAK = Finding("cross-user-data", "bo was given data of ada", ("w",))
OTHER = Finding("lost-event", "a client never received an event", ("w",))


def run(*words: str) -> int:
    return main(["run", CATEGORY, *words])


def finding(notebooks: Notebooks, *findings: Finding) -> None:
    """The last check finds these, and its notebook's gate fails."""
    verdict = failed(*findings) if findings else None
    notebooks.results = [result(name, verdict if name == NAMES[-1] else None) for name in NAMES]
    notebooks.ended = Ended(Status.FAILED, 1.0, "gate") if findings else Ended(Status.OK, 1.0)


# ------------------------------------------------------------------------------------------------------------- baseline


def test_a_known_finding_passes_and_is_listed_and_a_new_one_does_not(
    notebooks: Notebooks, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finding(notebooks, LEAK)
    assert run() == 1
    assert run("--baseline", "latest") == 0
    out = capsys.readouterr().out
    assert f"known: cross-user-data in {NAMES[-1]}, 1 finding: already in run" in out
    assert "passed, except for known findings" in out
    latest = find_run(tmp_path / "outputs")
    assert "already in run" in (latest / "index.html").read_text()
    assert json.loads((latest / "run.json").read_text())["status"] == "passed"
    finding(notebooks, LEAK, OTHER)
    assert run("--baseline", "latest") == 1
    assert f"NEW lost-event in {NAMES[-1]}" in capsys.readouterr().out


def test_a_file_of_known_findings_passes_until_its_last_day(
    notebooks: Notebooks, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finding(notebooks, LEAK)
    assert run() == 1
    today = datetime.now(UTC).date()
    for expires, code in ((today + timedelta(1), 0), (today - timedelta(2), 1)):
        words = ["--reason", "ticket 7", "--expires", str(expires)]
        assert main(["baseline", "latest", str(tmp_path / "known.toml"), *words]) == 0
        assert run("--baseline", str(tmp_path / "known.toml")) == code
    assert main(["baseline", "latest", str(tmp_path / "known.toml"), "--reason", "r", "--expires", "2030-02-31"]) == 2
    out = capsys.readouterr().out
    assert "1 known finding of" in out
    assert "ticket 7, until" in out
    assert f"EXPIRED cross-user-data in {NAMES[-1]}: known until" in out


def test_a_baseline_excuses_no_unknown_and_no_missed_calibration(notebooks: Notebooks) -> None:
    finding(notebooks, LEAK)
    assert run() == 1
    notebooks.results[0] = result(NAMES[0], Verdict.unknown("nothing was exercised"))
    assert run("--baseline", "latest") == 1
    finding(notebooks, LEAK)
    notebooks.caught = False
    assert run("--baseline", "latest") == 1


def test_a_history_is_written_and_is_a_baseline_where_the_runs_are_gone(
    notebooks: Notebooks, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finding(notebooks, LEAK)
    history = str(tmp_path / "history")
    assert run("--history", history, "--out", str(tmp_path / "one")) == 1
    (kept,) = open_history(history).runs()
    assert (kept.status, sum(len(check.found) for check in kept.checks)) == ("findings", 1)
    assert run("--history", history, "--baseline", "latest", "--out", str(tmp_path / "two")) == 0
    assert len(open_history(history).runs()) == 2


def test_a_baseline_that_is_not_there_is_wrong_usage_before_anything_runs(
    notebooks: Notebooks, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--baseline", "nothing") == 2
    assert "no file 'nothing', and no run 'nothing'" in capsys.readouterr().err
    assert notebooks.jobs == []


# ------------------------------------------------------------------------------------------------- failed, shares, merge


def test_what_failed_is_run_again_with_the_same_setting(notebooks: Notebooks, tmp_path: Path) -> None:
    finding(notebooks, LEAK)
    assert run("--seed", "9", "--param", "users=3", "--target", "reference") == 1
    finding(notebooks)
    notebooks.results = [result(NAMES[-1])]
    assert main(["run", "--failed-from", "latest"]) == 0
    again = read_run(find_run(tmp_path / "outputs")).about
    assert (again.get("only_checks"), again["target"], again["seed"]) == ([NAMES[-1]], "reference", 9)
    assert again["parameters"][CATEGORY]["users"] == 3
    assert main(["run", "--failed-from", "latest"]) == 2


@pytest.mark.parametrize("shares", [1, 2, 3, 5])
def test_all_shares_are_all_checks_each_once(shares: int) -> None:
    names = [f"check {number}" for number in range(7)]
    every = [name for share in range(1, shares + 1) for name in share_of(f"{share}/{shares}", names)]
    assert sorted(every) == names


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/-1", "8/8"])
def test_a_share_that_is_none_is_wrong_usage(text: str) -> None:
    with pytest.raises(UsageError, match="--shard"):
        share_of(text, ["check"] * 7)


def test_shares_are_joined_into_one_run(
    notebooks: Notebooks, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    every = {name: result(name, failed(LEAK) if name == NAMES[-1] else None) for name in NAMES}
    folders = []
    for number in (1, 2):
        notebooks.results = [every[name] for name in share_of(f"{number}/2", NAMES)]
        notebooks.caught = True
        calibrate = "all" if number == 1 else "changed"
        run("--shard", f"{number}/2", "--calibrate", calibrate, "--out", str(tmp_path / f"machine{number}"))
        folders.append(str(find_run(tmp_path / f"machine{number}")))
    assert main(["merge", folders[0]]) == 2
    assert "shares are missing: 2/2" in capsys.readouterr().err
    assert main(["merge", *reversed(folders), folders[0]]) == 1
    merged = read_run(find_run(tmp_path / "outputs"))
    assert [one.check for one in merged.results] == NAMES
    assert merged.about.get("only_checks") == []
    # Not every planted registry was run.
    assert merged.about.get("calibrate") == "changed"
    assert len(merged.about.get("merged_from", [])) == 2
    assert len({one.result.check for one in merged.calibrations}) == len(NAMES)
    assert "findings" in [one.state for one in summaries(tmp_path / "outputs")]


def test_runs_that_differ_are_not_joined(notebooks: Notebooks, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--seed", "1", "--out", "one") == 0
    assert run("--seed", "2", "--out", "two") == 0
    assert main(["merge", "one/latest", "two/latest"]) == 2
    assert "differ in seed: 1 and 2" in capsys.readouterr().err


# ----------------------------------------------------------------------------------------------------------------- resume


@pytest.mark.parametrize("name", ["", "latest"])
def test_an_interrupted_run_goes_on_with_what_it_has(
    name: str, notebooks: Notebooks, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--seed", "8") == 0
    opened = Store(tmp_path / "outputs").begin(
        {**about(*NAMES), "seed": 9, "target": "reference", "calibrate": "never"}
    )
    save_category(opened.folder, CategoryResults(CATEGORY, False, (result(NAMES[0], seed=9, target="reference"),), ()))
    opened.abandon("cancelled", lambda runs: "")
    seen: list[int] = []
    folder = tmp_path / "outputs"
    notebooks.meanwhile = lambda: seen.extend(
        len(json.loads(path.read_text())["results"]) for path in folder.glob("*.partial/results/*.json")
    )
    assert main(["run", "--resume", name or opened.run_id, "--seed", "9"]) == 0
    assert f"taken over from {opened.run_id}" in capsys.readouterr().out
    assert seen[:2] == [1, 1]
    again = read_run(find_run(folder)).about
    assert (again.get("resumed_from"), again["seed"], again["target"]) == (opened.run_id, 9, "reference")
    assert again["calibrate"] == "never"
    assert main(["run", "--resume", opened.run_id, "--target", "reference"]) == 2
    assert main(["run", "--resume", "latest"]) == 2
    assert f"{again['run_id']}, the newest run in outputs, was not interrupted" in capsys.readouterr().err


def test_a_run_of_another_lab_is_not_gone_on_with(
    notebooks: Notebooks, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = Store(tmp_path / "outputs").begin(
        {**about(*NAMES), "target": "reference", "lab": "agent-registry-lab 0.1 (code 0)"}
    )
    opened.abandon("cancelled", lambda runs: "")
    assert main(["run", "--resume", opened.run_id]) == 2
    assert f"{opened.run_id} is of agent-registry-lab 0.1 (code 0), this is agent-registry-lab " in (
        capsys.readouterr().err
    )


def test_a_notebook_that_goes_on_runs_only_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def run_check(name: str, **_: object) -> CheckResult:
        asked.append(name)
        return result(name)

    monkeypatch.setattr(runner, "run_check", run_check)
    monkeypatch.setenv(RESUME_VARIABLE, "r0")
    save_category(tmp_path, CategoryResults(CATEGORY, False, (result(NAMES[0]), result(NAMES[1], seed=8)), ()))
    made = Lab(CATEGORY, seed=7, save_to=str(tmp_path))
    for name in NAMES:
        made.run(name)
    assert asked == NAMES[1:]
    made.run(NAMES[0])
    assert asked == [*NAMES[1:], NAMES[0]]
