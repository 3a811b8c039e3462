"""Reports repeat the content of the frames, in a page that needs nothing else."""

from __future__ import annotations

import json
import re
import shlex
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from lab_utils.judges.identity import identified
from lab_utils.output import pages
from lab_utils.output.frames import load
from lab_utils.output.pages.templating import _headed, _telling
from lab_utils.output.store import Calibration, CategoryResults, OpenRun, Store, Summary, save_category
from lab_utils.values.profiles import CATEGORIES
from lab_utils.values.quantities import moment
from lab_utils.values.result import CheckResult
from lab_utils.values.verdict import Finding, Verdict
from tests.lab_utils.made import CATEGORY, HOSTILE, about, calibration, failed, record, result


class Page(HTMLParser):
    """The text of a page, the addresses that it names, and its elements."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.addresses: list[str] = []
        self.elements: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        # A place where a name may be broken is no end of a word.
        if self.elements and self.elements[-1] == "wbr":
            self.elements.pop()
            self.words[-1] += data
        else:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def published(
    tmp_path: Path,
    results: tuple[CheckResult, ...],
    calibrations: tuple[Calibration, ...] = (),
    *,
    status: str = "passed",
    notebook: str = "ok",
    **fields: Any,
) -> OpenRun:
    """The report of a run with these results, and with a check that never ran."""
    run = Store(tmp_path).begin({**about(*(found.check for found in results), "never_run"), **fields})
    save_category(run.folder, CategoryResults(CATEGORY, True, results, calibrations))
    run.note(notebooks={CATEGORY: {"status": notebook, "seconds": 1.5, "message": "as it was"}})
    pages.publish(run, status)
    return run


def page_and_summary(run: OpenRun) -> list[str]:
    return [Page((run.folder / name).read_text()).text for name in ("index.html", "summary.md")]


def test_the_page_says_which_calibrations_were_not_made_in_this_run(tmp_path: Path) -> None:
    kept = replace(calibration("second"), made_at="2026-01-02T03:04:05+00:00", made_by="earlier")
    run = published(tmp_path, (result("first"), result("second")))
    own = replace(calibration("first"), made_at="2026-02-02T03:04:05+00:00", made_by=run.run_id)
    save_category(run.folder, CategoryResults(CATEGORY, True, (result("first"), result("second")), (own, kept)))
    pages.publish(run, "passed")
    for text in page_and_summary(run):
        assert "1 were run in this run. 1 were not run again" in text
        assert f"{moment(kept.made_at)} by run earlier (1)" in text


@pytest.mark.parametrize(
    ("named", "is_every"),
    [({"profile": "smoke"}, False), ({"profile": "smoke", "calibrate": "all"}, True), ({"profile": "standard"}, True)],
)
def test_the_page_says_whether_every_planted_registry_was_run(
    tmp_path: Path, named: dict[str, Any], is_every: bool
) -> None:
    for text in page_and_summary(published(tmp_path, (result("first"),), (calibration("first"),), **named)):
        assert ("one for each anomaly that is planted for a check; --calibrate all runs every one" in text) != is_every


def test_a_run_without_calibration_is_not_called_calibrated(tmp_path: Path) -> None:
    page, summary = page_and_summary(published(tmp_path, (result("first"),), calibrate="never"))
    assert "switched off (--calibrate never), so this run is not calibrated" in page
    assert "No check was calibrated" in page
    assert "0 of 0" not in page + summary


def test_the_page_holds_verdicts_budgets_findings_and_calibration(tmp_path: Path) -> None:
    results = (result("first"), result("second", failed()))
    run = published(tmp_path, results, (calibration(), calibration("second", caught=False)), status="findings")
    page = Page((run.folder / "index.html").read_text())
    for words in (
        "Not passed: 1 of 3 checks passed",
        "1 of 2 planted registries were caught",
        "210 pairs compared",
        "growth: 0.42 MB asked < 50 MB: PASS lab < 0.5 MB: PASS",
        "rss: 70 MB asked < 50 MB: FAIL, does not decide",
        "bo read what ada wrote",
        "op 3: write ada -> ok 'ada/1'",
        "1 finding of 1 cause in 1 check.",
        "Cause 1: canary-leak",
        "At stake: customers' data.",
        "not caught 0 of 1 by second",
        "not caught SharedDispatcher one for all canary-leak",
        "it left no result",
        "Where it does not hold: an outage",
        "registry-lab run user_isolation --seed 7",
        "0123456789ab, changed tree",
        "customers' data",
        "user isolation ✓ ✗ ?",
        CATEGORIES[CATEGORY].question,
    ):
        assert words in page.text, words


def test_findings_alike_are_counted_and_hide_no_other(tmp_path: Path) -> None:
    many = [Finding("leak", f"number {n}.", (f"witness {n}",)) for n in range(40)]
    again = Finding("leak", "again and again", ("one caller", "replay: registry-lab replay rl2~token"))
    findings = (*many, again, Finding("race", "the other one", ("w",)))
    run = published(tmp_path, (result("first", failed(*findings)),), status="findings")
    for text in page_and_summary(run):
        # The one that can be replayed step by step first.
        assert [f"number {n}." in text for n in range(4)] == [True, True, False, False]
        assert "again and again" in text
        assert "the other one" in text
        assert re.search(r"and 38 more \W*leak", text)
        assert len(re.findall(r"and \d+ more \W*(?:leak|race)", text)) == 1
    assert len(load(run.folder / "frames")["findings"]) == 42


def test_a_cause_names_the_one_in_another_check_from_which_it_may_follow(tmp_path: Path) -> None:
    def found(check: str, anomaly: str) -> CheckResult:
        return result(check, failed(Finding(anomaly, "it was seen", ("w",))))

    run = published(tmp_path, (found("first", "shared-object"), found("second", "wrong-answer")), status="findings")
    for text in page_and_summary(run):
        (number,) = re.findall(r"It may follow from cause (\d), \W*shared-object\W*, which other checks found", text)
        assert re.search(rf"Cause {number}: (?:shared-object|Two users share an object)", text)


def test_what_does_not_apply_is_not_counted_as_not_passed(tmp_path: Path) -> None:
    results = (result("first"), result("second", Verdict.not_applicable("the target lacks: events")))
    page = Page((published(tmp_path, results, status="findings").folder / "index.html").read_text())
    assert "Not passed: 1 of 2 checks passed" in page.text
    assert "1 check does not apply to this target" in page.text
    assert "user isolation ✓ – ?" in page.text
    assert "1 check gave no verdict." in page.text


def test_a_pass_says_what_was_compared_and_how_it_was_calibrated(tmp_path: Path) -> None:
    more = Verdict.passed("40 canaries read by their own writers, none by others (32 written); 7 expectations held")
    results = (result("first"), result("second", more), result("never_run"))
    run = published(tmp_path, results, (calibration(), calibration("second")))
    text = Page((run.folder / "index.html").read_text()).text
    assert (
        "3 of 3 checks passed Looked at 420 pairs compared, 40 canaries read by their own writers. "
        "2 of 2 planted registries were caught, each wrong in one way." in text
    )


def test_a_run_of_known_findings_is_not_shown_as_one_that_found_nothing(tmp_path: Path) -> None:
    run = Store(tmp_path).begin(about("first", "second"))
    results = (result("first", failed()), result("second"))
    save_category(run.folder, CategoryResults(CATEGORY, True, results, ()))
    (one,) = identified(results)
    known = [{"check": "first", "fingerprint": one.fingerprint, "reason": "T-17 is open", "expires": "2027-01-31"}]
    run.note(baseline={"source": "k.toml", "known": known, "new": 0, "expired": 0, "regressions": 0, "gone": 0})
    pages.publish(run, "passed")
    html = (run.folder / "index.html").read_text()
    text = Page(html).text
    assert (
        "Passed, apart from known findings: 1 of 2 checks passed Nothing new was found beside 1 known finding." in text
    )
    assert '<div class="banner known">' in html
    assert "user isolation ✗ ✓" in text
    assert 'class="sign KNOWN"' in html
    assert "known T-17 is open" in text
    for shown in (text, (run.folder / "summary.md").read_text()):
        assert "T-17 is open" in shown
        assert "2027-01-31" in shown
    run.note(baseline={"source": "k.toml", "known": [], "new": 1, "expired": 0, "regressions": 0, "gone": 0})
    pages.publish(run, "findings")
    assert 'class="sign FAIL"' in (run.folder / "index.html").read_text()


def test_a_token_of_the_summary_can_be_copied_as_it_stands_in_the_file(tmp_path: Path) -> None:
    finding = Finding("race", "two_of *them*", ("one ~ caller", "replay: registry-lab replay rl2~..."))
    run = published(tmp_path, (result("first", failed(finding)),), status="findings")
    lines = (run.folder / "summary.md").read_text().splitlines()
    assert f"registry-lab replay {run.run_id} F1" in lines
    assert r"- F1, **race** in `first`: two\_of \*them\*" in lines
    assert "  one ~ caller" in lines


def test_the_page_needs_no_other_file_and_no_network(tmp_path: Path) -> None:
    run = published(tmp_path, (result(),))
    page = Page((run.folder / "index.html").read_text())
    assert not [address for address in page.addresses if re.match(r"[a-z]+:|//", address)]
    assert not {"link", "iframe", "img"} & set(page.elements)
    # The one that sorts and filters the tables.
    assert page.elements.count("script") == 1


def test_hostile_names_are_text_everywhere(tmp_path: Path) -> None:
    finding = Finding(HOSTILE, HOSTILE, (HOSTILE, f"{HOSTILE}\n~~~~~\n   ~~~\n<b>"))
    hostile = result("first", failed(finding), claim=HOSTILE, protects=HOSTILE, notes=(HOSTILE,), traceback=HOSTILE)
    run = published(tmp_path, (hostile,), status="findings")
    html = (run.folder / "index.html").read_text()
    assert Page(html).elements.count("script") == 1
    assert "\x1b" not in html
    ET.parse(run.folder / "junit.xml")
    # In a fence nothing is markup, and no line of a witness ends it.
    summary = (run.folder / "summary.md").read_text()
    fenced = r"^~~~diff\n.*?^ {0,3}~~~ *$"
    assert "<script>" in summary
    assert not {"<script>", "<b>"} & set(
        re.findall(r"<\w+>", re.sub(fenced, "", summary, flags=re.DOTALL | re.MULTILINE))
    )


def test_junit_has_one_case_a_check_with_its_own_kind_of_failure(tmp_path: Path) -> None:
    results = (
        result("passes"),
        result("fails", failed()),
        result("unknown", Verdict.unknown("nothing was exercised"), traceback="Traceback: boom"),
        result("skipped", Verdict.not_applicable("no threads")),
        result("uncalibrated"),
    )
    run = published(tmp_path, results, (calibration("passes"), calibration("uncalibrated", caught=False)))
    (suite,) = ET.parse(run.folder / "junit.xml").getroot()
    kinds = {case.get("name"): [child.tag for child in case] for case in suite.iter("testcase")}
    assert kinds == {
        "passes": [],
        "fails": ["failure"],
        "unknown": ["error"],
        "skipped": ["skipped"],
        "uncalibrated": ["failure"],
        "never_run": ["error"],
    }
    assert [suite.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["6", "2", "2", "1"]
    failure, error = suite.find("testcase/failure"), suite.find("testcase/error")
    assert failure is not None
    assert error is not None
    assert "op 9: read bo -> ok 'ada/1'" in (failure.text or "")
    assert failure.get("type") == "canary-leak"
    assert (failure.get("message") or "").endswith(f"Run it again: registry-lab replay {run.run_id} F1")
    assert "Traceback: boom" in (error.text or "")


@pytest.mark.parametrize(("folder", "named"), [("outputs", ""), ("reports/ci 1", "reports/ci 1/"), ("../other", "")])
def test_a_finding_is_replayed_by_what_the_page_says_where_the_run_was_made(
    folder: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    run = published(Path(folder), (result("second", failed()),), status="findings")
    for text in page_and_summary(run):
        assert f"registry-lab replay {shlex.quote(f'{named}{run.run_id}')} F1" in text


def test_the_summary_is_one_table_a_category(tmp_path: Path) -> None:
    run = published(tmp_path, (result(), result("second", failed())), (calibration(),), status="findings")
    text = (run.folder / "summary.md").read_text()
    assert "# AgentRegistry validation: Not passed: 1 of 3 checks passed" in text
    rows = [line for line in text.splitlines() if line.startswith("| **")]
    assert len(rows) == 3
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 5 for row in rows)
    assert "- F1, **canary-leak** in `second`" in text
    assert text.index("Cause 1: bo read what ada wrote.") < text.index("<details open><summary>")


def test_a_summary_is_short_whatever_was_found(tmp_path: Path) -> None:
    long = "x" * 900
    kinds = [f"anomaly-{n}" for n in range(60)]
    many = [Finding(kind, f"{n} {long}", (long,) * 9) for n in range(4) for kind in kinds]
    results = tuple(result(f"check_{n}", failed(*many)) for n in range(3))
    run = published(tmp_path, results, status="findings")
    text = (run.folder / "summary.md").read_bytes()
    assert 5_000 < len(text) <= 20_000
    assert text.index(b"Cause 1") < text.index(b"Cause 2")


@pytest.mark.parametrize(
    ("status", "notebook", "words"),
    [
        ("error", "dead-kernel", ["The lab itself failed", "user_isolation ended as dead-kernel: as it was"]),
        (
            "cancelled",
            "cancelled",
            ["Cut off: user_isolation; registry-lab run --resume {run}", "makes what is missing"],
        ),
    ],
)
def test_a_run_that_did_not_end_well_says_which_notebook_and_what_to_do(
    tmp_path: Path, status: str, notebook: str, words: list[str]
) -> None:
    run = published(tmp_path, (result(),), status=status, notebook=notebook)
    text = page_and_summary(run)[0]
    assert all(each.format(run=run.run_id) in text for each in words)
    assert ("ended as" in text) == (status == "error")


@pytest.mark.parametrize(
    ("here", "outputs", "command"),
    [
        (".", "outputs", "registry-lab run --resume {run} makes"),
        (".", "kept", "registry-lab run --resume {run} --out kept makes"),
        # No path of a machine, and no prose within the command.
        ("beside", "kept", "registry-lab run --resume {run} --out FOLDER makes what is missing, where FOLDER is"),
    ],
)
def test_a_run_outside_outputs_says_where_it_is_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: str, outputs: str, command: str
) -> None:
    (tmp_path / here).mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / here)
    run = published(tmp_path / outputs, (result(),), status="cancelled", notebook="cancelled")
    text = page_and_summary(run)[0]
    assert command.format(run=run.run_id) in text
    assert str(tmp_path) not in text


def test_a_run_that_was_cut_off_says_so_also_where_no_notebook_ended(tmp_path: Path) -> None:
    run = published(tmp_path, (result(),), status="cancelled")
    for text in page_and_summary(run):
        assert f"Cut off; registry-lab run --resume {run.run_id}" in text.replace("\\", "")


def test_an_anomaly_of_a_check_of_somebody_s_own_has_a_heading_like_the_others(tmp_path: Path) -> None:
    own = Finding("two-bills", "a customer was billed twice", ("bill 1",))
    run = published(tmp_path, (result("bills", failed(own)),), status="findings")
    text, summary = page_and_summary(run)
    assert "A customer was billed twice." in text
    assert "## Cause 1: A customer was billed twice." in summary


@pytest.mark.parametrize(
    ("text", "heading"),
    [("traced growth, in MB", "Traced growth, in MB"), ("service_memory: growth", "service_memory: growth"), ("", "")],
)
def test_a_heading_begins_with_a_capital_unless_with_a_name_of_code(text: str, heading: str) -> None:
    assert _headed(text) == heading


def test_where_a_summary_cuts_a_witness_the_lines_that_differ_stay_and_gaps_are_marked() -> None:
    marked = [*({"mark": "", "text": f"same {n}"} for n in range(5)), {"mark": "+", "text": "new"}]
    assert [line["text"] for line in _telling(marked, 3)] == ["same 0", "same 1", "...", "new"]
    assert _telling(marked, 9) == marked
    # A difference marks its own gaps: two marks beside each other say no more than one.
    marked[1] = {"mark": " ", "text": "..."}
    assert [line["text"] for line in _telling(marked, 3)] == ["same 0", "...", "new"]
    assert _telling(marked[:5], 2) == marked[:2]


def test_the_frames_are_kept_and_the_verdicts_counted(tmp_path: Path) -> None:
    run = published(
        tmp_path, (result(), result("second", failed())), (calibration(), calibration("second", caught=False))
    )
    frames = load(run.folder / "frames")
    assert frames["verdicts"]["verdict"].tolist() == ["PASS", "FAIL", "UNKNOWN"]
    assert set(frames["operations"]["run"]) == {run.run_id}
    assert json.loads((run.folder / "run.json").read_text())["outcomes"] == {"PASS": 1, "FAIL": 1, "UNKNOWN": 1}
    assert json.loads((run.folder / "run.json").read_text())["calibrated"] == {"planted": 2, "caught": 1}


def test_the_list_of_runs_tells_finished_from_unfinished() -> None:
    outcomes = {"PASS": 20, "FAIL": 1}
    runs = [
        Summary("r3", "r3.partial", "interrupted", record()),
        Summary("r2", "r2", "findings", record(outcomes=outcomes)),
        Summary("r1", "r1.partial", "unreadable", None, "r1/run.json is <b>odd</b>"),
        Summary("r0", "r0", "findings", record(outcomes=outcomes, calibrated={"planted": 9, "caught": 8})),
    ]
    page = Page(pages.runs_page(runs))
    assert page.addresses == ["r3.partial/", "r2/index.html", "r1.partial/", "r0/index.html"]
    assert page.text.index("r3") < page.text.index("r2") < page.text.index("r1")
    assert page.text.count("(not finished)") == 2
    assert "1 FAIL 20 PASS" in page.text
    assert page.text.count("planted caught") == 1
    assert "1 FAIL 20 PASS · 8 of 9 planted caught" in page.text
    assert "r1/run.json is <b>odd</b>" in page.text
    assert "No run yet" in Page(pages.runs_page([])).text


def markdown(source: str, **metadata: Any) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": metadata, "source": source}


def code(source: str, *outputs: dict[str, Any]) -> dict[str, Any]:
    return {"cell_type": "code", "metadata": {}, "execution_count": 1, "source": source, "outputs": outputs}


def notebook(tmp_path: Path, *cells: dict[str, Any]) -> Path:
    path = tmp_path / "executed.ipynb"
    named = [{"id": f"cell-{number}", **cell} for number, cell in enumerate(cells)]
    path.write_text(json.dumps({"cells": named, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return path


def test_a_notebooks_page_is_self_contained(tmp_path: Path) -> None:
    alt, image = {"image/png": {"alt": "a leak"}}, {"image/png": "iVBORw0="}
    leak = {"output_type": "display_data", "metadata": alt, "data": image}
    said = ["\x1b[31mGateFailed: second\x1b[0m"]
    failing = {"output_type": "error", "ename": "GateFailed", "evalue": "", "traceback": said}
    text = "# Is it *so* & not <b>other</b>?\n\nAt $15K or $500K.\n\n## 1. `is_it_so`\n\n## Read *this*"
    html = pages.notebook_page(notebook(tmp_path, markdown(text), code("lab", leak, failing)), "r1")
    page = Page(html)
    assert "<title>Is it so &amp; not other?</title>" in html
    assert {"../index.html", "executed.ipynb"} <= set(page.addresses)
    assert not [address for address in page.addresses if re.match(r"(?!data:)[a-z]+:|//", address)]
    assert 'alt="a leak"' in html
    assert "GateFailed: second" in page.text
    assert "At $15K or $500K." in page.text
    assert not {"script", "link", "iframe"} & set(page.elements)
    assert {"#contents", "#section-1", "#section-2"} <= set(page.addresses)
    assert '<h2 id="section-1">1. <code>is_<wbr>it_<wbr>so</code></h2>' in html
    assert '<h2 id="section-2">Read <em>this</em></h2>' in html
    assert '<a href="#section-2">Read this</a>' in html


def test_a_notebooks_page_begins_with_its_verdict_and_folds_its_code(tmp_path: Path) -> None:
    data = {"text/html": "<p>...</p>", "text/markdown": "5 checks passed, and all 66 planted registries were caught."}
    said = {"output_type": "execute_result", "metadata": {}, "execution_count": 1, "data": data}
    title = markdown("# Is it so?")
    html = pages.notebook_page(notebook(tmp_path, title, code("lab.gate(True)\n'</pre>'", said)), "r1")
    assert '<div class="banner passed">' in html
    assert "Passed 5 checks passed, and all 66 planted registries were caught. Is it so?" in Page(html).text
    assert re.search(r'<details class="code kept"><summary>code</summary>.*lab.*</details>', html, re.DOTALL)
    assert html.count("<details") == html.count("</details>") == 1
    assert '<div class="banner' not in pages.notebook_page(notebook(tmp_path, title), "r1")


def test_papermills_remarks_on_a_cell_that_failed_are_the_reports_own_words(tmp_path: Path) -> None:
    tags = ["papermill-error-cell-tag"]
    top = "<span>An Exception was encountered at '<a href=\"#papermill-error-cell\">In [21]</a>'.</span>"
    here = '<span id="papermill-error-cell">Execution using papermill encountered an exception here:</span>'
    problems = "first is FAIL: 2 findings: stale-read, cross-user-data, leak; left out: sockets; second did not catch SharedDispatcher"
    gate = {"output_type": "error", "ename": "GateFailed", "evalue": problems, "traceback": ["GateFailed: first"]}
    remarks = [markdown(text, tags=tags) for text in (top, here)]
    html = pages.notebook_page(notebook(tmp_path, *remarks, code("lab", gate)), "r1")
    words = (
        "Not passed One user received data of another user. first is FAIL: 2 findings: stale-read, cross-user-data, leak; "
        "left out: sockets second did not catch SharedDispatcher The cell"
    )
    assert words in Page(html).text
    assert "was encountered" not in html
    assert "encountered an exception" not in html
    assert "The cell that ended this notebook gives the reason." in Page(html).text
    assert html.count('href="#papermill-error-cell"') == html.count('id="papermill-error-cell"') == 1


def test_a_finding_has_its_picture_and_its_witness_is_folded_below(tmp_path: Path) -> None:
    sentence, held = "'ada' and 'bo' can both reach one object", "<Bridge object at 0x7f>"
    reached = Finding("shared-object", sentence, (f"ada.agent.extra -> {held}", f"bo.bridge[3] -> {held}"))
    plain = Finding("lost-event", "event 3 was lost", ("stream: 1 2 4",))
    run = published(tmp_path, (result("first", failed(reached, plain)),), status="findings")
    page = (run.folder / "index.html").read_text()
    with_picture, without = re.findall(r'<article class="finding".*?</article>', page, re.DOTALL)
    assert with_picture.count('role="img"') == 1
    assert re.search(
        r"<details><summary><small>the whole witness</small></summary><pre[^>]*>ada\.agent\.extra", with_picture
    )
    assert "<svg" not in without
    assert "the whole witness" not in without
    assert "<h3>What to do</h3>" in with_picture
    assert "<dd>Make it for each session; name it in <code>trusted</code>" in with_picture
    # Values beside their budgets are drawn too.
    assert "1 of 1 measured values keep their budgets" in Page(page).text


def test_evidence_that_is_the_sentence_again_is_not_printed_twice(tmp_path: Path) -> None:
    said = "the user who stayed lost their agent"
    run = published(tmp_path, (result("first", failed(Finding("bystander-harmed", said, (said,)))),), status="findings")
    card = re.findall(r'<article class="finding".*?</article>', (run.folder / "index.html").read_text(), re.DOTALL)
    assert [one.count(said) for one in card] == [1]
