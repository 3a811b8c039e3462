"""JupyterLab is opened on copies, which keep their user's edits, and on a finding of a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lab_utils.batch import notebook_parameters, notebooks_folder
from lab_utils.cli import main
from lab_utils.notebook import FOLDER_VARIABLE, FinishedRun, open_finding
from lab_utils.values.profiles import UsageError
from tests.lab_utils.made import failed, finished, result

COPIES = Path("outputs", "lab")


class JupyterLab:
    """Stands where JupyterLab is: keeps how it was started, and ends with 7."""

    returncode = 7

    def __init__(self) -> None:
        self.words: list[str] = []
        self.environment: dict[str, str] = {}

    def run(self, words: list[str], *, env: dict[str, str], **_: Any) -> JupyterLab:
        self.words, self.environment = words, env
        return self


@pytest.fixture
def jupyterlab(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> JupyterLab:
    made = JupyterLab()
    monkeypatch.setattr("lab_utils.cli.lab.subprocess.run", made.run)
    monkeypatch.chdir(tmp_path)
    return made


@pytest.fixture
def originals(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    inside = tmp_path / "originals"
    inside.mkdir()
    for name in ("a.ipynb", "b.ipynb"):
        (inside / name).write_text("first")
    monkeypatch.setattr("lab_utils.batch.notebooks_folder", lambda: inside)
    return inside


def test_it_opens_copies_without_news_and_passes_options_on(jupyterlab: JupyterLab, tmp_path: Path) -> None:
    assert main(["lab", "--no-browser", "--ServerApp.port=8899"]) == 7
    assert jupyterlab.words[1:3] == ["-m", "jupyterlab"]
    overrides = Path(jupyterlab.environment["JUPYTER_CONFIG_PATH"], "labconfig", "default_setting_overrides.json")
    assert json.loads(overrides.read_bytes())["@jupyterlab/apputils-extension:notification"]["fetchNews"] == "false"
    assert jupyterlab.words[-3:] == ["--no-browser", "--ServerApp.port=8899", str(COPIES)]
    assert jupyterlab.environment[FOLDER_VARIABLE] == str(tmp_path)
    for original in notebooks_folder().glob("*.ipynb"):
        assert (COPIES / original.name).read_bytes() == original.read_bytes()


def test_a_copy_with_edits_stays_and_is_named_and_the_others_are_renewed(
    jupyterlab: JupyterLab, originals: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["lab", "--folder", "mine"])
    assert "kept as you left them" not in capsys.readouterr().err
    Path("mine", "a.ipynb").write_text("edited")
    for name in ("a.ipynb", "b.ipynb", "c.ipynb"):
        (originals / name).write_text("second")
    main(["lab", "--folder", "mine"])
    assert "kept as you left them: a.ipynb; delete one" in capsys.readouterr().err
    assert [Path("mine", name).read_text() for name in ("a.ipynb", "b.ipynb", "c.ipynb")] == [
        *("edited", "second", "second")
    ]
    # Without the record of the copies, no differing file is taken for a copy.
    Path("mine", ".originals.json").unlink()
    (originals / "b.ipynb").write_text("third")
    main(["lab", "--folder", "mine"])
    assert "kept as you left them: a.ipynb, b.ipynb" in capsys.readouterr().err


@pytest.mark.parametrize("folder", ["originals", "file/lab", "n" * 300])
def test_a_folder_that_cannot_hold_copies_is_refused(
    jupyterlab: JupyterLab, originals: Path, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("file").touch()
    assert main(["lab", "--folder", folder]) == 2
    assert f"--folder {folder}" in capsys.readouterr().err
    assert not jupyterlab.words


@pytest.fixture
def run_id(tmp_path: Path) -> str:
    return finished(tmp_path / "outputs", result("first", failed())).name


def test_a_finding_is_opened_in_a_copy_that_is_about_it_alone(
    jupyterlab: JupyterLab, run_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["investigate", "latest", "f1", "--no-browser"]) == 7
    copy = COPIES / f"investigate_{run_id}_F1.ipynb"
    assert jupyterlab.words[-2:] == ["--no-browser", str(copy)]
    parameters = notebook_parameters(copy)
    assert parameters == {"run": run_id, "finding": "F1"}
    code = "\n".join("".join(cell["source"]) for cell in json.loads(copy.read_bytes())["cells"])
    assert "theirs.replay()" in code
    assert "lab.run(" not in code
    copy.write_text("edited")
    main(["investigate", "latest", "f1"])
    assert "kept as you left it" in capsys.readouterr().err
    assert copy.read_text() == "edited"


def test_a_run_elsewhere_is_named_by_its_whole_path(
    jupyterlab: JupyterLab, run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["investigate", f"../outputs/{run_id}", "F1"]) == 7
    (copy,) = COPIES.glob("investigate_*.ipynb")
    opened = open_finding(str(notebook_parameters(copy)["run"]), "F1")
    assert opened.target == "agent_registry"


@pytest.mark.parametrize("words", [["latest", "F99"], ["no-such-run", "F1"]])
def test_a_finding_that_is_none_opens_nothing(jupyterlab: JupyterLab, run_id: str, words: list[str]) -> None:
    assert main(["investigate", *words]) == 2
    assert not jupyterlab.words
    assert not COPIES.exists()


def test_runs_are_found_from_the_folder_of_the_copies(
    run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lab_utils.notebook import open_run

    (tmp_path / COPIES).mkdir()
    monkeypatch.chdir(tmp_path / COPIES)
    assert isinstance(open_run(), FinishedRun)
    with pytest.raises(UsageError, match="F1"):
        open_finding(run_id, "F9")
    none = open_finding("", "F1")
    assert "registry-lab investigate RUN F1" in repr(none)
    for shown in (none.replay(), none.shrink(), none.path(), none.holders(), none.operations()):
        assert "nothing to show" in repr(shown)


@pytest.mark.parametrize("session", ["outputs/lab/a.ipynb", ""])
def test_only_a_servers_kernel_works_where_the_command_runs(tmp_path: Path, session: str) -> None:
    root = Path(__file__).resolve().parents[3]
    kernel = {"JPY_SESSION_NAME": session} if session else {}
    ran = subprocess.run(
        [sys.executable, "-c", "import os, lab_utils.notebook; print(os.getcwd())"],
        env={**os.environ, "PYTHONPATH": str(root), FOLDER_VARIABLE: str(tmp_path), **kernel},
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == str(tmp_path if session else root)
