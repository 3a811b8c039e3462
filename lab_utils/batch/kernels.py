"""Executes one notebook by papermill, in a kernel that can be ended from another thread at any moment.

Imported by `pool` alone, which first takes care that papermill's own import is quick.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import papermill
import psutil
from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import KernelManager
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from jupyter_core.utils import ensure_event_loop
from nbclient.exceptions import DeadKernelError
from nbformat.notebooknode import NotebookNode
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines
from papermill.exceptions import PapermillExecutionError

from lab_utils.batch.forked import start_kernel
from lab_utils.output.pages import fit_output, reported_output
from lab_utils.output.store import RUN_VARIABLE
from lab_utils.output.store.files import write
from lab_utils.runner.forkserver import ForkedChild, ServerFailed
from lab_utils.runner.printed import Printed
from lab_utils.values.texts import plain_output, reported_lines

__all__ = ["CellFailed", "ForkedKernels", "KernelDied", "Watch", "execute"]

_START_SECONDS: Final = 120
_OUTPUT_SECONDS: Final = 60
_ENGINE: Final = "lab_utils"
_BOUNDED: Final = "from lab_utils.notebook.bounded import bound_output; bound_output(); del bound_output"
_LAUNCHER: Final = (sys.executable, "-m", "ipykernel_launcher")
_SECONDS_BETWEEN: Final = 0.01
_READ: Final = 1 << 16
_LAST_WORDS_SECONDS: Final = 5.0
_SHOWN_EVERY_SECONDS: Final = 0.5
_MOST_OUTPUTS: Final = 200
_FRAMES: Final = 60
_LOG: Final = logging.getLogger("lab_utils.batch")
# Their messages here are known by other means, and would tear the progress display.
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
        self._provisioner: LocalProvisioner | None = None
        self._lock = threading.Lock()
        self._ended = threading.Event()

    def attach(self, provisioner: LocalProvisioner) -> None:
        with self._lock:
            self._provisioner = provisioner

    def reached(self, cell: int, cells: int) -> None:
        """Called by the client as it begins a cell. A kernel that started while it was being ended goes here."""
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
            process = self._process()
            # The handle is asked, not the number: a number may belong to another program by now.
            if process is None or process.poll() is not None:
                return
            # A fork has no number before its server has come to it.
            if process.pid is not None:
                with suppress(psutil.NoSuchProcess):
                    for below in psutil.Process(process.pid).children(recursive=True):
                        with suppress(psutil.NoSuchProcess):
                            below.kill()
            process.kill()

    def note_exit(self) -> None:
        """Remember how the kernel's process ended, if it has."""
        with self._lock:
            process = self._process()
            self.exit_code = None if process is None else process.poll()

    def _process(self) -> Any:
        return self._provisioner.process if self._provisioner is not None else None

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
        return KernelSpec(argv=[*_LAUNCHER, "-f", "{connection_file}"], display_name="Python 3", language="python")


class _Forked:
    """The process of a forked kernel, with the methods of `Popen` that Jupyter calls. Several threads may call it."""

    stdin = stdout = stderr = None

    def __init__(self, child: ForkedChild) -> None:
        self._child: ForkedChild | None = child
        self._lock = threading.Lock()
        self._exit_code: int | None = None

    @property
    def pid(self) -> int | None:
        self.poll()
        return self._child.pid if self._child is not None else None

    def poll(self) -> int | None:
        with self._lock:
            if self._child is not None:
                try:
                    self._exit_code = self._child.poll()
                except (ServerFailed, OSError):
                    # No child outlives its server.
                    self._exit_code = -signal.SIGKILL
            return self._exit_code

    def wait(self) -> int | None:
        """The exit code, of a process that has ended."""
        code = self.poll()
        self.close()
        return code

    def send_signal(self, number: int) -> None:
        with self._lock:
            if self._child is not None:
                self._child.signal(number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def close(self) -> None:
        """Kill it, if it has not ended."""
        with self._lock:
            if self._child is not None:
                self._child.close()
                self._child = None


class ForkedKernels(LocalProvisioner):
    """Starts a kernel as a fork of a process that has imported the modules that notebooks use."""

    process: _Forked | None  # type: ignore[assignment]

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        output = kwargs["stdout"]
        asked = {
            "arguments": cmd[len(_LAUNCHER) :],
            # It would end where its parent is not that of the variable.
            "environment": {name: value for name, value in kwargs["env"].items() if name != "JPY_PARENT_PID"},
            "path": sys.path,
            "cwd": kwargs.get("cwd") or str(Path.cwd()),
            # A pipe by its number: this process holds it open.
            "log": f"/proc/{os.getpid()}/fd/{output}" if isinstance(output, int) else output.name,
        }
        self.process = _Forked(start_kernel(asked))
        return self.connection_info

    async def wait(self) -> int | None:
        if self.process is not None:
            # The news of its end comes over a socket that other threads read too.
            while self.process.poll() is None:  # noqa: ASYNC110
                await asyncio.sleep(_SECONDS_BETWEEN)
        return await super().wait()

    async def cleanup(self, restart: bool = False) -> None:
        await super().cleanup(restart)
        if self.process is not None:
            self.process.close()


class _Manager(NotebookExecutionManager):  # type: ignore[misc]
    """Saves the notebook whenever a cell of code begins, so that one whose run is killed can be read.

    papermill saves it twice at each cell, also at those of text, checked and indented, which takes as long as a small
    check."""

    def __init__(self, papermills: NotebookExecutionManager) -> None:
        super().__init__(papermills.nb, papermills.output_path, progress_bar=False)
        self._is_saved_later = False

    def save(self, **options: Any) -> None:
        if not self._is_saved_later:
            super().save(**options)

    def cell_start(self, cell: NotebookNode, cell_index: int | None = None, **options: Any) -> None:
        self._is_saved_later = True
        super().cell_start(cell, cell_index, **options)
        self._is_saved_later = False
        if cell.cell_type == "code":
            # Unchecked and in one line, which the last save replaces.
            write(Path(self.output_path), json.dumps(self.nb))

    def cell_complete(self, cell: NotebookNode, cell_index: int | None = None, **options: Any) -> None:
        self._is_saved_later = True
        super().cell_complete(cell, cell_index, **options)
        self._is_saved_later = False


class _Client(PapermillNotebookClient):  # type: ignore[misc]
    """papermill's client, watched. Of a cell's output it keeps head and tail, and the rest in a file."""

    def __init__(
        self, nb_man: Any, watch: Watch, scratch: Path, is_forked: bool, printed: Path, **settings: Any
    ) -> None:
        super().__init__(nb_man, **settings)
        self._watch, self._scratch, self._is_forked = watch, scratch, is_forked
        self._file = printed
        self._printed: dict[tuple[int, str], tuple[Printed, NotebookNode]] = {}
        self._counts: Counter[int] = Counter()
        self._shown_at = 0.0

    def output(
        self, outs: list[NotebookNode], msg: dict[str, Any], display_id: str | None, cell_index: int
    ) -> NotebookNode | None:
        kind, content = msg["msg_type"], msg["content"]
        if kind == "stream":
            return self._stream(outs, str(content["name"]), str(content["text"]), cell_index)
        self._counts[cell_index] += 1
        if self._counts[cell_index] > _MOST_OUTPUTS:
            return None
        if kind == "error":
            content["evalue"] = reported_lines(content["evalue"])
            content["traceback"] = [reported_lines(plain_output(str(part))) for part in content["traceback"][-_FRAMES:]]
        elif data := content.get("data"):
            content["data"] = {name: fit_output(name, value) for name, value in data.items()}
        shown: NotebookNode | None = super().output(outs, msg, display_id, cell_index)
        return shown

    def _stream(self, outs: list[NotebookNode], name: str, text: str, cell: int) -> NotebookNode | None:
        """Add to a cell's printed text, which is one output. It is shown anew only now and then: so all of it costs
        time in proportion to its length."""
        if (cell, name) not in self._printed:
            file = self._file.with_name(f"{self._file.stem}-cell-{cell + 1}-{name}.log")
            self._printed[cell, name] = Printed(file), NotebookNode(output_type="stream", name=name, text="")  # type: ignore[no-untyped-call]
        printed, shown = self._printed[cell, name]
        printed.add(text.encode("utf-8", "backslashreplace"))
        if not any(one is shown for one in outs):
            outs.append(shown)
        if (now := time.monotonic()) - self._shown_at >= _SHOWN_EVERY_SECONDS:
            self._shown_at = now
            self._show()
        return shown

    def _show(self) -> None:
        for printed, shown in self._printed.values():
            shown["text"] = reported_output(printed.text())

    def execute_cell(self, cell: NotebookNode, cell_index: int, **more: Any) -> NotebookNode:
        try:
            done: NotebookNode = super().execute_cell(cell, cell_index, **more)
            return done
        finally:
            self._show()
            for printed, _ in self._printed.values():
                printed.close()
            self._printed.clear()

    def create_kernel_manager(self) -> KernelManager:
        manager: KernelManager = super().create_kernel_manager()
        manager.kernel_spec_manager = _ThisPython()
        manager.connection_file = str(self._scratch / f"{uuid.uuid4().hex[:12]}.json")
        if os.name == "posix":
            # Sockets in our own folder: of two batches at once, none can take a port that the other has just chosen.
            manager.transport = "ipc"
        provisioner = ForkedKernels if self._is_forked else LocalProvisioner
        manager.provisioner = provisioner(kernel_spec=manager.kernel_spec, parent=manager)
        self._watch.attach(manager.provisioner)
        return manager

    def _cleanup_kernel(self) -> None:
        self._watch.note_exit()
        super()._cleanup_kernel()


@contextmanager
def _gathered(log: Path) -> Iterator[int]:
    """Yield a descriptor to write to; the text is kept in the file `log`, of a long one head and tail."""
    reading, writing = os.pipe()
    gathered = Printed(log, always=True)

    def read() -> None:
        while data := os.read(reading, _READ):
            gathered.add(data)

    thread = threading.Thread(target=read, name=f"log of {log.stem}", daemon=True)
    thread.start()
    try:
        yield writing
    finally:
        os.close(writing)
        # Processes that the kernel has started may hold the other end: the log is then no longer a kernel's.
        thread.join(_LAST_WORDS_SECONDS)
        if not thread.is_alive():
            os.close(reading)
        gathered.close()


class _Engine(NBClientEngine):  # type: ignore[misc]
    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: Any,
        kernel_name: str,
        *,
        watch: Watch,
        run: Path,
        log: Path,
        scratch: Path,
        is_forked: bool,
        **_: Any,
    ) -> None:
        kept = nb_man.nb.metadata.papermill
        # Their names only: a person who receives the notebook has no such folders, and the second is renamed when the
        # run ends.
        kept.input_path, kept.output_path = Path(kept.input_path).name, Path(kept.output_path).name
        cells = len(nb_man.nb.cells)
        manager = _Manager(nb_man)
        client = _Client(
            manager,
            watch,
            scratch,
            is_forked,
            log,
            kernel_name=kernel_name,
            log=_LOG,
            timeout=None,
            startup_timeout=_START_SECONDS,
            iopub_timeout=_OUTPUT_SECONDS,
            shutdown_kernel="immediate",
            extra_arguments=["--HistoryManager.enabled=False", f"--IPKernelApp.exec_lines={_BOUNDED}"],
            on_cell_start=lambda cell, cell_index: watch.reached(cell_index, cells),
        )
        # A folder of its own: a person's start-up files would run inside the measured kernel.
        own = {"IPYTHONDIR": str(scratch / "ipython"), "REGISTRY_LAB_HEADLESS": "1", RUN_VARIABLE: str(run)}
        with _gathered(log) as output:
            try:
                client.execute(env={**os.environ, **own}, stdout=output, stderr=output)
            finally:
                manager.save()


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
    notebook: Path,
    output: Path,
    parameters: dict[str, Any],
    *,
    watch: Watch,
    run: Path,
    log: Path,
    scratch: Path,
    is_forked: bool,
) -> None:
    """Run the notebook and keep its state, after every cell, as `output`. Its kernel is gone afterwards.

    `run` is the folder that its kernel knows as `$REGISTRY_LAB_RUN`; `scratch`, which the caller removes, is for its
    sockets and settings; `log` gets head and tail of its process's own output, and files beside it the parts of a
    cell's output that are too long for the notebook. Raises `KernelDied`, `CellFailed`, or papermill's own errors.
    Several threads may call it.
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
            is_forked=is_forked,
        )
    except PapermillExecutionError as error:
        raise CellFailed(error.ename, error.evalue, error.cell_index) from error
    except DeadKernelError as error:
        raise KernelDied(watch.how_it_died()) from error
    except RuntimeError as error:
        # The errors of a kernel that dies while it starts.
        if "Kernel died" in str(error) or watch.ended:
            raise KernelDied(watch.how_it_died()) from error
        raise
    finally:
        if watch.exit_code is None:
            watch.end()
        _close_own_loop()
