"""One run of a grid, made by a process of its own here or on a worker, and brought back as bytes."""

from __future__ import annotations

import importlib.metadata
import io
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Final

from lab_utils.runner.calibrations import KEPT_VARIABLE, code_digest, default_folder
from lab_utils.runner.scratch import scratch
from lab_utils.runner.server import SERVER_VARIABLE, SLOTS_VARIABLE

__all__ = ["COMMAND", "Brought", "Errand", "GivenUp", "OtherLab", "carry_out", "carry_out_on_worker", "lab_here"]

_LOOK_EACH_S: Final = 0.2
_GRACE_S: Final = 20.0
_SAID: Final = 4_000
_MOST_JOBS: Final = 128
# The pipe closes when its waiting reader ends, in any way: then the run is interrupted.
COMMAND: Final = """
import os, signal, sys, threading

def watch():
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=watch, daemon=True).start()
from lab_utils.cli import main
sys.exit(main(sys.argv[1:]))
"""


class GivenUp(Exception):
    """Nobody waits for the run any more; it was ended."""


class OtherLab(Exception):
    """A worker has another version of the lab, or another Python, than the one that made the grid."""


@dataclass(frozen=True, slots=True)
class Errand:
    """The inputs of one run, wherever it is made.

    `words`: the command line after `registry-lab`, without `--out`. `files`: the files of the sending machine that the
    run reads, by their paths below the folder where the run is made. `lab`: the version that must make it, "" for any.
    `grid` and `number` name it.
    """

    grid: str
    number: int
    words: tuple[str, ...]
    files: Mapping[str, bytes] = field(default_factory=dict)
    lab: str = ""
    code: str = COMMAND


@dataclass(frozen=True, slots=True)
class Brought:
    """How the run ended, the end of its output, and the folder that it has written, as a zip archive."""

    exit_code: int
    said: str
    archive: bytes
    seconds: float


@cache
def lab_here() -> str:
    """The version of the lab in this process: its number, a digest of its code, and the Python below it."""
    number, python = importlib.metadata.version("agent-registry-lab"), platform.python_version().rpartition(".")[0]
    return f"agent-registry-lab {number} (code {code_digest()[:8]}, Python {python})"


def carry_out(
    errand: Errand,
    environment: Mapping[str, str],
    *,
    here: Path | None = None,
    is_wanted: Callable[[], bool] = lambda: True,
) -> Brought:
    """Make the run, in a process of its own, in the folder `here` or in a new one that holds the errand's files.

    It may be called in any thread. `environment` is added to that of this process. Raises `GivenUp` once `is_wanted`
    says no: the run is ended first, as it is if this process ends in whatever way.
    """
    with scratch("errand") as folder:
        for name, text in errand.files.items():
            place = folder / "here" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(text)
        sent, out, printed = folder / "here", folder / "out", folder / "printed"
        sent.mkdir(exist_ok=True)
        out.mkdir()
        # Sent modules come before the worker's own of the same name.
        path = filter(None, [str(sent) if errand.files else "", os.environ.get("PYTHONPATH")])
        began = time.monotonic()
        with printed.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-c", errand.code, *errand.words, "--out", str(out)],
                cwd=here or sent,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path), **environment},
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=subprocess.STDOUT,
                # Ctrl-C is for the waiting process, which ends the run in order.
                start_new_session=True,
            )
        try:
            code = _waited(process, is_wanted)
        finally:
            _end(process)
        seconds = time.monotonic() - began
        return Brought(code, _tail(printed), _zipped(out), seconds)


def _waited(process: subprocess.Popen[bytes], is_wanted: Callable[[], bool]) -> int:
    while True:
        try:
            return process.wait(_LOOK_EACH_S)
        except subprocess.TimeoutExpired:
            if not is_wanted():
                raise GivenUp from None


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        if sys.platform != "win32":
            with suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()


def _tail(printed: Path) -> str:
    text = printed.read_bytes()
    return text[-_SAID:].decode("utf-8", "replace")


def _zipped(out: Path) -> bytes:
    """The runs below a folder; neither links to them nor the files beside them."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        for run in sorted(out.iterdir()):
            if run.is_symlink() or not (run / "run.json").is_file():
                continue
            for path in sorted(run.rglob("*")):
                if path.is_file():
                    zipped.write(path, path.relative_to(out).as_posix())
    return archive.getvalue()


def carry_out_on_worker(errand: Errand) -> Brought:
    """The task of a Dask worker. Raises `OtherLab` where the worker's lab is not the errand's."""
    from distributed import get_worker

    if errand.lab not in ("", lab_here()):
        raise OtherLab(f"a worker runs {lab_here()}, the grid is of {errand.lab}; install the same on both")
    worker = get_worker()
    key = worker.get_current_task()

    def is_wanted() -> bool:
        # Dask cannot end a thread: it forgets the task of a client that is gone, or marks it.
        task = worker.state.tasks.get(key)
        return task is not None and task.state != "cancelled"

    # As many checks at once as the machine has cores, however many workers there are: they share its slots.
    jobs = min(_MOST_JOBS, max(2, os.cpu_count() or 2))
    errand = replace(errand, words=(*errand.words, "--jobs", str(jobs)))
    environment = {
        KEPT_VARIABLE: str(default_folder()),
        SLOTS_VARIABLE: _slots_of_machine(),
        SERVER_VARIABLE: "",
    }
    return carry_out(errand, environment, is_wanted=is_wanted)


def _slots_of_machine() -> str:
    """The folder of the locks that all workers of this account on this machine share."""
    named = os.environ.get(SLOTS_VARIABLE)
    folder = Path(named) if named else Path(tempfile.gettempdir(), f"agent-registry-lab-{_account()}", "slots")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return str(folder)


def _account() -> str:
    return str(os.getuid()) if sys.platform != "win32" else "slots"
