"""The recorded matrix of frameworks: each cell comes of a run, each FAIL has its promise and its script."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab_utils.cli import main
from lab_utils.cli.repro import reproductions_folder
from lab_utils.notebook import Frameworks
from lab_utils.output.store import CategoryResults, Store, StoreError, save_category
from lab_utils.output.store.matrix import (
    Judged,
    Matrix,
    Row,
    cell,
    found_anomalies,
    read_matrix,
    row_of,
    written_matrix,
)
from lab_utils.targets.frameworks import FRAMEWORKS
from lab_utils.values.profiles import UsageError
from lab_utils.values.result import CheckResult
from lab_utils.values.verdict import Finding, Outcome, Verdict
from tests.lab_utils.made import about, result
from tools import frameworks
from tools.bootstrap import SetupFailed
from tools.frameworks import OURS, PAGE, differences, merged, requirements, with_matrix

CHECK = "concurrent_user_operations_isolation"
OTHER = "per_user_agent_registry_isolation_validation"
LOST = Finding("lost-update", "two updates began with 0, so one of them is lost", ("op 1", "op 2"))
COUNTED = Finding("budget-exceeded", "lost updates is 1, budget == 0", ("measured 1",))


def made(verdict: Verdict, check: str = CHECK, **fields: Any) -> CheckResult:
    return result(check, verdict, **{"target": "langgraph_saver", **fields})


def matrix_of(*results: CheckResult) -> Matrix:
    return Matrix(
        1, (row_of(results, target="langgraph_saver", version="1.2.24", python="3.11", made_on="2026-11-28"),)
    )


FAILED = Verdict.of((LOST, LOST, COUNTED), 2, "updates")
PASSED = Verdict.passed("2 updates")
UNKNOWN = Verdict.unknown("nothing was exercised")
NONE = Verdict.not_applicable("it lacks end")
ANOTHER = Verdict.of((Finding("merged-identity", "two users are one", ("op 1",)),), 1, "users")


# ------------------------------------------------------------------------------------------------------------ the cells


CELLS = {
    "found": (FAILED, "", "FAIL"),
    "looked": (PASSED, "", "PASS"),
    "in-part": (PASSED, "Each counts. Not part of this result: tools.", "PASS in part"),
    "no-verdict": (UNKNOWN, "", "UNKNOWN"),
    "lacks": (NONE, "", "NOT APPLICABLE"),
    # These ended before they had looked for everything.
    "ended": (Verdict.of((Finding("never-ends", "a call never ended", ("op 1",)),), 1, "calls"), "", "UNKNOWN"),
    "failed": (Verdict.of((Finding("failed-operation", "2 of 9 failed", ("op 1",)),), 1, "users"), "", "UNKNOWN"),
    "ended-with-another": (ANOTHER, "Not part of this result: the rest of the check after 40 s.", "UNKNOWN"),
    "slow": (ANOTHER, "Not part of this result: 3 of 4 interruptions, for want of time.", "PASS in part"),
    "another": (ANOTHER, "", "PASS"),
}


@pytest.mark.parametrize(("verdict", "claim", "word"), CELLS.values(), ids=CELLS)
def test_a_cell_is_what_the_checks_that_look_for_it_found(verdict: Verdict, claim: str, word: str) -> None:
    matrix = matrix_of(made(verdict, claim=claim), made(PASSED, OTHER))
    one = cell(matrix, matrix.rows[0], "lost-update")
    signs = {"PASS": "✓", "PASS in part": "(✓)", "FAIL": "✗", "UNKNOWN": "?", "NOT APPLICABLE": "–"}
    assert (str(one), one.sign) == (word, signs[word])


@pytest.mark.parametrize("found", [(), ANOTHER.findings], ids=["nothing", "something"])
def test_a_check_that_took_too_long_has_no_verdict_about_what_it_did_not_reach(
    found: tuple[Finding, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    late = Finding("never-ends", "the check did not end within its limit of 40 s", ("op 1",))
    monkeypatch.setattr(frameworks, "run_check", lambda *_, **__: made(Verdict.of((*found, late), 1, "calls")))
    matrix = matrix_of(frameworks._within_limit(CHECK, limit_s=40.0))
    assert set(matrix.rows[0].found) == {one.anomaly for one in found}
    assert str(cell(matrix, matrix.rows[0], "lost-update")) == "UNKNOWN"


def test_a_check_that_found_it_elsewhere_looks_for_it_everywhere() -> None:
    odd = Finding("an-anomaly-of-no-planted-registry", "something odd", ("op 1",))
    one = matrix_of(made(Verdict.of((odd,), 1, "calls"))).rows[0]
    for verdict, outcome in ((PASSED, Outcome.PASS), (NONE, Outcome.NOT_APPLICABLE)):
        other = matrix_of(made(verdict)).rows[0]
        assert cell(Matrix(1, (one, other)), other, odd.anomaly).outcome is outcome


def test_a_count_of_other_findings_is_no_anomaly_of_its_own() -> None:
    row = matrix_of(made(FAILED)).rows[0]
    assert {name: found.count for name, found in row.found.items()} == {"lost-update": 2}
    assert row.checks[CHECK].anomalies == ("budget-exceeded", "lost-update")
    assert list(matrix_of(made(Verdict.of((COUNTED,), 1, "updates"))).rows[0].found) == ["budget-exceeded"]


def test_a_check_that_is_judged_again_leaves_what_others_found() -> None:
    row = matrix_of(made(FAILED), made(ANOTHER, OTHER)).rows[0]
    again = matrix_of(made(PASSED)).rows[0]
    after = merged(row, again)
    assert after.checks == {CHECK: Judged(Outcome.PASS), OTHER: row.checks[OTHER]}
    assert after.found == {"merged-identity": row.found["merged-identity"]}
    assert merged(after, matrix_of(made(FAILED)).rows[0]) == row


def test_what_checks_found_together_stays_or_is_judged_together() -> None:
    row = matrix_of(made(FAILED), made(Verdict.of((LOST,), 1, "updates"), OTHER)).rows[0]
    assert row.found["lost-update"].count == 3
    assert merged(row, matrix_of(made(FAILED)).rows[0]) == row
    with pytest.raises(SetupFailed, match="lost-update"):
        merged(row, matrix_of(made(PASSED)).rows[0])


# ----------------------------------------------------------------------------------------------------------- the record


def recorded() -> Iterator[tuple[Row, str]]:
    return ((row, anomaly) for row in read_matrix().rows for anomaly in row.found)


def test_our_own_registry_passes_all_and_knows_each_of_these_anomalies() -> None:
    matrix = read_matrix()
    ours = matrix.row(OURS)
    assert ours is not None
    assert {name: one for name, one in ours.checks.items() if one.outcome not in ("PASS", "NOT_APPLICABLE")} == {}
    missing = [one for one in found_anomalies(matrix) if cell(matrix, ours, one).outcome is not Outcome.PASS]
    assert missing == []


def test_each_fail_has_its_promise_and_a_script_without_the_lab() -> None:
    lacking = [(row.target, anomaly) for row, anomaly in recorded() if anomaly not in FRAMEWORKS[row.target].promises]
    assert lacking == []
    for row, anomaly in recorded():
        script = reproductions_folder() / f"{FRAMEWORKS[row.target].promises[anomaly].reproduction}.py"
        assert script.is_file(), f"{row.target} {anomaly}: {script.name} is missing"
        modules = {name for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))) for name in _imported(node)}
        assert not modules & {"lab_utils", "registry"}, f"{script.name} needs the lab"


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name.partition(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield (node.module or "").partition(".")[0]


def test_each_row_names_what_it_was_judged_with() -> None:
    for row in read_matrix().rows:
        assert (row.cost is None) is row.target.endswith("_client_ids"), row.target
        if row.target in FRAMEWORKS:
            assert row.packages[FRAMEWORKS[row.target].package] == row.version


def test_the_page_of_the_docs_is_the_record() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert with_matrix(page, read_matrix()) == page, "make frameworks ARGS=--page"


def test_an_environment_needs_the_frameworks_extra_and_what_the_lab_needs() -> None:
    wanted = list(requirements("openai_agents"))
    assert wanted[0].startswith("openai-agents>=")
    assert {"cloudpickle", "msgspec", "psutil", "detangle"} <= set(wanted)


@pytest.mark.parametrize(
    ("recorded_as", "words"),
    [
        ({OTHER: Judged(Outcome.PASS)}, []),
        ({OTHER: Judged(Outcome.FAIL, ("merged-identity",))}, [f"{OTHER}: recorded FAIL merged-identity, now PASS"]),
        ({}, [f"{OTHER}: recorded nothing, now PASS"]),
    ],
    ids=["same", "another", "new"],
)
def test_a_verdict_that_differs_from_the_record_is_named(recorded_as: dict[str, Judged], words: list[str]) -> None:
    row = Row("reference", "1", "3.11", "2026-11-28", "smoke", 20261, recorded_as, {})
    assert [problem.partition(" (")[0] for problem in differences(row, [OTHER])] == words


def test_a_file_that_is_no_matrix_names_the_remedy(tmp_path: Path) -> None:
    other = tmp_path / "matrix.json"
    for text in ("", "[]", '{"format": 1}'):
        other.write_text(text)
        with pytest.raises(StoreError, match=r"matrix\.json is no matrix of frameworks: .*make frameworks"):
            read_matrix(other)
    other.write_bytes(written_matrix(Matrix(2, ())))
    with pytest.raises(StoreError, match="format 2, this version reads 1"):
        read_matrix(other)


# --------------------------------------------------------------------------------------------- notebook and command line


def test_the_notebook_shows_the_record_a_file_and_a_run(tmp_path: Path) -> None:
    other = tmp_path / "matrix.json"
    other.write_bytes(written_matrix(matrix_of(made(FAILED))))
    run = str(kept(tmp_path / "outputs", made(PASSED, target="reference")))
    shown = Frameworks(matrix=str(other), run=run)
    assert shown.matrix().to_dict("index") == {
        "langgraph_saver": {"lost-update": "FAIL"},
        "reference, this run": {"lost-update": "PASS"},
    }
    (found,) = shown.findings().to_dict("records")
    assert (found["standing"], found["script"]) == ("left to the app", "langgraph_saver_lost_update.py")
    assert "op 2" in found["witness"]
    assert repr(shown.by_anomaly()).splitlines()[-1] == "| lost-update | ✗a | ✓ |"
    assert 'title="langgraph_saver: FAIL, left to the app"' in shown.by_anomaly()._repr_html_()
    assert "op 2" in shown.evidence()._repr_html_()
    assert shown.standings().to_dict("index") == {"langgraph_saver": {"left to the app": 1}}
    with pytest.raises(UsageError, match="langgraph_saver"):
        Frameworks(matrix=str(other), only="langgraph_safer")


def test_the_notebooks_cells_run_without_any_framework(monkeypatch: pytest.MonkeyPatch) -> None:
    book = json.loads((Path(__file__).parents[1] / "notebooks" / "10_frameworks.ipynb").read_text(encoding="utf-8"))
    code = ["".join(one["source"]) for one in book["cells"] if one["cell_type"] == "code"]
    for name in ("autogen_core", "agents", "langgraph"):
        monkeypatch.setitem(sys.modules, name, None)
    cells: dict[str, Any] = {}
    shown = []
    for one in code:
        if _is_expression(one):
            shown.append(type(eval(one, cells)).__name__)
        else:
            exec(one, cells)
    assert shown == ["View", "DataFrame", "View", "DataFrame", "DataFrame"]
    assert OURS in cells["frameworks"]._repr_html_()


def _is_expression(code: str) -> bool:
    body = ast.parse(code).body
    return len(body) == 1 and isinstance(body[0], ast.Expr)


def kept(outputs: Path, one: CheckResult) -> Path:
    run = Store(outputs).begin({**about(one.check, category=one.category), "target": one.target})
    save_category(run.folder, CategoryResults(one.category, True, (one,), ()))
    return run.finish("findings", lambda runs: "")


@pytest.mark.parametrize("target", ["langgraph_saver", FRAMEWORKS["langgraph_saver"].spec])
def test_repro_prints_the_script_of_a_finding(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "langgraph_saver_lost_update.py").write_text("print('lost')\n")
    monkeypatch.setattr("lab_utils.cli.repro.reproductions_folder", lambda: tmp_path)
    kept(tmp_path / "outputs", made(FAILED, target=target))
    assert main(["repro", "latest", "f1", "--out", str(tmp_path / "outputs")]) == 0
    assert capsys.readouterr().out == "print('lost')\n"
    # Of another anomaly there is none.
    assert main(["repro", "latest", "F3", "--out", str(tmp_path / "outputs")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"there is no script for budget-exceeded in {target}" in captured.err
    assert "registry-lab replay rc1~" in captured.err
    assert main(["repro", "latest", "F9", "--out", str(tmp_path / "outputs")]) == 2
    assert "unknown finding 'F9'; run latest has F1 to F3" in capsys.readouterr().err


def test_repro_names_what_runs_a_finding_of_ones_own_registry_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept(tmp_path, made(FAILED, target="mine.lab:Mine"))
    assert main(["repro", "latest", "F1", "--out", str(tmp_path)]) == 2
    assert "mine.lab:Mine, which is no public framework" in capsys.readouterr().err
