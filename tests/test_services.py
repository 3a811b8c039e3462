"""A public server's verdicts are compared with the recorded ones, and a difference fails."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

import tools.services
from lab_utils.checks import CHECKS
from lab_utils.service.file import read_service
from lab_utils.values.verdict import Finding, Verdict
from tools.services import SERVICES, Row, main, matrix, script_of

DOCUMENTED = SERVICES.parents[1] / "docs" / "services.md"
RECORDS = sorted(SERVICES.glob("*/recorded.json"))


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.parent.name)
def test_a_record_names_service_files_and_checks(record: Path) -> None:
    for file, verdicts in json.loads(record.read_text()).items():
        assert read_service(record.with_name(f"{file}.toml")).operations
        assert set(verdicts) <= set(CHECKS)


@pytest.mark.parametrize("leaks", [True, False])
def test_a_verdict_that_is_not_the_recorded_one_fails(
    leaks: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded = json.loads((SERVICES / "fastmcp" / "recorded.json").read_text())

    def judged(check: str, target: str) -> SimpleNamespace:
        # All as recorded, but for the one leak where the server is said to leak no more.
        outcome, _, names = recorded[Path(target).stem][check].partition(" ")
        names = names if leaks else names.replace("read-by-another", "").strip(", ")
        findings = [Finding(name, "leaks", ("seen",)) for name in names.split(", ") if name]
        return SimpleNamespace(outcome=outcome, verdict=Verdict.of(findings, 1, "asked"), traceback="")

    monkeypatch.setattr(tools.services, "run_check", judged)
    monkeypatch.setattr(tools.services, "environment", lambda place, packages: place / "bin" / "python")
    assert main(["--recorded", "fastmcp"]) == (0 if leaks else 1)
    assert ("recorded: FAIL changed-by-another, ids-collide, read-by-another" in capsys.readouterr().err) is not leaks


def _found() -> list[tuple[Path, str]]:
    """Each finding of the documented matrix: the server's folder, and the finding's name."""
    folders = {read_service(file).name: file.parent for file in SERVICES.glob("*/*.toml")}
    rows = [line.strip("| ").split(" | ") for line in DOCUMENTED.read_text().splitlines() if line.count(" | ") == 4]
    cells = [(folders[row[0].split()[0]], row[3]) for row in rows if row[0].split()[0] in folders]
    return sorted(
        (folder, name)
        for folder, cell in cells
        for check in cell.split("; ")
        for name in set(check.partition(": ")[2].split(", ")) - {""}
    )


@pytest.mark.parametrize(("folder", "anomaly"), sorted(set(_found())), ids=lambda one: getattr(one, "name", one))
def test_each_finding_has_a_short_script_of_its_own_without_the_lab(folder: Path, anomaly: str) -> None:
    script = script_of(folder, anomaly)
    text = script.read_text()
    assert len(text.splitlines()) <= 40
    assert "lab_utils" not in text + (folder / "asking.py").read_text()


def test_there_is_no_script_without_a_finding() -> None:
    assert {script_of(folder, anomaly) for folder, anomaly in _found()} == set(SERVICES.glob("*/reproduce*.py"))


def test_a_server_without_a_record_is_refused() -> None:
    with pytest.raises(SystemExit, match=r"examples/services/adk/recorded\.json"):
        main(["--recorded", "adk"])


def test_the_matrix_names_what_passed_and_each_finding() -> None:
    verdicts = {"access denial": "FAIL read-by-another", "session end": "PASS", "memory": "NOT_APPLICABLE"}
    assert matrix([Row("notes 1.0", "proved", verdicts)]).splitlines()[-1] == (
        "| notes 1.0 | proved | session end | access denial: read-by-another | - |"
    )
