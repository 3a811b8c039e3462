"""The ending of a notebook is reported reliably, shown by real kernels that are killed, hang, raise, or save
nothing."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from lab_utils.batch import (
    Ended,
    Event,
    Job,
    NotebookError,
    Status,
    check_parameters,
    forked,
    notebook_parameters,
    notebooks_folder,
    publish,
    run_notebooks,
)
from lab_utils.output import pages
from lab_utils.output.store import OpenRun, Store
from lab_utils.runner.forkserver import is_available
from lab_utils.values.profiles import UsageError
from tests.lab_utils.made import about, notebook
from tests.processes import is_alive, left

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
FORKED = pytest.param("forked", marks=pytest.mark.skipif(not is_available(), reason="nothing is forked here"))
MODES = ("spawned", FORKED)


def write(path: Path, *sources: str) -> Path:
    """A notebook of a parameters cell and these cells."""
    path.write_text(notebook(PARAMETERS, *sources))
    return path


def servers() -> list[psutil.Process]:
    """The fork server and those forked from it, which outlive a batch."""
    found: list[psutil.Process] = []
    for child in psutil.Process().children():
        # Any of them may have ended since it was listed.
        with suppress(psutil.Error):
            if "lab_utils.runner.forkserver" in str(child.cmdline()):
                found += [child, *child.children()]
    return found


def below() -> list[psutil.Process]:
    """The processes below this one, but for the servers."""
    found = psutil.Process().children(recursive=True)
    # Asked for afterwards: a server that is just being forked is none of those found.
    standing = servers()
    return [one for one in found if one not in standing and is_alive(one)]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenRun]:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[3]))
    yield Store(tmp_path / "outputs").begin(about())
    # A process that writes a page ends by itself when nobody waits for the page any more.
    assert left(below()) == []


@pytest.mark.parametrize("kernel_mode", MODES)
def test_each_way_to_end_has_its_own_status(tmp_path: Path, run: OpenRun, kernel_mode: str) -> None:
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
    if kernel_mode == "spawned":
        # The kernel's process reports the end of those; all others are read from what a kernel of either kind has saved.
        cells = {name: cells[name] for name in ("killed", "leaves")}
    jobs = [
        Job(name, write(tmp_path / f"{name}.ipynb", *sources), {**given, "category": name}, category=name)
        for name, sources in cells.items()
    ]
    ended = run_notebooks(jobs, run, at_once=4, kernel_mode=kernel_mode)
    expected = {
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
    assert {name: one.status for name, one in ended.items()} == {name: expected[name] for name in cells}
    messages = {
        "findings": "not passed: first",
        "missed": "not passed: SharedDispatcher",
        "gate": "GateFailed: second is UNKNOWN",
        "raises": "cell 5 raised ZeroDivisionError: division by zero",
        "silent": "it ended without saving its results",
        "killed": "the kernel died: killed by SIGKILL",
        "leaves": "the kernel died: it exited with code 3",
    }
    for name in cells.keys() & messages.keys():
        assert ended[name].message == messages[name]
    recorded = json.loads((run.folder / "run.json").read_text())["notebooks"]
    assert {name: one["status"] for name, one in recorded.items()} == {
        name: one.status.value for name, one in ended.items()
    }
    for name in cells:
        assert (run.folder / "notebooks" / f"{name}.ipynb").is_file()
        assert "<!DOCTYPE html>" in (run.folder / "notebooks" / f"{name}.html").read_text()


@pytest.mark.parametrize("kernel_mode", MODES)
def test_a_notebook_past_its_time_is_ended_and_the_others_go_on(tmp_path: Path, run: OpenRun, kernel_mode: str) -> None:
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

    ended = run_notebooks([hangs, quick], run, limit_s=999.0, on_event=move, clock=lambda: now, kernel_mode=kernel_mode)
    assert {name: one.status for name, one in ended.items()} == {"hangs": Status.TIMEOUT, "quick": Status.OK}
    assert ended["hangs"].message == "not done after 999 s; on a slow or busy machine: --timeout SECONDS"
    outputs = [cell["outputs"] for cell in json.loads((run.folder / "notebooks" / "hangs.ipynb").read_text())["cells"]]
    assert "".join(outputs[2][0]["data"]["text/plain"]) == "1"


@pytest.mark.parametrize("kernel_mode", MODES)
def test_an_interrupt_kills_every_kernel_and_keeps_what_is_there(
    tmp_path: Path, run: OpenRun, kernel_mode: str
) -> None:
    child = (
        "import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', 'import threading; threading.Event().wait()'])"
    )
    names = ("one", "two", "three")
    jobs = [Job(name, write(tmp_path / f"{name}.ipynb", child, FOR_EVER), {}) for name in names]
    seen: list[psutil.Process] = []
    hanging: set[str] = set()

    def interrupt(event: Event) -> None:
        if event.cell == 2 and event.ended is None:
            hanging.add(event.job)
            if len(hanging) == 2:
                seen.extend(below())
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_notebooks(jobs, run, at_once=2, on_event=interrupt, kernel_mode=kernel_mode)
    # Two kernels and a child of each.
    assert len(seen) == 4
    assert left(seen) == []
    recorded = json.loads((run.folder / "run.json").read_text())["notebooks"]
    assert {name: one["status"] for name, one in recorded.items()} == dict.fromkeys(names, "cancelled")
    assert sorted(path.stem for path in (run.folder / "notebooks").glob("*.ipynb")) == sorted(hanging)


@pytest.mark.parametrize("kernel_mode", MODES)
def test_a_kernel_is_this_python_and_reads_no_ones_settings(
    tmp_path: Path, run: OpenRun, monkeypatch: pytest.MonkeyPatch, kernel_mode: str
) -> None:
    startup = tmp_path / "home" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00.py").write_text("patched = True")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "home"))
    # As where a batch is started from a notebook.
    monkeypatch.setenv("JPY_PARENT_PID", str(os.getppid()))
    seen = (
        "import sys, os\nfrom lab_utils.output.store import place\n"
        f"print(sys.executable == {sys.executable!r}, 'patched' in globals(), users, os.environ['REGISTRY_LAB_HEADLESS'])\n"
        f"print(str(place('$REGISTRY_LAB_RUN/protects.toml')) == {str(run.folder / 'protects.toml')!r})\n"
        f"print(get_ipython().history_manager.enabled, os.getcwd() == {str(Path.cwd())!r}, os.getsid(0) == os.getpid())\n"
        "print(os.environ.get('JPY_PARENT_PID') in (None, str(os.getppid())))"
    )
    job = Job("seen", write(tmp_path / "seen.ipynb", seen), {"users": 5})
    assert run_notebooks([job], run, kernel_mode=kernel_mode)["seen"].status is Status.OK
    text = json.loads((run.folder / "notebooks" / "seen.ipynb").read_text())["cells"][-1]["outputs"][0]["text"]
    assert "".join(text) == "True False 5 1\nTrue\nFalse True True\nTrue\n"


SHOWN = (
    "1 + 1",
    "print('to', end=' '); print('stdout'); import sys; print('stderr', file=sys.stderr)",
    "_ + len(In)",
    "import os; os.write(1, b'past Python\\n')",
    "import pandas as pd\nframe = pd.DataFrame({'name': ['a', 'b'], 'value': [0.5, None]})\nframe",
    "import io\nfile = io.BytesIO(); frame.to_parquet(file); pd.read_parquet(file).equals(frame)",
    """from lab_utils import charts
from lab_utils.output import frames
from tests.lab_utils.made import op, result
charts.timeline(frames.operations('r', [result(operations=[op(0), op(1, 'bo')])]))""",
    "await __import__('asyncio').sleep(0, 'awaited')",
    "%whos int",
    "import warnings; warnings.warn('said once')",
    "__name__, sys.argv[1]",
    "def fails():\n    return {}['missing']\nfails()",
)


@pytest.mark.skipif(not is_available(), reason="nothing is forked here")
def test_a_forked_kernel_shows_what_a_spawned_one_shows(tmp_path: Path, run: OpenRun) -> None:
    shown_in = write(tmp_path / "shown.ipynb", *SHOWN)
    shown = {}
    for mode in ("spawned", "forked"):
        assert run_notebooks([Job(mode, shown_in, {})], run, kernel_mode=mode)[mode].status is Status.ERROR
        kept = (run.folder / "notebooks" / "shown.ipynb").read_text()
        # A cell's file is named after the kernel's process.
        kept = re.sub(r"ipykernel_\d+", "ipykernel", kept)
        cells = [cell for cell in json.loads(kept)["cells"] if cell["cell_type"] == "code"]
        shown[mode] = {"".join(cell["source"]): cell["outputs"] for cell in cells}
    assert all(shown["spawned"][source] for source in SHOWN)
    assert sum("<svg" in str(one) for outputs in shown["forked"].values() for one in outputs) == 1
    assert shown["forked"] == shown["spawned"]


@pytest.mark.skipif(not is_available(), reason="nothing is forked here")
def test_forked_kernels_share_no_random_numbers_and_no_modules_of_each_other(tmp_path: Path, run: OpenRun) -> None:
    drawn = (
        "import random, numpy, sys, os\n"
        "sys.modules['left_behind' + str(os.getpid())] = sys\n"
        "print(random.random(), numpy.random.rand(), sum('left_behind' in name for name in sys.modules))\n"
        "print('isoduration' in sys.modules)"
    )
    jobs = [Job(name, write(tmp_path / f"{name}.ipynb", drawn), {}) for name in ("one", "two")]
    assert {one.status for one in run_notebooks(jobs, run).values()} == {Status.OK}
    texts = []
    for name in ("one", "two"):
        cell = json.loads((run.folder / "notebooks" / f"{name}.ipynb").read_text())["cells"][-1]
        texts.append("".join(cell["outputs"][0]["text"]).split())
    (random_one, numpy_one, *rest_one), (random_two, numpy_two, *rest_two) = texts
    assert random_one != random_two
    assert numpy_one != numpy_two
    assert rest_one == rest_two == ["1", "False"]


@pytest.mark.skipif(not is_available(), reason="nothing is forked here")
def test_a_forked_kernel_is_interrupted_restarted_and_ended_as_jupyter_asks(tmp_path: Path) -> None:
    with pages.quick_imports():
        from jupyter_client.manager import KernelManager

        from lab_utils.batch.kernels import ForkedKernels
    log = tmp_path / "log"
    manager = KernelManager(connection_file=str(tmp_path / "kernel.json"), transport="ipc")
    manager.provisioner = ForkedKernels(kernel_spec=manager.kernel_spec, parent=manager)
    with log.open("wb") as output:
        manager.start_kernel(stdout=output, stderr=output)
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=120)
        # A signal between Python's last look for one and the start of a wait would end neither: so no wait is long.
        # After an error a kernel aborts the requests that arrive at once, unless it is asked not to.
        asked = client.execute("import time; print('began')\nwhile True: time.sleep(0.01)", stop_on_error=False)
        # Its output, and not the echo of its code, which comes first: a kernel that runs nothing ignores the signal.
        while client.get_iopub_msg(timeout=120)["msg_type"] != "stream":
            pass
        manager.interrupt_kernel()
        # On a slow machine answers to requests from its start come first.
        while (reply := client.get_shell_msg(timeout=120))["parent_header"]["msg_id"] != asked:
            pass
        assert reply["content"]["ename"] == "KeyboardInterrupt"
        number = client.execute_interactive("import os", user_expressions={"pid": "os.getpid()"}, timeout=120)
        first = int(number["content"]["user_expressions"]["pid"]["data"]["text/plain"])
        manager.restart_kernel(now=True, stdout=output, stderr=output)
        client.wait_for_ready(timeout=120)
        number = client.execute_interactive("import os", user_expressions={"pid": "os.getpid()"}, timeout=120)
        assert int(number["content"]["user_expressions"]["pid"]["data"]["text/plain"]) != first
        assert not psutil.pid_exists(first)
    finally:
        client.stop_channels()
        manager.shutdown_kernel()
    assert not manager.has_kernel
    assert below() == []
    assert log.read_bytes() == b""


KILLED = """
import sys
from pathlib import Path
from lab_utils.batch import Job, run_notebooks
from lab_utils.output.store import Store
from tests.lab_utils.made import about

def tell(event):
    if event.cell == 2:
        print("hanging", flush=True)

run_notebooks([Job("hangs", Path(sys.argv[1]), {})], Store(Path(sys.argv[2])).begin(about()), on_event=tell)
"""


@pytest.mark.skipif(not is_available(), reason="a spawned kernel looks for its parent once a second")
def test_nothing_is_left_of_a_batch_that_was_killed(tmp_path: Path) -> None:
    child = "import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'])"
    hangs = write(tmp_path / "hangs.ipynb", child, FOR_EVER)
    command = [sys.executable, "-c", KILLED, str(hangs), str(tmp_path / "outputs")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]) as batch:
        assert batch.stdout is not None
        assert batch.stdout.readline() == b"hanging\n"
        started = psutil.Process(batch.pid).children(recursive=True)
        # The server, those that import for kernels and for pages, a kernel, and its child.
        assert len(started) == 5
        batch.kill()
    assert left(started) == []


MEGABYTES = """
import os, sys
line = f"\\x1b[1;31mred\\x1b[0m from {os.path.expanduser('~')}/acme/x.py " + 50 * "y"
print("first", *(250 * (1_000 * f"{line}\\n",)), "last")
for number in range(100):
    os.write(2, 1_000 * b"of C\\x1b[0m, from /tmp/acme/x.c\\n")
print("\\x1b]0;title\\x07said", file=sys.stderr)
"""


def test_megabytes_of_coloured_output_leave_a_small_page_and_a_file(tmp_path: Path, run: OpenRun) -> None:
    job = Job("loud", write(tmp_path / "loud.ipynb", MEGABYTES, ALL_CELLS_RAN), {})
    ended = run_notebooks([job], run)["loud"]
    assert ended == Ended(Status.OK, ended.seconds)
    book, page = (run.folder / "notebooks" / f"loud.{kind}" for kind in ("ipynb", "html"))
    text = page.read_text(encoding="utf-8")
    assert len(text) < 120_000
    assert book.stat().st_size < 60_000
    assert "/acme/" not in "".join(json.loads(book.read_text(encoding="utf-8"))["cells"][1]["outputs"][0]["text"])
    for words in (
        "first red from ~/.../x.py yyy",
        "yyy\n last\n",
        "bytes are left out here, see logs/loud-cell-2-stdout.log",
    ):
        assert words in text, words
    logs = {path.name: path.read_text(encoding="utf-8") for path in (run.folder / "logs").iterdir()}
    assert sorted(logs) == ["loud-cell-2-stdout.log", "loud.log"]
    for log in logs.values():
        assert "\x1b" not in log
        assert "acme" not in log
    whole = logs["loud-cell-2-stdout.log"]
    assert whole.startswith("first red")
    assert whole.endswith("last\n")
    assert "bytes are left out here ...\n" in whole
    assert len(whole) < 20_000_000
    assert logs["loud.log"].count("of C, from .../x.c\n") == 100_000


def test_of_many_outputs_and_of_a_deep_traceback_a_part_is_kept(tmp_path: Path, run: OpenRun) -> None:
    many = "from IPython.display import display\nfor number in range(300):\n    display(number)"
    deep = "def deep(left):\n    return odd(left - 1) if left else 1 / 0\nodd = lambda left: deep(left)\ndeep(100)"
    job = Job("much", write(tmp_path / "much.ipynb", many, deep), {})
    assert run_notebooks([job], run)["much"].status is Status.ERROR
    cells = json.loads((run.folder / "notebooks" / "much.ipynb").read_text())["cells"]
    outputs = [cell["outputs"] for cell in cells if cell["source"] and cell["cell_type"] == "code"][-2:]
    assert len(outputs[0]) == 200
    assert len(outputs[1][0]["traceback"]) == 60
    assert "ZeroDivisionError" in outputs[1][0]["traceback"][-1]


def test_a_cell_that_prints_without_end_is_ended_as_any_other(tmp_path: Path, run: OpenRun) -> None:
    endless = "while True:\n    print('\\x1b[31m' + 'z' * 10_000)"
    job = Job("endless", write(tmp_path / "endless.ipynb", endless), {})
    now = 0.0

    def move(event: Event) -> None:
        nonlocal now
        now = 1_000.0 if event.cell == 1 else now

    ended = run_notebooks([job], run, limit_s=999.0, on_event=move, clock=lambda: now)
    assert ended["endless"].status is Status.TIMEOUT
    assert (run.folder / "notebooks" / "endless.html").stat().st_size < 120_000


@pytest.mark.skipif(not is_available(), reason="a page is a fork's, and nothing is forked here")
def test_a_page_can_be_given_up(tmp_path: Path, run: OpenRun) -> None:
    place = run.path("notebooks/one.ipynb")
    write(place, "1")
    with pytest.raises(forked.ChildFailed, match="given up"):
        forked.write_page(run, "notebooks/one.ipynb", is_over=lambda: True)
    forked.write_page(run, "notebooks/one.ipynb")
    assert place.with_suffix(".html").exists()


def test_a_disk_that_is_full_does_not_stop_the_cancelling(
    tmp_path: Path, run: OpenRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [Job(name, write(tmp_path / f"{name}.ipynb", FOR_EVER), {}) for name in ("one", "two")]
    hanging: set[str] = set()

    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def interrupt(event: Event) -> None:
        if event.cell == 1:
            hanging.add(event.job)
            if len(hanging) == 2:
                monkeypatch.setattr(run, "note", full)
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_notebooks(jobs, run, at_once=2, on_event=interrupt)


def test_why_there_is_no_page_is_told_with_how_the_notebook_ended(tmp_path: Path, run: OpenRun) -> None:
    job = Job(
        "odd",
        write(tmp_path / "odd.ipynb", "import os\nos.makedirs(f'{save_to}/notebooks/odd.html')"),
        {"save_to": str(run.folder)},
    )
    ended = run_notebooks([job], run)["odd"]
    assert ended.status is Status.ERROR
    assert "no page was made" in ended.message
    assert "IsADirectoryError" in ended.message


def test_a_report_made_by_another_process_is_noted_here(run: OpenRun) -> None:
    publish(run, "error")
    assert run.about["outcomes"] == {"UNKNOWN": len(run.about["checks"])}
    assert (run.folder / "frames" / "verdicts.parquet").is_file()


def test_a_kept_notebook_names_no_folder_of_the_machine_it_ran_on(tmp_path: Path, run: OpenRun) -> None:
    own = write(tmp_path / "own.ipynb", "shown = save_to")
    assert run_notebooks([Job("own", own, {"save_to": "$REGISTRY_LAB_RUN"})], run)["own"].status is Status.OK
    kept = (run.folder / "notebooks" / "own.ipynb").read_text()
    assert str(tmp_path) not in kept
    assert json.loads(kept)["metadata"]["papermill"]["output_path"] == "own.ipynb"


def test_a_running_notebook_can_be_read_with_all_that_its_cells_have_shown(tmp_path: Path, run: OpenRun) -> None:
    reads = "import nbformat\nkept = nbformat.read(f'{save_to}/notebooks/own.ipynb', 4)\n"
    reads += "assert kept.cells[-2].outputs[0].text == 'shown \u00e4 so far\\n'"
    own = write(tmp_path / "own.ipynb", "print('shown \u00e4 so far')", reads)
    ended = run_notebooks([Job("own", own, {"save_to": str(run.folder)})], run)["own"]
    assert (ended.status, ended.message) == (Status.OK, "")


def test_parameters_are_read_as_literals(tmp_path: Path) -> None:
    assert notebook_parameters(write(tmp_path / "a.ipynb")) == {"save_to": "", "users": 2, "category": ""}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"user": 3}, ["'user'", "did you mean 'users'"]),
        ({"users": "3"}, ["users='3'", "int"]),
        ({"users": True}, ["users=True is of type bool"]),
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
