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
from tools.services import SERVICES, Row, main, matrix

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


def test_a_server_without_a_record_is_refused() -> None:
    with pytest.raises(SystemExit, match=r"examples/services/adk/recorded\.json"):
        main(["--recorded", "adk"])


def test_the_matrix_names_what_passed_and_each_finding() -> None:
    verdicts = {"access denial": "FAIL read-by-another", "session end": "PASS", "memory": "NOT_APPLICABLE"}
    assert matrix([Row("notes 1.0", "proved", verdicts)]).splitlines()[-1] == (
        "| notes 1.0 | proved | session end | access denial: read-by-another | - |"
    )
