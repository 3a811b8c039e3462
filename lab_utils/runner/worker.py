"""The process of one check: runs it, reports its progress to its parent, and gives it up on request."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import json
import os
import select
import signal
import sys
import tempfile
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from multiprocessing.connection import Client, Connection
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn

import cloudpickle
import msgspec

from lab_utils.checks import RUNNABLE
from lab_utils.interleavings.observing import STEPS
from lab_utils.probes.memory import ALLOCATING
from lab_utils.runner.conduct import Conduct
from lab_utils.runner.holding import BETWEEN_S, Holding
from lab_utils.runner.journal import Journal
from lab_utils.runner.slots import Turn, take_turn
from lab_utils.target import Target
from lab_utils.targets import PLANTED, target_factory
from lab_utils.targets.loading import why
from lab_utils.trial import OutOfTime, Stuck, loops
from lab_utils.values.profiles import UsageError
from lab_utils.values.result import encode
from lab_utils.values.verdict import Finding

__all__ = ["DUMP", "JOURNAL", "STACKS", "GiveUp", "Job", "Message", "join", "work"]

JOURNAL: Final = "journal"
DUMP: Final = "stacks"
STACKS: Final = getattr(signal, "SIGUSR1", None)
"""The signal at which the process writes the Python stacks of its threads to the file `stacks`: also while C code holds
the interpreter, so that no thread of it can run."""

_DEPTH = 5
"""How many of a thread's innermost calls are named."""

_TASKS = 12
_leave = os._exit
_SECONDS_BETWEEN = 0.1
_YOUNG_OBJECTS = 2_000
"""New objects after which the collector looks at those that are young, in a check that measures no memory."""


@dataclass(frozen=True, slots=True)
class Job:
    """The job of one process. Without a `check` it only reports the target's capabilities.

    `pickled` is a class or a factory of the client's, by cloudpickle; without one the target is found by its name.
    `stop_at`: anomalies; the first one ends the check at once, its target unstopped. `slots` is the folder of the locks
    that let `jobs` checks run at once, or one `alone`; without a folder or jobs nothing is waited for. `began`: how the
    process began; `python` the version of an interpreter that is not the client's. `folder` is where journal and stacks
    go. `environment`, `path` and `cwd` are those of the client, `path` that of another interpreter.
    """

    check: str
    target: str
    pickled: bytes
    profile: str
    seed: int
    parameters: Mapping[str, int | float | str | bool]
    protects: str
    stuck_after: float | None
    stop_at: frozenset[str]
    slots: str
    jobs: int
    alone: bool
    began: str
    folder: str
    environment: Mapping[str, str]
    path: tuple[str, ...]
    python: str
    cwd: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Asks a process to end its check: the sentence of its finding, whether the check may be only slow, and the
    seconds that loop and stop may take."""

    sentence: str
    goes_on: bool
    turns_in_s: float
    stops_in_s: float


class Message:
    """The first byte of a message: the kind of the rest."""

    BEGAN: Final = b"B"
    """Its turn has come."""
    AWAY: Final = b"A"
    """It gives way to a check that must be alone, and waits."""
    BACK: Final = b"K"
    """It goes on."""
    LOADED: Final = b"L"
    """The target was made; the rest names its capabilities, a comma between two."""
    REFUSED: Final = b"U"
    """The target cannot be made: a sentence."""
    PROGRESS: Final = b"P"
    """JSON: the step and the fraction done."""
    MOVED: Final = b"M"
    """A value that changes with each operation and event."""
    RESULT: Final = b"R"
    """A `CheckResult` in JSON; the last message."""


def join(address: str, key: bytes) -> None:
    """Run one job for the listener at the address: the entry of a process that was not forked."""
    work(Client(address, authkey=key))


def work(connection: Connection) -> None:
    """Run the job that the connection brings and send its outcome."""
    job = msgspec.convert(json.loads(connection.recv_bytes()), Job)
    os.environ.clear()
    os.environ.update(job.environment)
    sys.path[:] = job.path
    os.chdir(job.cwd)
    # What a target leaves among the temporary files goes with the check's own folder, however the process ends.
    os.environ["TMPDIR"] = tempfile.tempdir = job.folder
    with (Path(job.folder) / DUMP).open("wb", buffering=0) as dump:
        faulthandler.enable(dump)
        if STACKS is not None:
            faulthandler.register(STACKS, dump)
        os._exit = _says_where(dump)  # type: ignore[assignment]
        _Worker(connection, job).run()


def _says_where(dump: FileIO) -> Callable[[int], NoReturn]:
    """`os._exit` for a target, which writes into the dump where it was called: the process leaves no other trace."""
    pid = os.getpid()

    def leave(status: int) -> NoReturn:
        if os.getpid() == pid and not dump.closed:
            faulthandler.dump_traceback(dump, all_threads=False)
        _leave(status)

    return leave


class _Worker:
    """Runs one check in the main thread; another thread answers the parent."""

    def __init__(self, connection: Connection, job: Job) -> None:
        self._connection, self._job = connection, job
        self._pid = os.getpid()
        self._sending = threading.Lock()
        self._sent_at = 0.0
        self._over = threading.Event()
        self._conduct: Conduct | None = None
        self._turn: Turn | None = None
        self._holding = Holding()

    def run(self) -> None:
        job = self._job
        if job.check and RUNNABLE[job.check].measures:
            # All that was there before, which the fork server has set aside: its return would be measured.
            gc.unfreeze()
        else:
            # Python 3.13's own number. By the 700 of older ones the collector takes a tenth of a check's time.
            first, *later = gc.get_threshold()
            gc.set_threshold(max(first, _YOUNG_OBJECTS), *later)
        if job.slots:
            # Calibrations wait for sockets and timers a fifth of their time, and their latency is judged by nobody.
            more = job.jobs // 2 if job.stop_at else 0
            self._turn = take_turn(Path(job.slots), job.jobs, alone=job.alone, more=more)
        self._send(Message.BEGAN)
        try:
            make = _made(job)
            capabilities = make().capabilities
        except UsageError as error:
            self._send(Message.REFUSED, str(error).encode("utf-8", "backslashreplace"))
            return
        except BaseException as error:
            sentence = f"target {job.target!r} cannot be made: {why(error)}"
            self._send(Message.REFUSED, sentence.encode("utf-8", "backslashreplace"))
            return
        self._send(Message.LOADED, ",".join(sorted(capabilities)).encode())
        if not job.check:
            return
        self._conduct = conduct = Conduct(
            RUNNABLE[job.check],
            make,
            target=job.target,
            profile=job.profile,
            seed=job.seed,
            parameters=job.parameters,
            protects=job.protects,
            stuck_after=job.stuck_after,
            is_planted=job.target in PLANTED,
            on_progress=self._progress,
            began=job.began,
        )
        if job.python:
            conduct.trial.note(f"The target ran in another interpreter than the lab: Python {job.python}.")
        journal = Journal(Path(job.folder) / JOURNAL)
        conduct.trial.journal = journal.write
        conduct.trial.on_position = lambda position: journal.reach(position + STEPS.answers)
        conduct.trial.on_finding, conduct.trial.stops_at = self._found, job.stop_at
        conduct.trial.on_starting, conduct.trial.give_way = journal.starting, self._give_way
        journal.beat()
        threading.Thread(target=self._answer, args=(journal,), name="lab", daemon=True).start()
        conduct.run()
        self._over.set()
        self._end()

    def _send(self, kind: bytes, rest: bytes = b"") -> None:
        # A target may fork: code in its copy of this process is not the check.
        if os.getpid() == self._pid:
            with self._sending:
                self._connection.send_bytes(kind + rest)

    def _end(self) -> None:
        """Send the result and end the process: once, whichever thread comes first."""
        assert self._conduct is not None
        if os.getpid() == self._pid:
            # Held for good: nothing comes after a result.
            self._sending.acquire()
            self._connection.send_bytes(Message.RESULT + encode(self._conduct.result()))
        sys.stdout.flush()
        sys.stderr.flush()
        _leave(0)

    def _progress(self, step: str, fraction: float) -> None:
        now = time.monotonic()
        if now - self._sent_at >= _SECONDS_BETWEEN:
            self._sent_at = now
            self._send(Message.PROGRESS, msgspec.json.encode((step, fraction)))

    def _give_way(self) -> None:
        if self._turn is None or not self._turn.is_wanted():
            return
        assert self._conduct is not None
        self._send(Message.AWAY)
        with self._conduct.away():
            self._turn.give_way()
        self._send(Message.BACK)

    def _found(self, finding: Finding) -> None:
        if finding.anomaly in self._job.stop_at:
            self._end()

    def _answer(self, journal: Journal) -> None:
        """Answer the parent until it has gone, or there is nothing more to answer. Until then, show it that threads
        run."""
        # In place, as `STEPS` has them: nothing of this thread's is to come while memory is traced.
        has_message, answers = _waiting(self._connection), array("Q", (0,))
        while True:
            try:
                has_come = has_message()
                # Not by `with`, whose methods would be objects that are there while this waits.
                ALLOCATING.acquire()
                try:
                    is_held = self._looks(journal, answers)
                    asked = self._connection.recv_bytes() if has_come else b""
                    if has_come and not asked:
                        self._tell_moved()
                finally:
                    ALLOCATING.release()
            except (EOFError, OSError):
                _leave(1)
            if is_held:
                self._held()
            if asked:
                self._give_up(msgspec.json.decode(asked, type=GiveUp))

    def _looks(self, journal: Journal, answers: array[int]) -> bool:
        """Show that threads run, and how far the check is. Return whether the target holds a loop."""
        assert self._conduct is not None
        trial = self._conduct.trial
        journal.beat()
        STEPS.beats += 1
        if STEPS.answers != answers[0]:
            answers[0] = STEPS.answers
            journal.reach(trial.position + answers[0])
        is_due = time.monotonic() - self._holding.looked_at >= BETWEEN_S
        return is_due and self._holding.look(is_starting=trial.is_starting)

    def _tell_moved(self) -> None:
        assert self._conduct is not None
        try:
            moved = repr((self._conduct.trial.moved(), STEPS.answers))
        except RuntimeError:
            # It changed while it was read: it moves.
            moved = repr(time.monotonic())
        self._send(Message.MOVED, moved.encode())

    def _held(self) -> None:
        """End the check for a loop that is held: more of it would take long, and every later wait would be blamed."""
        assert self._conduct is not None
        calls, seconds = self._holding.most()
        sentence = f"the event loop was held up for {seconds:.1f} s in all by code that should await"
        self._conduct.trial.find_failure(Stuck(sentence, f"held up in {' > '.join(calls)}"), "loop-blocked")
        self._end()

    def _give_up(self, asked: GiveUp) -> None:
        assert self._conduct is not None
        trial = self._conduct.trial
        kind = OutOfTime if asked.goes_on else Stuck
        if not _turns(trial.waiting.loop, asked.turns_in_s):
            if trial.is_starting:
                # A target may hold the loop then.
                trial.find_failure(kind(f"{asked.sentence}: the target is being started", *_places(None)))
            else:
                sentence = f"{asked.sentence}: the event loop does not turn"
                trial.find_failure(Stuck(sentence, *_places(None)), "loop-blocked")
            self._end()
        if self._holding.most()[1] >= trial.now() / 2:
            self._held()
        trial.waiting.give_up(kind(asked.sentence, *_places(trial.waiting.loop)))
        if not self._over.wait(asked.stops_in_s):
            if not asked.goes_on:
                sentence = f"{asked.sentence}, and the steps after the work do not end either"
                trial.find_failure(Stuck(sentence, *_places(trial.waiting.loop)))
            self._end()


def _made(job: Job) -> Callable[[], Target]:
    if not job.pickled:
        return target_factory(job.target)
    make: Callable[[], Target] = cloudpickle.loads(job.pickled)
    return make


def _waiting(connection: Connection) -> Callable[[], bool]:
    """A function that waits `BETWEEN_S` seconds for a message and returns whether one came. It allocates nothing while
    it waits, for a check may be measuring memory: `Connection.poll` makes a selector each time."""
    if sys.platform == "win32":
        return lambda: connection.poll(BETWEEN_S)
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    milliseconds = int(1_000 * BETWEEN_S)
    return lambda: bool(poll.poll(milliseconds))


def _turns(loop: asyncio.AbstractEventLoop | None, within_s: float) -> bool:
    """Whether the loop comes round within that many seconds; a process without a loop does not turn."""
    if loop is None:
        return False
    turned = threading.Event()
    try:
        loop.call_soon_threadsafe(turned.set)
    except RuntimeError:
        return False
    return turned.wait(within_s)


def _places(loop: asyncio.AbstractEventLoop | None) -> list[str]:
    """A line for each thread that does not wait in an event loop, and for a dozen tasks, the oldest first."""
    lines = []
    frames = sys._current_frames()
    for thread in threading.enumerate():
        frame = frames.get(thread.ident or 0)
        if frame is None or thread is threading.current_thread() or "select" in frame.f_code.co_name:
            continue
        calls = [loops.place(one) for one in _inwards(frame)]
        lines.append(f"thread {thread.name!r} is in {' > '.join(calls[-_DEPTH:])}")
    tasks: set[asyncio.Task[Any]] = set() if loop is None else asyncio.all_tasks(loop)
    waiting = [loops.where(task) for task in sorted(tasks, key=_age)]
    more = [f"and {len(waiting) - _TASKS} tasks more"] if len(waiting) > _TASKS else []
    return [*lines, *waiting[:_TASKS], *more]


def _age(task: asyncio.Task[Any]) -> tuple[int, str]:
    return len(task.get_name()), task.get_name()


def _inwards(frame: FrameType | None) -> Iterator[FrameType]:
    """The frame's callers, outermost first, and itself."""
    found = []
    while frame is not None:
        found.append(frame)
        frame = frame.f_back
    return reversed(found)
