"""Watches the process of one check from outside: takes its messages, and ends it when it stands still or is late."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from multiprocessing import connection as pipes
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final, Protocol

import msgspec
import psutil

from lab_utils.runner.conduct import Progress
from lab_utils.runner.forkserver import ServerFailed, is_available
from lab_utils.runner.holding import holder
from lab_utils.runner.interpreter import interpreter
from lab_utils.runner.journal import read_beats, read_journal, read_position
from lab_utils.runner.printed import Printed
from lab_utils.runner.scratch import scratch
from lab_utils.runner.server import server
from lab_utils.runner.worker import DUMP, JOURNAL, STACKS, GiveUp, Job, Message
from lab_utils.targets.loading import is_theirs, place
from lab_utils.values.profiles import UsageError
from lab_utils.values.result import CheckResult, decode
from lab_utils.values.texts import plain_output
from lab_utils.values.verdict import Finding

__all__ = ["Cancelled", "Ended", "Look", "watch"]

_ENTRY: Final = "lab_utils.runner.worker:work"
_IDLE_SHARE, _IDLE_SECONDS = 0.02, 0.02
_LOOKS: Final = 12
_SECONDS_BETWEEN_LOOKS: Final = 0.25
_TURN_SECONDS: Final = 5.0
_MOST_IN_LINE: Final = 4
_DUMP_SECONDS: Final = 2.0
_HELD_SECONDS: Final = 5.0
"""Seconds without a beat, after which it is asked whose code holds the interpreter: the lab's own may take some."""
_MOST_AT_ONCE: Final = 2.0
_READY, _STOPPED = frozenset("RD"), frozenset("Tt")
"""States of a thread: it runs, or waits for a processor or for memory that the system fetches or empties; or it is
stopped, as by a signal."""
_READ: Final = 32_768
_LINES: Final = 8
_LAST_PRINTED: Final = 200
"""How many characters are shown of the output of a process that ended before its target was made."""

_DRAINS: Final = 64
_CALLS: Final = 8


class Cancelled(Exception):
    """The one who asked for a check wants it no more."""


class Child(Protocol):
    """The process of a check, however it began."""

    @property
    def connection(self) -> Connection: ...
    @property
    def output(self) -> int: ...
    @property
    def pid(self) -> int | None: ...

    def poll(self) -> int | None: ...
    def wait(self) -> int: ...
    def kill(self) -> None: ...
    def signal(self, number: int, /) -> None: ...
    def close(self) -> None: ...


class SpawnedChild:
    """A child of a fresh interpreter: where forking is not safe."""

    def __init__(self, folder: Path, python: str = "") -> None:
        key = os.urandom(16)
        with_this = interpreter(python)
        with pipes.Listener(authkey=key) as listener:
            code = f"import sys; sys.path[:] = {list(with_this.path)!r}; from lab_utils.runner.worker import join"
            code += f"; join({listener.address!r}, bytes.fromhex({key.hex()!r}))"
            output, printed = os.pipe()
            self._process = subprocess.Popen(
                [with_this.executable, "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=printed,
                start_new_session=True,
                cwd=folder,
            )
            os.close(printed)
            self.output, self.pid = output, self._process.pid
            threading.Thread(target=self._let_go, args=(listener.address, key), daemon=True).start()
            self.connection: Connection = listener.accept()

    def _let_go(self, address: str, key: bytes) -> None:
        """End the wait for a process that ends before it has called, by an empty call."""
        self._process.wait()
        with suppress(OSError, EOFError):
            pipes.Client(address, authkey=key).close()

    def poll(self) -> int | None:
        return self._process.poll()

    def wait(self) -> int:
        return self._process.wait()

    def kill(self) -> None:
        with suppress(psutil.NoSuchProcess):
            for one in psutil.Process(self.pid).children(recursive=True):
                one.kill()
        self._process.kill()

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def close(self) -> None:
        self.kill()
        self._process.wait()
        self.connection.close()
        os.close(self.output)


@dataclass(frozen=True, slots=True)
class Ended:
    """The outcome of a process: its result, or why there is none (`finding`); its target's capabilities; head and tail
    of its output; when it began and how long it took."""

    result: CheckResult | None
    finding: Finding | None
    capabilities: frozenset[str]
    printed: str
    started_at: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Look:
    """The process of a check as its parent sees it, which costs the process nothing.

    `seconds` since its turn came; `memory` in bytes, what of it is resident; `events`: how often an operation began or
    ended.
    """

    seconds: float
    memory: int
    events: int


def watch(
    job: Callable[[Path], Job],
    *,
    imports: Sequence[str] = (),
    python: str = "",
    still_after: float,
    limit_s: float,
    on_progress: Progress | None = None,
    on_look: Callable[[Look], None] | None = None,
    cancelled: threading.Event | None = None,
    log: Path | None = None,
) -> Ended:
    """Run a job in a process of its own and return its outcome; none of its processes is left.

    `python`: another interpreter for it (`interpreter`). `imports`: modules that are loaded before the process begins,
    once for all. `limit_s` is counted from when its turn has come, without the seconds in which one of them was ready
    and waited for a processor (up to four times the limit; Linux alone has them); `still_after` is for how long it may
    be idle (2% of a core, or 20 ms) while nothing moves. Past either the check is given up: the process reports where
    it stands and adds that to its result. A process that does not answer is killed, and the last operations and stacks
    are read from its folder. `on_look` is called four times a second while it runs. `log`: the file for its output,
    where that is more than is kept of it here. Raises `UsageError` if the target cannot be made, `ServerFailed` if no
    process can be had, `Cancelled` once `cancelled` is set.
    """
    with scratch("check") as folder:
        try:
            child: Child = _started(imports, python, folder)
            try:
                asked = job(folder)
                # Paths and variables may hold bytes that are not UTF-8, which Python has as surrogates and msgspec
                # refuses.
                text = json.dumps(msgspec.to_builtins(asked)).encode()
                with suppress(OSError):
                    child.connection.send_bytes(text)
                return _Watch(child, asked, folder, still_after, limit_s, on_progress, on_look, cancelled, log).run()
            finally:
                child.kill()
                child.close()
        except ServerFailed:
            if not imports:
                raise
    # A module has ended the process that was to import it for all: the check's own process meets it, and reports it.
    return watch(
        job,
        still_after=still_after,
        limit_s=limit_s,
        on_progress=on_progress,
        on_look=on_look,
        cancelled=cancelled,
        log=log,
    )


def _started(imports: Sequence[str], python: str, folder: Path) -> Child:
    return server(python).start(_ENTRY, imports=imports) if is_available() else SpawnedChild(folder, python)


class _Watch:
    """One process under watch."""

    def __init__(
        self,
        child: Child,
        job: Job,
        folder: Path,
        still_after: float,
        limit_s: float,
        on_progress: Progress | None,
        on_look: Callable[[Look], None] | None,
        cancelled: threading.Event | None,
        log: Path | None,
    ) -> None:
        self._child, self._job, self._folder = child, job, folder
        self._cancelled = cancelled
        self._still_after, self._limit_s = still_after, limit_s
        self._on_progress, self._on_look = on_progress, on_look
        self._printed = Printed(log)
        self._capabilities: frozenset[str] | None = None
        self._result: CheckResult | None = None
        self._began: float | None = None
        # The time since when it is idle and nothing moves; its last message on that; the time of the last look.
        self._still_since: float | None = None
        self._moved, self._cpu, self._computed, self._looked_at = b"", 0.0, 0.0, 0.0
        # The time at which the check last came further, without that in line until then, and how far it was.
        self._went_on_at, self._position, self._progress = 0.0, 0, b""
        self._in_line: Mapping[tuple[int, str], float] = {}
        self._starved = 0.0
        # The last beat, and the seconds since then in which the process had a processor or wanted none.
        self._beats, self._without_beat = 0, 0.0
        self._shown_at = 0.0
        self._away_since: float | None = None
        self._given_up: tuple[str, float] | None = None
        self._sources: list[Connection | int] = [child.connection, child.output]
        self._started_at = datetime.now(UTC).isoformat(timespec="seconds")

    def run(self) -> Ended:
        try:
            return self._run()
        finally:
            self._printed.close()

    def _run(self) -> Ended:
        tick = min(1.0, self._still_after / _LOOKS)
        wait = tick if self._on_look is None else min(tick, _SECONDS_BETWEEN_LOOKS)
        while self._sources:
            ready = pipes.wait(self._sources, wait)
            # Its output comes first: the end of the connection is the end of all.
            for source in sorted(ready, key=lambda one: one is self._child.connection):
                self._take(source)
            if self._result is not None or (self._capabilities is not None and not self._job.check):
                return self._ended(None)
            if self._cancelled is not None and self._cancelled.is_set():
                raise Cancelled
            now = time.monotonic()
            if self._on_look is not None and self._began is not None and now - self._shown_at >= _SECONDS_BETWEEN_LOOKS:
                self._shown_at = now
                self._show(self._on_look, now - self._began)
            # Its turn may be long in coming: other checks run.
            if self._began is not None and self._away_since is None and now - self._looked_at >= tick:
                self._look(now)
                if (late := self._held() or self._late(now)) is not None:
                    return self._ended(late)
        return self._ended(self._died())

    def _take(self, source: object) -> None:
        if isinstance(source, int):
            if data := os.read(source, _READ):
                self._printed.add(data)
            else:
                self._sources.remove(source)
            return
        try:
            message = self._child.connection.recv_bytes()
        except (EOFError, OSError):
            # A child that it has started may hold the output open for ever.
            self._sources.clear()
            return
        kind, rest = message[:1], message[1:]
        if kind == Message.RESULT:
            self._result = decode(rest)
        elif kind == Message.BEGAN:
            self._began = self._looked_at = self._went_on_at = time.monotonic()
            # If it has just begun, its number is known already.
            self._child.poll()
        elif kind == Message.AWAY:
            self._away_since = time.monotonic()
        elif kind == Message.BACK and self._began is not None and self._away_since is not None:
            self._looked_at, self._still_since = time.monotonic(), None
            self._began += self._looked_at - self._away_since
            self._went_on_at += self._looked_at - self._away_since
            self._away_since = None
        elif kind == Message.LOADED:
            self._capabilities = frozenset(rest.decode().split(",")) - {""}
        elif kind == Message.REFUSED:
            raise UsageError(rest.decode())
        elif kind == Message.MOVED:
            if rest != self._moved:
                self._moved, self._still_since = rest, None
        elif kind == Message.PROGRESS:
            if rest != self._progress:
                self._progress, self._went_on_at = rest, time.monotonic() - self._starved
            if self._on_progress is not None:
                step, fraction = msgspec.json.decode(rest, type=tuple[str, float])
                self._on_progress(step, fraction)

    def _show(self, on_look: Callable[[Look], None], seconds: float) -> None:
        with suppress(psutil.Error):
            memory = psutil.Process(self._child.pid).memory_info().rss
            on_look(Look(seconds, memory, read_position(self._folder / JOURNAL)))

    def _look(self, now: float) -> None:
        if self._child.pid is None:
            # On a busy machine the process may begin before its starter has sent its number.
            self._child.poll()
        tree = _tree(self._child.pid)
        cpu, computed = _cpu_seconds(tree), _cpu_seconds(tree[:1], ("user",))
        in_line = _seconds_in_line(one.pid for one in tree)
        more = sum(seconds - self._in_line.get(thread, 0.0) for thread, seconds in in_line.items())
        passed, states = now - self._looked_at, _states(self._child.pid)
        # Several may have waited at once.
        starved = min(more, passed)
        # It may be stopped, or this process was, which looks more often than that.
        self._starved += passed if states & _STOPPED else max(starved, passed - _MOST_AT_ONCE)
        beats, position = read_beats(self._folder / JOURNAL), read_position(self._folder / JOURNAL)
        if position != self._position:
            self._position, self._went_on_at = position, now - self._starved
        # The system counts a wait in line when it is over: of a process with a thread in line, its computing counts
        # alone, and not what the system does for it: a machine may take seconds to find three gigabytes for one call.
        # The process may have been stopped meanwhile: two seconds at most.
        more_s = computed - self._computed if not states or states & (_READY | _STOPPED) else passed
        worked = min(passed - starved, _MOST_AT_ONCE, more_s)
        self._without_beat = self._without_beat + worked if beats == self._beats else 0.0
        self._beats = beats
        is_idle = cpu - self._cpu <= max(_IDLE_SECONDS, _IDLE_SHARE * (now - self._looked_at))
        is_idle = is_idle and starved <= 0.5 * (now - self._looked_at)
        self._cpu, self._computed, self._in_line, self._looked_at = cpu, computed, in_line, now
        if not is_idle or self._child.pid is None:
            # A working process is left alone: a request is a disturbance that a check of memory might find.
            self._still_since = None
            return
        if self._still_since is None:
            self._still_since = now
        if self._capabilities is not None and self._given_up is None:
            with suppress(OSError):
                self._child.connection.send_bytes(b"")

    def _late(self, now: float) -> Finding | None:
        """Give the check up when it is time; return a finding once it does not even answer to that."""
        assert self._began is not None
        if self._given_up is not None:
            sentence, until = self._given_up
            return self._unanswered(sentence) if now >= until else None
        # A check may be more patient than usual, with a million records to read.
        patience = self._job.stuck_after or float(self._job.parameters.get("patience", 0.0))
        still = max(self._still_after, 2 * patience)
        what = "the check" if self._capabilities is not None else "importing and making the target"
        goes_on = False
        if is_overdue(now - self._began, self._starved, self._limit_s):
            sentence = f"{what} did not end within its limit of {self._limit_s:g} s"
            since = now - self._starved - self._went_on_at
            goes_on = self._capabilities is not None and is_going_on(since, self._limit_s, patience)
        elif self._still_since is not None and now - self._still_since >= still:
            sentence = f"{what} waits for something that does not end: nothing moved for {still:g} s"
        else:
            return None
        if self._capabilities is None:
            finding = self._unanswered(sentence)
            return replace(finding, sentence=f"{finding.sentence}{_place(self._dumped())}")
        asked = GiveUp(sentence, goes_on, min(_TURN_SECONDS, still), still)
        with suppress(OSError):
            self._child.connection.send_bytes(msgspec.json.encode(asked))
        self._given_up = (sentence, now + asked.turns_in_s + asked.stops_in_s + _TURN_SECONDS)
        return None

    def _held(self) -> Finding | None:
        """A finding if code of the target holds the interpreter for long, so that no other thread can run."""
        if self._without_beat < _HELD_SECONDS or not self._beats or self._given_up is not None or self._is_stopped():
            return None
        seconds, self._without_beat = self._without_beat, 0.0
        before = len(self._dumped())
        self._ask_for_stacks()
        if not (line := holder(self._dumped()[before:])):
            return None
        sentence = f"the interpreter was held for {seconds:.0f} s by code that lets no other thread run, at {line}"
        return Finding("loop-blocked", f"{sentence}; the process was killed", self._witness())

    def _is_stopped(self) -> bool:
        with suppress(psutil.Error):
            return psutil.Process(self._child.pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
        return True

    def _ask_for_stacks(self) -> None:
        """Let the process write its stacks, and wait until they are whole; one that is stopped writes none."""
        if STACKS is None or self._is_stopped():
            return
        before = size = len(self._dumped())
        self._child.signal(STACKS)
        until = time.monotonic() + _DUMP_SECONDS
        while time.monotonic() < until and (size == before or size != len(self._dumped())):
            size = len(self._dumped())
            time.sleep(_DUMP_SECONDS / 40)

    def _unanswered(self, sentence: str) -> Finding:
        """A process in which no Python thread answers: code in C holds the interpreter, or it is stopped."""
        self._ask_for_stacks()
        return Finding("loop-blocked", f"{sentence}, and its process does not answer; it was killed", self._witness())

    def _died(self) -> Finding:
        code = self._child.wait()
        how = f"it was killed by {_signal(-code)}" if code < 0 else f"it exited with code {code}"
        if self._capabilities is None:
            where = _place(self._dumped())
            self._drain()
            printed = plain_output(self._printed.text()).split()
            last = f"; the last that it printed: {' '.join(printed)[-_LAST_PRINTED:]}" if printed else ""
            raise UsageError(
                f"target {self._job.target!r} cannot be made: {how} while the target was imported or made{where}{last}"
            )
        return Finding("process-died", f"the check's process ended in its midst: {how}", self._witness())

    def _witness(self) -> tuple[str, ...]:
        self._drain()
        journal = read_journal(self._folder / JOURNAL)[-_LINES:]
        stacks = _stacks(self._dumped())
        printed = [f"printed: {line}" for line in plain_output(self._printed.text()).splitlines()[-_LINES:]]
        return (*journal, *stacks, *printed) or ("no operation was recorded, and nothing printed",)

    def _dumped(self) -> str:
        """The stacks that the process has written."""
        dump = self._folder / DUMP
        return dump.read_text(encoding="utf-8", errors="replace") if dump.exists() else ""

    def _drain(self) -> None:
        os.set_blocking(self._child.output, False)
        with suppress(BlockingIOError):
            # So often at most: something that it has started may print without end.
            for _ in range(_DRAINS):
                self._printed.add(os.read(self._child.output, _READ))

    def _ended(self, finding: Finding | None) -> Ended:
        self._drain()
        seconds = 0.0 if self._began is None else time.monotonic() - self._began
        printed = plain_output(self._printed.text())
        return Ended(self._result, finding, self._capabilities or frozenset(), printed, self._started_at, seconds)


def _stacks(text: str) -> list[str]:
    """The calls of each thread in a dump, the innermost first, without the lab's own way to a check."""
    lines: list[str] = []
    of_this = 0
    for line in filter(None, text.splitlines()):
        if not line.startswith("  "):
            of_this = 0
            if not line.startswith("Extension modules"):
                lines.append(line)
        elif of_this < _CALLS and f"{os.sep}runner{os.sep}" not in line:
            of_this += 1
            lines.append(re.sub(r'"[^"]*/', '"', line))
    return lines


def _place(dumped: str) -> str:
    """The innermost line of a dump that is neither the lab's nor Python's own, in brackets; "" where there is none."""
    for file, line in re.findall(r'File "([^"]*)", line (\d+)', dumped):
        if is_theirs(file):
            return f" (at {place(file)}:{line})"
    return ""


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def is_overdue(seconds: float, in_line: float, limit_s: float) -> bool:
    """Whether a process has had its time: not on a busy machine, where it waited `in_line` for a processor."""
    return seconds - min(in_line, _MOST_IN_LINE * limit_s) >= limit_s


def is_going_on(since: float, limit_s: float, patience: float) -> bool:
    """Whether a check that is over its limit may be only slow: it came further less than a quarter of the limit ago, or
    less than the seconds that one call may take."""
    return since < max(limit_s / 4, patience)


def _states(pid: int | None) -> frozenset[str]:
    """The states of the threads of a process, each a letter; none where the system does not say."""
    try:
        stats = [stat.read_text() for stat in Path(f"/proc/{pid}/task").glob("*/stat")]
    except OSError:
        return frozenset()
    return frozenset(stat.rpartition(")")[2].split()[0] for stat in stats)


def _tree(pid: int | None) -> list[psutil.Process]:
    """A process and those below it; none where its number is not known, or it has ended."""
    with suppress(psutil.Error):
        if pid is not None:
            process = psutil.Process(pid)
            return [process, *process.children(recursive=True)]
    return []


def _seconds_in_line(pids: Iterable[int]) -> dict[tuple[int, str], float]:
    """Seconds for which each thread of these processes was ready and waited for a processor; none where the system has
    no figures."""
    found = {}
    for pid in pids:
        with suppress(OSError):
            for thread in Path(f"/proc/{pid}/task").iterdir():
                with suppress(OSError, ValueError, IndexError):
                    found[pid, thread.name] = int((thread / "schedstat").read_text().split()[1]) / 1e9
    return found


def _cpu_seconds(tree: Iterable[psutil.Process], kinds: Sequence[str] = ("user", "system")) -> float:
    """Seconds of a processor that these processes have had, for their own code or for the system's."""
    total = 0.0
    for one in tree:
        with suppress(psutil.Error):
            times = one.cpu_times()
            total += sum(getattr(times, kind) for kind in kinds)
    return total
