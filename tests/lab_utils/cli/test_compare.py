"""Two runs compared from the command line, a history and a baseline made of runs, and old runs removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from lab_utils.cli import main
from lab_utils.cli.baseline import read_baseline
from lab_utils.cli.plan import Setting
from lab_utils.judges.baseline import Baseline
from lab_utils.output import pages
from lab_utils.output.store import CategoryResults, Store, read_run, save_category, summaries
from lab_utils.output.store.digests import digest_of
from lab_utils.output.store.grids import GridFolder
from lab_utils.output.store.history import open_history
from lab_utils.values.result import CheckResult
from lab_utils.values.verdict import Finding
from tests.lab_utils.made import CATEGORY, HOSTILE, MEASURED, about, failed, result

LEAK = Finding("cross-user-data", "bo was given data of ada", ("w",))


def made(outputs: Path, *results: CheckResult, status: str = "passed", **fields: str) -> str:
    run = Store(outputs).begin({**about(*[one.check for one in results]), **fields})
    save_category(run.folder, CategoryResults(CATEGORY, True, tuple(results), ()))
    run.finish(status, pages.runs_page)
    return run.run_id


def said(words: Sequence[str], outputs: Path, code: int, capsys: pytest.CaptureFixture[str]) -> str:
    assert main([*words, "--out", str(outputs)]) == code
    return capsys.readouterr().out


def test_what_changed_is_said_and_written_as_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grown = (replace(MEASURED[0], value=30.0), replace(MEASURED[1], value=30.0), *MEASURED[2:])
    one = made(tmp_path, result(), result("second", failed(LEAK)))
    two = made(tmp_path, result(measurements=grown), result("second", failed(Finding("lost-event", HOSTILE, ("w",)))))
    page = tmp_path / "page.html"
    out = said(["compare", one, "latest", "--html", str(page)], tmp_path, 1, capsys)
    assert (
        "findings new: 1\n  Clients never received some of their events. (F1, lost-event in second, 0 -> 1 times)"
        in out
    )
    assert (
        "findings fixed: 1\n  One user received data of another user. (cross-user-data in second, 1 -> 0 times)" in out
    )
    assert out.endswith(f"worse: 1 new finding, 1 regression\npage: {page}\n")
    assert "worse: growth of first: 0.42 MB -> 30 MB, x 71.4 (counted exactly)" in out
    text = page.read_text()
    assert "Worse: 1 new finding, 1 regression, 1 finding fixed" in text
    assert "New: Clients never received some of their events." in text
    assert "<script>alert" not in text
    assert two in text
    assert "://" not in text
    back = said(["compare", two, one], tmp_path, 1, capsys)
    assert "findings new: 1\n  One user received data of another user." in back


def test_a_run_that_is_not_there_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = made(tmp_path, result())
    assert main(["compare", one, "nothing", "--out", str(tmp_path), "--history", str(tmp_path / "h")]) == 2
    assert (
        f"there is {one}; name one elsewhere by the path of its folder; nor in the history" in capsys.readouterr().err
    )


def test_a_run_of_a_history_is_compared_where_its_folder_is_gone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    history = str(tmp_path / "h")
    one = made(tmp_path / "there", result())
    assert f"added {one}-" in said(["history", history, "--add", "latest"], tmp_path / "there", 0, capsys)
    two = made(tmp_path / "here", result("first", failed(LEAK)))
    out = said(["compare", one, two, "--history", history], tmp_path / "here", 1, capsys)
    assert "findings new: 1" in out
    shown = said(["history", history, "--keep", "1"], tmp_path, 0, capsys)
    assert f"{one}  passed: 1 PASS; 0 findings" in shown
    assert open_history(history).runs()[0].run_id == one


def test_the_latest_baseline_is_a_run_of_the_same_target_and_profile_and_of_most_checks(tmp_path: Path) -> None:
    history = open_history(str(tmp_path / "h"))
    both, one = (result("first", failed(LEAK)), result("second")), (result("second"),)

    def latest(outputs: str = "here", target: str = "mine") -> Baseline:
        like = cast(Setting, SimpleNamespace(target=target, profile="smoke"))
        checks = ("first", "second")
        return read_baseline("latest", tmp_path / outputs, history, like=like, checks=checks)

    made(tmp_path / "here", *both, target="other")
    made(tmp_path / "here", *both, target="mine", profile="standard")
    made(tmp_path / "here", *both, target="mine", status="error")
    assert latest() == Baseline("latest (no earlier run of mine, profile smoke)", {})
    whole = made(tmp_path / "here", *both, target="mine")
    # A later run of one check knows nothing of the others.
    made(tmp_path / "here", *one, target="mine")
    (found,) = latest().known.values()
    assert found.reason == f"already in run {whole}"
    made(tmp_path / "there", *both, target="mine", status="error")
    for name in ("here", "there"):
        for run in summaries(tmp_path / name):
            assert run.path is not None
            history.add(digest_of(read_run(run.path)))
    assert latest("nowhere").source == f"run {whole}"
    assert latest("nowhere", "another").known == {}


def test_pruning_keeps_the_newest_and_those_under_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    running = Store(tmp_path).begin(about())
    grids = [
        GridFolder.begin(tmp_path, {"target": "t", "profile": "p", "command": "c", "axes": [], "repeats": 1})
        for _ in range(2)
    ]
    grids[0].end("passed")
    (grids[0].folder / "runs" / "0001").mkdir(parents=True)
    names = [made(tmp_path, result()) for _ in range(3)]
    (tmp_path / "mine").mkdir()
    assert "would remove" in said(["prune", "--keep", "2", "--dry-run"], tmp_path, 0, capsys)
    assert len(summaries(tmp_path)) == 6
    assert "2 removed, 2 newest kept" in said(["prune", "--keep", "2"], tmp_path, 0, capsys)
    assert {one.run_id for one in summaries(tmp_path)} == {*names[1:], running.run_id, grids[1].grid_id}
    assert (tmp_path / "mine").is_dir()
    assert not {names[0], grids[0].grid_id} & {path.name for path in tmp_path.iterdir()}
    assert names[0] not in (tmp_path / "index.html").read_text()
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".removed")]
    said(["prune", "--keep", "0"], tmp_path, 2, capsys)
