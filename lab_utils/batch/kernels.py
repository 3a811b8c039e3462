"""Executes one notebook by papermill, in a kernel that can be ended from another thread at any moment.

Imported by `pool` alone, which first takes care that papermill's own import is quick.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import papermill
import psutil
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import KernelManager
from jupyter_core.utils import ensure_event_loop
from nbclient.exceptions import DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillExecutionError

from lab_utils.output.store import RUN_VARIABLE

__all__ = ["CellFailed", "KernelDied", "Watch", "execute"]

_START_SECONDS: Final = 120
_OUTPUT_SECONDS: Final = 60
_ENGINE: Final = "lab_utils"
_LOG: Final = logging.getLogger("lab_utils.batch")
# What they say here is known by other means, and would tear the progress display.
for _quiet in (_LOG, logging.getLogger("papermill")):
    _quiet.addHandler(logging.NullHandler())
    _quiet.propagate = False


class KernelDied(Exception):
    """The kernel's process ended by itself, or was ended by another program."""


class CellFailed(Exception):
    """A cell raised: `name` is the exception's class, `text` its message, `cell` the cell's number in the notebook."""

    def __init__(self, name: str, text: str, cell: int) -> None:
        super().__init__(f"{name}: {text}" if text else name)
        self.name, self.text, self.cell = name, text, cell


class Watch:
    """The handle on one notebook's kernel that other threads may use. Ending is final: no kernel starts after it."""

    def __init__(self, on_cell: Callable[[int, int], None] = lambda done, of: None) -> None:
        self._on_cell = on_cell
        self.exit_code: int | None = None
        self._manager: KernelManager | None = None
        self._lock = threading.Lock()
        self._ended = threading.Event()

    def attach(self, manager: KernelManager) -> None:
        with self._lock:
            self._manager = manager

    def reached(self, cell: int, cells: int) -> None:
        """Told by the client as it begins a cell. A kernel that started while it was being ended goes here."""
        if self.ended:
            self.end()
        self._on_cell(cell, cells)

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def end(self) -> None:
        """Kill the kernel and every process below it. May be called before it started, after it ended, and again."""
        self._ended.set()
        with self._lock:
            pid = self._pid()
        if pid is None:
            return
        try:
            kernel = psutil.Process(pid)
            family = [*kernel.children(recursive=True), kernel]
        except psutil.NoSuchProcess:
            return
        for process in family:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue

    def _pid(self) -> int | None:
        provisioner = getattr(self._manager, "provisioner", None)
        process = getattr(provisioner, "process", None)
        # The handle to the child is asked, not its number: a number may belong to another program by now.
        return process.pid if process is not None and process.poll() is None else None

    def note_exit(self) -> None:
        """Remember how the kernel's process ended, if it has."""
        with self._lock:
            provisioner = getattr(self._manager, "provisioner", None)
            process = getattr(provisioner, "process", None)
            self.exit_code = None if process is None else process.poll()

    def how_it_died(self) -> str:
        """One phrase for a person."""
        if self.exit_code is None:
            return "its process is gone"
        if self.exit_code < 0:
            try:
                return f"killed by {signal.Signals(-self.exit_code).name}"
            except ValueError:
                return f"killed by signal {-self.exit_code}"
        return f"it exited with code {self.exit_code}"


class _ThisPython(KernelSpecManager):
    """The kernel is always this very Python: an installed `python3` kernel may be another environment's."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=command, display_name="Python 3", language="python")


class _Client(PapermillNotebookClient):  # type: ignore[misc]
    """papermill's client, watched."""

    def __init__(self, nb_man: Any, watch: Watch, scratch: Path, **settings: Any) -> None:
        super().__init__(nb_man, **settings)
        self._watch, self._scratch = watch, scratch

    def create_kernel_manager(self) -> KernelManager:
        manager: KernelManager = super().create_kernel_manager()
        manager.kernel_spec_manager = _ThisPython()
        manager.connection_file = str(self._scratch / f"{uuid.uuid4().hex[:12]}.json")
        if os.name == "posix":
            # Sockets in our own folder: of two batches at once, none can take a port that the other has just chosen.
            manager.transport = "ipc"
        self._watch.attach(manager)
        return manager

    def _cleanup_kernel(self) -> None:
        self._watch.note_exit()
        super()._cleanup_kernel()


class _Engine(NBClientEngine):  # type: ignore[misc]
    @classmethod
    def execute_managed_notebook(
        cls, nb_man: Any, kernel_name: str, *, watch: Watch, run: Path, log: Path, scratch: Path, **_: Any
    ) -> None:
        kept = nb_man.nb.metadata.papermill
        # Their names only: who is sent the notebook has no such folders, and the second is renamed when the run ends.
        kept.input_path, kept.output_path = Path(kept.input_path).name, Path(kept.output_path).name
        cells = len(nb_man.nb.cells)
        client = _Client(
            nb_man,
            watch,
            scratch,
            kernel_name=kernel_name,
            log=_LOG,
            timeout=None,
            startup_timeout=_START_SECONDS,
            iopub_timeout=_OUTPUT_SECONDS,
            shutdown_kernel="immediate",
            on_cell_start=lambda cell, cell_index: watch.reached(cell_index, cells),
        )
        # A folder of its own: a person's start-up files would run inside the measured kernel.
        own = {"IPYTHONDIR": str(scratch / "ipython"), "REGISTRY_LAB_HEADLESS": "1", RUN_VARIABLE: str(run)}
        with log.open("wb") as output:
            client.execute(env={**os.environ, **own}, stdout=output, stderr=output)


papermill_engines.register(_ENGINE, _Engine)


def _close_own_loop() -> None:
    """Close the event loop that Jupyter made for this thread, and that it would leave open."""
    loop = ensure_event_loop()
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    loop.close()
    asyncio.set_event_loop(None)


def execute(
    notebook: Path, output: Path, parameters: dict[str, Any], *, watch: Watch, run: Path, log: Path, scratch: Path
) -> None:
    """Run the notebook and keep what it has come to, after every cell, as `output`. Its kernel is gone afterwards.

    `run` is the folder that its kernel knows as `$REGISTRY_LAB_RUN`; `scratch`, which the caller removes, is for its
    sockets and settings; `log` gets what its process itself prints. Raises `KernelDied`, `CellFailed`, or what
    papermill raises. Several threads may call it.
    """
    if watch.ended:
        raise KernelDied("ended before it began")
    try:
        papermill.execute_notebook(
            str(notebook),
            str(output),
            parameters=parameters,
            engine_name=_ENGINE,
            kernel_name="python3",
            progress_bar=False,
            # No cwd: papermill would change that of the whole process.
            watch=watch,
            run=run,
            log=log,
            scratch=scratch,
        )
    except PapermillExecutionError as error:
        raise CellFailed(error.ename, error.evalue, error.cell_index) from error
    except DeadKernelError as error:
        raise KernelDied(watch.how_it_died()) from error
    except RuntimeError as error:
        # What a kernel that dies while it starts looks like.
        if "Kernel died" in str(error) or watch.ended:
            raise KernelDied(watch.how_it_died()) from error
        raise
    finally:
        if watch.exit_code is None:
            watch.end()
        _close_own_loop()
        if log.is_file() and log.stat().st_size == 0:
            log.unlink()
