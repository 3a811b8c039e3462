"""Runs that earlier versions of the lab wrote stay readable, comparable, and can be replayed and sent.

`earlier_runs/` holds one run of each format, written by the version of its day: of 22 November (whole JSON), and three of
28 November (an operation a line; calibrations with their date; witnesses escaped).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from lab_utils.cli import main
from lab_utils.judges.comparison import Change, compare
from lab_utils.judges.identity import identified
from lab_utils.notebook import open_run
from lab_utils.output import pages
from lab_utils.output.frames import load
from lab_utils.output.pages.bundle import bundle
from lab_utils.output.store import CategoryResults, Store, read_run, save_category, summaries
from lab_utils.output.store.digests import digest_of
from lab_utils.runner.again import read_token
from lab_utils.values.verdict import Finding, Verdict
from tests.lab_utils.made import CATEGORY, about, calibration, failed, op, result

EARLIER = Path(__file__).parent / "earlier_runs"
RUNS = sorted(EARLIER.iterdir())


@pytest.fixture(scope="module")
def now(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, written by this version."""
    one, two = (op(index, action="get_or_create", value=value) for index, value in ((3, "#1"), (4, "#2")))
    finding = Finding("double-activation", "ada/triage in thread 'main' answered as #1 and as #2", (str(one), str(two)))
    results = (
        result("first"),
        result("second", failed(finding), operations=(op(0), one, two)),
        result("third", Verdict.unknown("nothing was exercised")),
    )
    run = Store(tmp_path_factory.mktemp("now")).begin(about("first", "second", "third"))
    save_category(run.folder, CategoryResults(CATEGORY, True, results, (calibration("first"),)))
    pages.publish(run, "findings")
    return run.finish("findings", pages.runs_page)


def test_there_is_one_of_each_format() -> None:
    assert len(RUNS) == 4
    assert [one.state for one in summaries(EARLIER)] == ["findings"] * 4


@pytest.mark.parametrize("folder", RUNS, ids=lambda path: path.name)
def test_an_earlier_run_reads_and_its_findings_are_known_again(folder: Path, now: Path) -> None:
    run = read_run(folder)
    assert [one.outcome.value for one in run.results] == ["PASS", "FAIL", "UNKNOWN"]
    (old,), (new,) = identified(run.results), identified(read_run(now).results)
    assert (old.fingerprint, old.operations, old.users) == (new.fingerprint, new.operations, new.users)
    assert open_run(str(folder)).finding("F1").operations()["index"].tolist() == [3, 4]
    assert read_token(open_run(str(folder)).finding("F1").token).anomaly == "double-activation"


@pytest.mark.parametrize("folder", RUNS, ids=lambda path: path.name)
def test_an_earlier_run_is_compared_with_one_of_today(
    folder: Path, now: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = compare(digest_of(read_run(folder)), digest_of(read_run(now)))
    assert [change.change for change in made.findings] == [Change.STILL]
    assert (made.why_not, len(made.measured)) == ("", 9)
    assert main(["compare", str(folder), str(now)]) == 0
    out = capsys.readouterr().out
    assert "not worse" in out
    assert "findings still there: 1" in out
    assert "9 compared, 0 changed beyond noise" in out


@pytest.mark.parametrize("folder", RUNS, ids=lambda path: path.name)
def test_the_frames_of_an_earlier_run_load_and_it_can_be_sent(folder: Path) -> None:
    frames = load(folder / "frames")
    assert frames["findings"]["anomaly"].tolist() == ["double-activation"]
    assert frames["findings"]["key"].tolist() == [""]
    assert frames["involved"].empty
    assert "data.html" in bundle(folder).page
