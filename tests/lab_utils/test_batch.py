"""How a notebook ended is told for certain, by real kernels that are killed, hang, raise, or save nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from lab_utils.batch import (
    Event,
    Job,
    NotebookError,
    Status,
    check_parameters,
    notebook_parameters,
    notebooks_folder,
    run_notebooks,
)
from lab_utils.output.store import OpenRun, Store
from lab_utils.values.profiles import UsageError
from tests.lab_utils.made import about

PARAMETERS = 'save_to = ""  # path\nusers = 2  # users\ncategory = ""  # name'
SAVE = """
from pathlib import Path
from lab_utils.output.store import Calibration, CategoryResults, save_category
from tests.lab_utils.made import calibration, failed, result
def save(verdict=None, caught=True, complete=True):
    found = CategoryResults(category, complete, (result("first", verdict),), (calibration(caught=caught),))
    save_category(Path(save_to), found)
"""
FOR_EVER = "import threading\nthreading.Event().wait()"
ALL_CELLS_RAN = "ran_to_its_end = True"


def write(path: Path, *sources: str) -> Path:
    """A notebook of a parameters cell and these cells."""
    cells: list[dict[str, object]] = [
        {
            "cell_type": "code",
            "id": f"cell-{number}",
            "metadata": {"tags": ["parameters"]} if number == 0 else {},
            "execution_count": None,
            "outputs": [],
            "source": source,
        }
        for number, source in enumerate((PARAMETERS, *sources))
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path.write_text(json.dumps({"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}))
    return path


def kernels() -> list[psutil.Process]:
    return [child for child in psutil.Process().children(recursive=True) if "ipykernel_launcher" in child.cmdline()]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenRun]:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
    yield Store(tmp_path / "outputs").begin(about())
    assert kernels() == []


def test_each_way_to_end_has_its_own_status(tmp_path: Path, run: OpenRun) -> None:
    cells: dict[str, list[str]] = {
        "ok": [SAVE, "save()", ALL_CELLS_RAN],
        "findings": [SAVE, "save(failed())", ALL_CELLS_RAN],
        "missed": [SAVE, "save(caught=False)", ALL_CELLS_RAN],
        "gate": [SAVE, "save()", "class GateFailed(Exception): pass\nraise GateFailed('second is UNKNOWN')"],
        "raises": [SAVE, "save()", "1 / 0"],
        "silent": [ALL_CELLS_RAN],
        "unfinished": [SAVE, "save(complete=False)", ALL_CELLS_RAN],
        "exits": ["import sys\nsys.exit(0)", ALL_CELLS_RAN],
        "killed": ["import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"],
        "leaves": ["import os\nos._exit(3)"],
    }
    given = {"save_to": str(run.folder)}
    jobs = [
        Job(name, write(tmp_path / f"{name}.ipynb", *sources), {**given, "category": name}, category=name)
        for name, sources in cells.items()
    ]
    ended = run_notebooks(jobs, run, at_once=4)
    assert {name: one.status for name, one in ended.items()} == {
        "ok": Status.OK,
        "findings": Status.FAILED,
        "missed": Status.FAILED,
        "gate": Status.FAILED,
        "raises": Status.ERROR,
        "silent": Status.ERROR,
        "unfinished": Status.ERROR,
        "exits": Status.ERROR,
        "killed": Status.DEAD_KERNEL,
        "leaves": Status.DEAD_KERNEL,
    }
    assert ended["findings"].message == "not passed: first"
    assert ended["missed"].message == "not passed: SharedDispatcher"
    assert ended["gate"].message == "GateFailed: second is UNKNOWN"
    assert "ZeroDivisionError" in ended["raises"].message
    assert "without saving" in ended["silent"].message
    assert "SIGKILL" in ended["killed"].message
    assert "code 3" in ended["leaves"].message
    recorded = json.loads((run.folder / "run.json").read_text())["notebooks"]
    assert {name: one["status"] for name, one in recorded.items()} == {
        name: one.status.value for name, one in ended.items()
    }
    for name in cells:
        assert (run.folder / "notebooks" / f"{name}.ipynb").is_file()
        assert "<!DOCTYPE html>" in (run.folder / "notebooks" / f"{name}.html").read_text()


def test_a_notebook_past_its_time_is_ended_and_the_others_go_on(tmp_path: Path, run: OpenRun) -> None:
    hangs = Job("hangs", write(tmp_path / "hangs.ipynb", "kept = 1\nkept", FOR_EVER), {"users": 3})
    quick = Job("quick", write(tmp_path / "quick.ipynb", "users"), {"users": 3})
    now = 0.0
    # The clock is moved on only when the one notebook hangs and the other is done: no time is waited for.
    waiting: set[str] = set()

    def move(event: Event) -> None:
        nonlocal now
        # Its last cell; one more is the injected parameters.
        if event.job == "hangs" and event.cell == 3:
            waiting.add("hangs")
        if event.job == "quick" and event.ended is not None:
            waiting.add("quick")
        if waiting == {"hangs", "quick"}:
            now = 1_000.0

    ended = run_notebooks([hangs, quick], run, limit_s=999.0, on_event=move, clock=lambda: now)
    assert {name: one.status for name, one in ended.items()} == {"hangs": Status.TIMEOUT, "quick": Status.OK}
    assert ended["hangs"].message == "not done after 999 s"
    outputs = [cell["outputs"] for cell in json.loads((run.folder / "notebooks" / "hangs.ipynb").read_text())["cells"]]
    assert "".join(outputs[2][0]["data"]["text/plain"]) == "1"


def test_an_interrupt_kills_every_kernel_and_keeps_what_is_there(tmp_path: Path, run: OpenRun) -> None:
    child = (
        "import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', 'import threading; threading.Event().wait()'])"
    )
    names = ("one", "two", "three")
    jobs = [Job(name, write(tmp_path / f"{name}.ipynb", child, FOR_EVER), {}) for name in names]
    below: list[psutil.Process] = []
    hanging: set[str] = set()

    def interrupt(event: Event) -> None:
        if event.cell == 2 and event.ended is None:
            hanging.add(event.job)
            if len(hanging) == 2:
                below.extend(psutil.Process().children(recursive=True))
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_notebooks(jobs, run, at_once=2, on_event=interrupt)
    # Two kernels and a child of each; an orphan that was killed may wait as a zombie for whoever adopted it.
    assert len(below) >= 4
    assert not [process for process in below if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    recorded = json.loads((run.folder / "run.json").read_text())["notebooks"]
    assert {name: one["status"] for name, one in recorded.items()} == dict.fromkeys(names, "cancelled")
    assert sorted(path.stem for path in (run.folder / "notebooks").glob("*.ipynb")) == sorted(hanging)


def test_a_kernel_is_this_python_and_reads_no_ones_settings(
    tmp_path: Path, run: OpenRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    startup = tmp_path / "home" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00.py").write_text("patched = True")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "home"))
    seen = (
        "import sys, os\nfrom lab_utils.output.store import place\n"
        "print(sys.executable, 'patched' in globals(), users, os.environ['REGISTRY_LAB_HEADLESS'])\n"
        "print(place('$REGISTRY_LAB_RUN/protects.toml'))"
    )
    ended = run_notebooks([Job("seen", write(tmp_path / "seen.ipynb", seen), {"users": 5})], run)
    assert ended["seen"].status is Status.OK
    text = json.loads((run.folder / "notebooks" / "seen.ipynb").read_text())["cells"][-1]["outputs"][0]["text"]
    assert "".join(text) == f"{sys.executable} False 5 1\n{run.folder / 'protects.toml'}\n"


def test_a_kept_notebook_names_no_folder_of_the_machine_it_ran_on(tmp_path: Path, run: OpenRun) -> None:
    notebook = write(tmp_path / "own.ipynb", "shown = save_to")
    assert run_notebooks([Job("own", notebook, {"save_to": "$REGISTRY_LAB_RUN"})], run)["own"].status is Status.OK
    kept = (run.folder / "notebooks" / "own.ipynb").read_text()
    assert str(tmp_path) not in kept
    assert json.loads(kept)["metadata"]["papermill"]["output_path"] == "own.ipynb"


def test_parameters_are_read_as_literals(tmp_path: Path) -> None:
    assert notebook_parameters(write(tmp_path / "a.ipynb")) == {"save_to": "", "users": 2, "category": ""}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"user": 3}, ["'user'", "did you mean 'users'"]),
        ({"users": "3"}, ["users='3'", "int"]),
        ({"users": True}, ["users=True is a bool"]),
        ({"save_to": 1}, ["save_to=1", "str"]),
    ],
)
def test_a_parameter_that_the_notebook_does_not_take_is_named(
    tmp_path: Path, given: dict[str, int | str | bool], words: list[str]
) -> None:
    path = write(tmp_path / "a.ipynb")
    check_parameters(path, {"users": 5, "save_to": "x"})
    with pytest.raises(UsageError) as caught:
        check_parameters(path, given)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize("cell", ["users = other", "users: int = 2", "users += 1", "print(1)", "users = ", "a = b = 1"])
def test_a_parameters_cell_of_anything_but_literals_is_refused(
    tmp_path: Path, cell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "PARAMETERS", cell)
    with pytest.raises(NotebookError, match=r"a\.ipynb"):
        notebook_parameters(write(tmp_path / "a.ipynb"))


def test_a_notebook_without_a_parameters_cell_is_refused(tmp_path: Path) -> None:
    (tmp_path / "none.ipynb").write_text('{"cells": []}')
    (tmp_path / "no.ipynb").write_text("[]")
    for name in ("none.ipynb", "no.ipynb", "nowhere.ipynb"):
        with pytest.raises(NotebookError, match=name):
            notebook_parameters(tmp_path / name)


def test_the_notebooks_are_found() -> None:
    assert (notebooks_folder() / "00_overview.ipynb").is_file()
