"""`--usage-csv`: a file is read through before anything runs, and reaches golden_path, and no folder is kept of it."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab_utils import runner
from lab_utils.batch import Job
from lab_utils.cli import main
from lab_utils.usage.csv_file import usage_place
from lab_utils.values.profiles import UsageError
from lab_utils.values.result import CheckResult, encode
from tests.lab_utils.cli.notebooks import Notebooks

HEADER = "at,model,tokens_in,tokens_out,latency_ms,cost_usd"
ROW = "2026-01-31T12:00:00Z,large,10,20,150.5,0.25"


@pytest.fixture
def jobs(notebooks: Notebooks, tmp_path: Path) -> list[Job]:
    """The notebooks that would have run."""
    notebooks.results = []
    (tmp_path / "own.csv").write_text(f"{HEADER}\n{ROW}\n{ROW}\n")
    return notebooks.jobs


def recorded(folder: Path) -> dict[str, Any]:
    (run,) = [path for path in (folder / "outputs").glob("*/run.json") if not path.parent.is_symlink()]
    about: dict[str, Any] = json.loads(run.read_text())
    return about


@pytest.mark.parametrize(
    "words",
    [
        ["golden_path", "--usage-csv", "own.csv"],
        ["golden_path", "--param", "usage_csv=own.csv"],
        ["golden_path", "user_isolation", "-p", "golden_path.usage_csv=own.csv"],
    ],
)
def test_the_file_reaches_the_notebook_and_what_is_kept_names_no_folder(
    jobs: list[Job], tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    main(["run", *words, "--param", "users=7"])
    named = "$REGISTRY_LAB_USAGE/own.csv"
    assert [(job.name, job.parameters["usage_csv"]) for job in jobs if "usage_csv" in job.parameters] == [
        ("golden_path", named)
    ]
    about = recorded(tmp_path)
    assert about["parameters"]["golden_path"]["usage_csv"] == named
    assert str(tmp_path) not in json.dumps(about)
    told = shlex.split(about["command"])
    assert told[told.index("--usage-csv") + 1] == "own.csv"
    assert told[-2:] == ["--param", "users=7"]
    assert told.count("--param") == 1
    assert "2 records of 1 user from" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["user_isolation", "--usage-csv", "own.csv"], "only golden_path takes usage records"),
        (["golden_path", "--usage-csv", "nowhere.csv"], "nowhere.csv: No such file or directory"),
        (["golden_path", "--usage-csv", "."], "no regular file"),
        (["golden_path", "--usage-csv", ""], "--usage-csv is empty"),
        (["golden_path", "--usage-csv", "own.csv", "-p", "usage_csv=own.csv"], "leave one of them out"),
        (["golden_path", "--usage-csv", "bad.csv"], "bad.csv: line 3: column cost_usd: 'free' is not an amount"),
        (["golden_path", "--param", "usage_csv=bad.csv"], "bad.csv: line 3: column cost_usd: 'free' is not an amount"),
        (["--usage-csv", "short.csv"], "line 1: column 'cost_usd' is missing; found: 'at', 'model'"),
    ],
)
def test_a_file_that_will_not_do_is_wrong_usage_before_anything_runs(
    jobs: list[Job], tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    (tmp_path / "bad.csv").write_text(f"{HEADER}\n{ROW}\n{ROW.replace('0.25', 'free')}\n")
    (tmp_path / "short.csv").write_text(f"{HEADER.removesuffix(',cost_usd')}\n")
    assert main(["run", *words]) == 2
    assert said in capsys.readouterr().err
    assert jobs == []
    assert not (tmp_path / "outputs").exists()


def test_a_check_reads_the_file_where_it_is_and_its_result_names_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "customers of acme"
    folder.mkdir()
    (folder / "own.csv").write_text(f"{HEADER}\n{ROW}\n{ROW}\n")
    monkeypatch.chdir(tmp_path)
    whole = str(folder / "own.csv")
    words = ["complete_agent_orchestration_flow_per_user", "--usage-csv", whole, "--transport", "inprocess"]
    found: list[CheckResult] = []
    ran = runner.run_check

    def run(*words: Any, **more: Any) -> CheckResult:
        found.append(ran(*words, **more))
        return found[-1]

    monkeypatch.setattr(runner, "run_check", run)
    assert main(["check", *words]) == 0
    [result] = found
    assert any("2 records of 1 user from own.csv" in note for note in result.notes), result.notes
    assert str(tmp_path) not in encode(replace(result, operations=())).decode()
    # Here, it can be copied.
    assert whole in capsys.readouterr().out


def test_a_file_that_is_known_to_nobody_any_more_is_said_to_be_so() -> None:
    with pytest.raises(UsageError, match="give the path of the file"):
        usage_place("$REGISTRY_LAB_USAGE/own.csv")
