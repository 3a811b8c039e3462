"""Several notebooks at once, each with a time limit; its results and the observed events show how each ended."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Final

from lab_utils.batch import forked
from lab_utils.output import pages
from lab_utils.output.store import OpenRun, StoreError, load_category
from lab_utils.runner.forkserver import is_available
from lab_utils.runner.scratch import scratch
from lab_utils.values.profiles import Value
from lab_utils.values.texts import reported

__all__ = ["KERNEL_MODE", "Ended", "Event", "Job", "Status", "run_notebooks"]

KERNEL_MODE: Final = "forked" if is_available() else "spawned"
"""How kernels begin here. A forked one is there sooner, and does all else as a spawned one does: no memory is measured
in a kernel, for checks have processes of their own."""
_POLL_SECONDS: Final = 0.1
_PAGE_SECONDS: Final = 120.0
_LONGEST_MESSAGE: Final = 2_000


class Status(StrEnum):
    """How a notebook ended. papermill's own record reads `completed` for a killed kernel, so this one is ours."""

    OK = "ok"
    FAILED = "failed"
    ERROR = "error"
    TIMEOUT = "timeout"
    DEAD_KERNEL = "dead-kernel"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Job:
    """One notebook to run. With a `category` it must leave that category's results; without one it need not."""

    name: str
    notebook: Path
    parameters: Mapping[str, Value]
    category: str = ""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a notebook ended, after how many seconds, and one sentence where it was not well."""

    status: Status
    seconds: float
    message: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", reported(self.message, _LONGEST_MESSAGE))


@dataclass(frozen=True, slots=True)
class Event:
    """Something to show: a notebook began, reached a cell, or ended."""

    job: str
    cell: int = 0
    cells: int = 0
    ended: Ended | None = None


def run_notebooks(
    jobs: Sequence[Job],
    run: OpenRun,
    *,
    at_once: int = 2,
    limit_s: float = 600.0,
    on_event: Callable[[Event], None] = lambda event: None,
    clock: Callable[[], float] = time.monotonic,
    kernel_mode: str = KERNEL_MODE,
) -> dict[str, Ended]:
    """Run the notebooks into the run's folder, each with its page; return how each ended, by job name.

    A notebook past `limit_s` seconds is ended as TIMEOUT; the others go on. On KeyboardInterrupt every kernel is
    killed, unfinished notebooks are CANCELLED, the partial notebooks stay, and the interrupt is raised again. In every
    case no kernel is left when this returns. `on_event` is called in the calling thread.
    """
    forked.prepare()
    events: queue.Queue[Event] = queue.Queue()
    with scratch("batch") as folder:
        trials = [_Trial(job, run, folder, limit_s, events.put, clock, kernel_mode) for job in jobs]
        ended: dict[str, Ended] = {}

        def tell(timeout: float) -> None:
            try:
                event = events.get(timeout=timeout)
            except queue.Empty:
                return
            if event.ended is not None:
                ended[event.job] = event.ended
                run.note(notebooks=run.about.get("notebooks", {}) | {event.job: _record(event.ended)})
            on_event(event)

        def tell_at_the_end(timeout: float) -> None:
            # Something else is on its way. A disk that is full or a display that fails must not stop the cancelling.
            with suppress(Exception):
                tell(timeout)

        try:
            with ThreadPoolExecutor(at_once, thread_name_prefix="notebook") as pool:
                futures: list[Future[None]] = [pool.submit(trial.run) for trial in trials]
                try:
                    while not all(future.done() for future in futures):
                        tell(_POLL_SECONDS)
                        for trial in trials:
                            trial.watch_the_clock()
                except BaseException:
                    # Again and again: a kernel that is just starting can be killed only when it has started.
                    while not all(future.done() for future in futures):
                        for trial in trials:
                            trial.cancel()
                        tell_at_the_end(_POLL_SECONDS)
                    raise
            while not events.empty():
                tell(0.0)
        finally:
            # No thread is left here, not even where a second interrupt cut the first one short.
            while not events.empty():
                tell_at_the_end(0.0)
    return {job.name: ended[job.name] for job in jobs}


def _kernels() -> ModuleType:
    """Load papermill, when notebooks are to be run and not before."""
    # Of pyarrow it wants a file system of Hadoop's, for which all of pyarrow and numpy would be imported.
    with pages.quick_imports("pyarrow.fs"):
        from lab_utils.batch import kernels

    return kernels


def _record(ended: Ended) -> dict[str, object]:
    return {"status": ended.status.value, "seconds": round(ended.seconds, 2), "message": ended.message}


class _Trial:
    """One notebook on its way."""

    def __init__(
        self,
        job: Job,
        run: OpenRun,
        scratch: Path,
        limit_s: float,
        tell: Callable[[Event], None],
        clock: Callable[[], float],
        kernel_mode: str,
    ) -> None:
        self._job, self._run, self._scratch, self._limit_s = job, run, scratch, limit_s
        self._tell, self._clock, self._is_forked = tell, clock, kernel_mode == "forked"
        self._began: float | None = None
        self._stopped: Status | None = None
        self._lock = threading.Lock()
        self._kernels = _kernels()
        self._watch = self._kernels.Watch(lambda cell, cells: tell(Event(job.name, cell, cells)))

    def watch_the_clock(self) -> None:
        """End the notebook if its time is over."""
        if self._began is not None and self._clock() - self._began > self._limit_s:
            self._stop(Status.TIMEOUT)

    def cancel(self) -> None:
        self._stop(Status.CANCELLED)

    def _stop(self, why: Status) -> None:
        with self._lock:
            self._stopped = self._stopped or why
        self._watch.end()

    def run(self) -> None:
        """Execute the notebook, write its page, report how it ended. Raises nothing."""
        self._began = began = self._clock()
        self._tell(Event(self._job.name))
        try:
            status, message = self._execute()
        except Exception as error:
            status, message = Status.ERROR, f"{type(error).__name__}: {error}"
        # From here on the clock stops no more.
        self._began = None
        try:
            if self._run.path(notebook := f"notebooks/{self._job.notebook.name}").is_file():
                until = self._clock() + _PAGE_SECONDS
                forked.write_page(
                    self._run,
                    notebook,
                    is_over=lambda: self._stopped is Status.CANCELLED or self._clock() > until,
                )
        except Exception as error:
            if status is not Status.CANCELLED:
                message = f"{message}; no page was made: {type(error).__name__}: {error}".removeprefix("; ")
            status = Status.ERROR if status in (Status.OK, Status.FAILED) else status
        self._tell(Event(self._job.name, ended=Ended(status, self._clock() - began, message)))

    def _execute(self) -> tuple[Status, str]:
        job, failure = self._job, None
        try:
            self._kernels.execute(
                job.notebook,
                self._run.path(f"notebooks/{job.notebook.name}"),
                dict(job.parameters),
                watch=self._watch,
                run=self._run.folder,
                log=self._run.path(f"logs/{job.notebook.stem}.log"),
                scratch=self._scratch,
                is_forked=self._is_forked,
            )
        except (self._kernels.CellFailed, self._kernels.KernelDied) as error:
            failure = error
        with self._lock:
            stopped = self._stopped
        if stopped is Status.TIMEOUT:
            return stopped, f"not done after {self._limit_s:g} s; on a slow or busy machine: --timeout SECONDS"
        if stopped is not None:
            return stopped, "interrupted"
        if isinstance(failure, self._kernels.KernelDied):
            return Status.DEAD_KERNEL, f"the kernel died: {failure}"
        if isinstance(failure, self._kernels.CellFailed) and failure.name != "GateFailed":
            return Status.ERROR, f"cell {failure.cell + 1} raised {failure}"
        return self._judged(failure)

    def _judged(self, gate: Exception | None) -> tuple[Status, str]:
        """The status by the notebook's own results: running to its end does not prove that it found anything."""
        if not self._job.category:
            return (Status.OK, "") if gate is None else (Status.FAILED, str(gate))
        try:
            found = load_category(self._run.folder, self._job.category)
        except StoreError as error:
            return Status.ERROR, str(error)
        if found is None or not found.complete:
            return Status.ERROR, "it ended without saving its results"
        if gate is not None or found.not_passed():
            return Status.FAILED, str(gate) if gate else f"not passed: {', '.join(found.not_passed())}"
        return Status.OK, ""
