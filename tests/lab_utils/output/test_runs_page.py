"""The list of runs shows how each measurement went, and marks a change once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from lab_utils.cli import main
from lab_utils.output import pages
from lab_utils.output.store import CategoryResults, Store, Summary, save_category, summaries
from lab_utils.output.store.history import open_history
from lab_utils.values.digest import CheckDigest, Digest, MeasuredDigest
from lab_utils.values.result import Measurement
from lab_utils.values.verdict import Outcome
from tests.lab_utils.made import CATEGORY, about, record, result


def digest(number: int, *values: MeasuredDigest, **fields: object) -> Digest:
    at = f"2026-01-{number:02d}T03:04:05+00:00"
    check = CheckDigest("first", CATEGORY, Outcome.PASS, "r", 1.0, (), values)
    made = Digest(
        1, f"r{number}", "passed", at, 75.0, "mine:T", "smoke", 7, f"c0ffee{number:02d}", "3.11.4", "L", {}, (check,)
    )
    return msgspec.structs.replace(made, **fields)


def grown(value: float) -> MeasuredDigest:
    return MeasuredDigest("growth", value, "bytes", "<=", 500_000.0, "lab", decides=True)


def test_a_step_is_marked_once_where_it_happened() -> None:
    courses = [10_000, 10_100, 9_900, 10_000, 40_000, 40_100, 39_900, 40_000]
    runs = [digest(day, grown(value), MeasuredDigest("agents", 12, "agents")) for day, value in enumerate(courses, 1)]
    html = pages.trends_page(reversed(runs))
    changed, steady = html.split('<details class="kept">')
    assert "mine:T, smoke, Python 3.11: 8 runs since 2026-01-01 03:04:05 UTC" in html
    assert '<span class="badge FAIL">worse</span>' in changed
    assert "10.05 kB → 40 kB at c0ffee05, 2026-01-05" in changed or "10 kB → 40 kB at c0ffee05, 2026-01-05" in changed
    assert changed.count('fill="var(--fail)"') == 1
    assert "8 runs, 9.9 kB to 40.1 kB, marked changes: 1" in changed
    assert "agents" in steady
    assert "var(--fail)" not in steady.split("@media")[0].split("<script>")[0]
    assert html.index("r8<") < html.index("r1<")
    assert "1 min 15 s" in html


def test_runs_that_cannot_be_compared_and_a_single_one_have_no_course() -> None:
    runs = [digest(1, grown(1)), digest(2, grown(2), profile="stress"), digest(3, grown(None), python="3.12.1")]  # type: ignore[arg-type]
    assert "<svg" not in pages.trends_page(runs)
    unknown = [digest(1, grown(1)), digest(2, MeasuredDigest("growth", None, "bytes"))]
    assert "<svg" not in pages.trends_page(unknown)


def test_the_list_of_an_outputs_folder_reads_what_its_runs_have_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    began = datetime(2026, 1, 2, tzinfo=UTC)
    for day, growth in enumerate((10.0, 10.0, 30.0)):
        run = Store(tmp_path, now=lambda day=day: began + timedelta(days=day)).begin(about("first"))  # type: ignore[misc]
        found = result("first", measurements=(Measurement("size", growth * 1e6, "bytes"),))
        save_category(run.folder, CategoryResults(CATEGORY, True, (found,), ()))
        pages.publish(run, "passed")
        run.finish("passed", pages.runs_page)
    html = (tmp_path / "index.html").read_text()
    assert "10 MB → 30 MB at 0123456789, 2026-01-04" in html
    assert html.count('class="spark"') == 1
    newest = summaries(tmp_path)[0]
    (tmp_path / newest.folder / "digest.json").write_text("{")
    assert newest.digest is None
    assert "10 MB → 30 MB" not in pages.runs_page(summaries(tmp_path))

    history = tmp_path / "history"
    for run_of in summaries(tmp_path)[1:]:
        assert run_of.digest is not None
        open_history(str(history)).add(run_of.digest)
    assert main(["history", str(history), "--html", str(tmp_path / "h.html")]) == 0
    assert "2 runs since 2026-01-02" in (tmp_path / "h.html").read_text()
    assert "page: " in capsys.readouterr().out


def test_a_run_that_passed_by_its_baseline_is_not_shown_as_one_that_found_nothing() -> None:
    known = {"check": "first", "fingerprint": "f", "reason": "r", "expires": ""}
    baseline = {"source": "s", "known": [known], "new": 0, "expired": 0, "regressions": 0, "gone": 0}
    run = record(outcomes={"FAIL": 1}, baseline=baseline, calibrated={"planted": 0, "caught": 0})
    html = pages.runs_page([Summary("r", "r", "passed", run)])
    assert '<span class="badge known">passed, 1 known</span>' in html
    assert "1 FAIL</span> · not calibrated" in html
    assert "0 of 0" not in html
