"""A process that has imported modules once, forks a child for each job, and ends the children of a client that goes.

The server is one thread that imports and never runs a job, so each child starts with a clean memory, no event loop and
no history. One server serves several processes: every process that knows its address may ask it. Modules that some jobs
need and others must not have in memory are imported by a server of their own, forked from the first.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import itertools
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from lab_utils.runner.scratch import make_scratch, remove_scratch

__all__ = ["ForkServer", "ForkedChild", "ServerFailed", "enter", "is_available", "surroundings"]

Entry = Callable[[Connection], None]

_MESSAGE: Final = 1 << 20
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_REAPED: Final = 0
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


class ServerFailed(Exception):
    """The server did not start, or ended; the message holds its output."""


def is_available() -> bool:
    """True where children are forked. Elsewhere a fork of a process with system libraries in it is not safe."""
    return sys.platform == "linux"


class ForkedChild:
    """One child as its client sees it. Leaving the client's process, or `close`, kills the child and its group.

    `connection` carries bytes to and from the job; `output` reads the child's output.
    """

    def __init__(self, control: socket.socket, connection: Connection, output: int) -> None:
        self.control, self.connection, self.output = control, connection, output
        self.pid: int | None = None
        self.exit_code: int | None = None

    def poll(self) -> int | None:
        """The exit code of the child, negative for the signal that ended it; None while it runs.

        Raises `ServerFailed` if the server has ended.
        """
        if self.exit_code is None:
            with suppress(BlockingIOError):
                self._read(socket.MSG_DONTWAIT)
        return self.exit_code

    def wait(self) -> int:
        """Wait for the exit code."""
        while self.exit_code is None:
            self._read(0)
        return self.exit_code

    def _read(self, flags: int) -> None:
        try:
            message = self.control.recv(_MESSAGE, flags)
        except ConnectionError:
            message = b""
        if not message:
            raise ServerFailed("the fork server has ended")
        report: Mapping[str, int] = json.loads(message)
        self.pid = report.get("pid", self.pid)
        self.exit_code = report.get("exit", self.exit_code)

    def kill(self) -> None:
        """Kill the child with every process of its group."""
        self.signal(signal.SIGKILL)

    def signal(self, number: int) -> None:
        """Send a signal to the child alone; SIGKILL goes to its whole group. An ended process gets none."""
        if self.exit_code is None:
            with suppress(OSError):
                self.control.send(json.dumps({"signal": number}).encode())

    def close(self) -> None:
        """Give up the child: it is killed if it still runs."""
        self.connection.close()
        self.control.close()
        os.close(self.output)


class ForkServer:
    """Starts a server, or joins the one at an inherited address. Closing a server that was started here ends it, and
    with it all children.

    `preload`: modules that it imports before its first child, while its starter does something else: only its first use
    waits for that, and raises `ServerFailed` if the server did not start. `executable` and `path`: another interpreter
    than this one, and its `sys.path`.
    """

    def __init__(
        self, preload: Sequence[str], *, address: str = "", executable: str = "", path: Sequence[str] = ()
    ) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self._address = address
        self._preload = tuple(preload)
        self._executable, self._path = executable or sys.executable, list(path)
        self._is_ready = bool(address)
        self._waiting = threading.Lock()
        if not address:
            self._start()

    def _start(self) -> None:
        self._folder = make_scratch("fork")
        self._address = str(self._folder / "socket")
        code = f"import sys; sys.path[:] = {self._path or sys.path!r}; from {__name__} import main; main(sys.argv[1:])"
        # A session of its own: Ctrl-C is for the client, which ends the processes that it started.
        self._process = subprocess.Popen(
            [self._executable, "-c", code, self._address, *self._preload],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        atexit.register(self.close)

    @property
    def path(self) -> Path:
        """Where the server listens, or will once it has imported its modules."""
        return Path(self._address)

    @property
    def address(self) -> str:
        """Where the server listens. Waits until it does."""
        with self._waiting:
            if not self._is_ready:
                assert self._process is not None
                assert self._process.stdout is not None
                if self._process.stdout.readline() != b"ready\n":
                    status = self._process.wait()
                    self.close()
                    imported = ", ".join(self._preload)
                    raise ServerFailed(f"the fork server ended with exit code {status} while it imported {imported}")
                self._is_ready = True
        return self._address

    @property
    def is_alive(self) -> bool:
        """False once a server that was started here has ended."""
        return self._process is None or self._process.poll() is None

    def start(self, entry: str, *, imports: Sequence[str] = (), for_all: bool = False) -> ForkedChild:
        """Fork a child that calls `entry`, a `package.module:function`, with its connection.

        `imports`: modules that are there before it begins, imported once for all who ask for the same with the same
        environment; one that cannot be imported is left to the child. `for_all`: the modules look at nothing around
        them, and are imported once for everybody; the child has to `enter` the caller's surroundings itself. The child
        has a session, and so a process group, of its own. Its standard input is empty. It exits with 0 if the function
        returns, with 1 if it raises.
        """
        address = self._nest(imports, for_all) if imports else self.address
        mine, theirs = socket.socketpair()
        output, printed = os.pipe()
        try:
            control = _asked(address, {"entry": entry}, theirs.fileno(), printed)
        except BaseException:
            mine.close()
            os.close(output)
            raise
        finally:
            theirs.close()
            os.close(printed)
        return ForkedChild(control, Connection(mine.detach()), output)

    def prepare(self, imports: Sequence[str], *, for_all: bool = False) -> None:
        """Begin the imports of children that will be started. Waits for the server, and not for the imports."""
        self._nest(imports, for_all)

    def _nest(self, imports: Sequence[str], for_all: bool) -> str:
        """The address of a server that imports these, and then answers."""
        wanted: dict[str, object] = {"imports": list(imports)}
        if not for_all:
            wanted |= surroundings()
            # pytest's own variable changes with each test, and no import depends on it.
            wanted["environment"] = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
            wanted["path"] = self._path or sys.path
        with _asked(self.address, wanted) as control:
            answer = control.recv(_MESSAGE)
        return answer.decode() or self.address

    def close(self) -> None:
        """End the server and all its children. Safe to call again."""
        atexit.unregister(self.close)
        if self._process is not None:
            # It would end by itself, as nobody holds the other end of this pipe then, but not while it imports.
            self._process.terminate()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process.wait()
        if self._folder is not None:
            remove_scratch(self._folder)


def surroundings() -> dict[str, object]:
    """This process's environment, module path and working folder, as `enter` takes them."""
    return {"environment": dict(os.environ), "path": sys.path, "cwd": str(Path.cwd())}


def enter(of_caller: Mapping[str, Any]) -> None:
    """Take on the surroundings of another process."""
    os.environ.clear()
    os.environ.update(of_caller["environment"])
    sys.path[:] = of_caller["path"]
    os.chdir(of_caller["cwd"])


def _asked(address: str, request: Mapping[str, object], *files: int) -> socket.socket:
    """A connection to the server at the address, with a request sent over it."""
    control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        control.connect(address)
        socket.send_fds(control, [json.dumps(request).encode()], files)
    except OSError as error:
        control.close()
        raise ServerFailed(f"no fork server answers: {error.strerror}") from error
    return control


class _Server:
    """The loop of a server's process: forks, reaps, and kills the children of clients that go."""

    def __init__(self, address: str, listener: socket.socket) -> None:
        self._address, self._listener = address, listener
        self._selector = selectors.DefaultSelector()
        self._clients: dict[socket.socket, int] = {}
        self._nests: dict[str, tuple[str, int]] = {}
        self._numbers = itertools.count()
        # Threads and files that an import has opened are there for all.
        self._standing = frozenset(_children())
        self._woken, self._waker = os.pipe()
        os.set_blocking(self._waker, False)
        os.set_blocking(self._woken, False)

    def serve(self, lifeline: int | None = None) -> None:
        """Serve until the other end of the lifeline is closed or a SIGTERM comes; no child is left then.

        A child's detached processes, by `setsid` or by two forks, stay below it while it lives, and come to this
        process when it ends.
        """
        _adopt_orphans()
        signal.signal(signal.SIGTERM, self._end)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.set_wakeup_fd(self._waker)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._woken, selectors.EVENT_READ, self._reap)
        if lifeline is not None:
            self._selector.register(lifeline, selectors.EVENT_READ, self._end)
        while True:
            for key, _ in self._selector.select():
                key.data()

    def _accept(self) -> None:
        control, _ = self._listener.accept()
        message, files, _, _ = socket.recv_fds(control, _MESSAGE, 2)
        asked: Mapping[str, Any] = json.loads(message or b"{}")
        if "imports" in asked:
            with suppress(OSError), control:
                control.send(self._nest(message.decode(), asked).encode())
        elif "entry" in asked and len(files) == 2:
            if not (pid := os.fork()):
                self._become(control, asked["entry"], *files)
            self._clients[control] = pid
            self._selector.register(control, selectors.EVENT_READ, lambda: self._read(control))
            _tell(control, pid=pid)
        else:
            control.close()
        for file in files:
            os.close(file)

    def _nest(self, key: str, asked: Mapping[str, Any]) -> str:
        """The address of a server forked from this one that imports more; it is asked from now on, and answers when it
        has imported."""
        if key in self._nests:
            return self._nests[key][0]
        # Never one again: the socket's file of a server that has ended is still there.
        address = f"{self._address}-{next(self._numbers)}"
        listener = _listening(address)
        pid = os.fork()
        if not pid:
            try:
                self._leave(signal.SIGTERM)
                if "cwd" in asked:
                    enter(asked)
                nothing = os.open(os.devnull, os.O_RDWR)
                for file in (0, 1, 2):
                    os.dup2(nothing, file)
                for name in asked["imports"]:
                    # A failing import is met again by the child that needs it, which can report it.
                    with suppress(BaseException):
                        importlib.import_module(name)
                gc.freeze()
                _Server(address, listener).serve()
            finally:
                os._exit(1)
        listener.close()
        self._nests[key] = (address, pid)
        return address

    def _become(self, control: socket.socket, entry: str, connection: int, printed: int) -> None:
        """Be the child; never returns."""
        code = 1
        try:
            control.close()
            self._leave(signal.SIGKILL)
            _adopt_orphans()
            empty = os.open(os.devnull, os.O_RDONLY)
            for made, standard in ((empty, 0), (printed, 1), (printed, 2)):
                os.dup2(made, standard)
            os.close(empty)
            os.close(printed)
            module, _, function = entry.partition(":")
            call: Entry = getattr(importlib.import_module(module), function)
            call(Connection(connection))
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            with suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            # Neither exit handlers nor destructors of the server's objects: they are the server's own.
            os._exit(code)

    def _leave(self, last: int) -> None:
        """Let go, in a fork, of everything that is the server's; get the signal `last` when the server ends."""
        assert _prctl is not None
        _prctl(_PR_SET_PDEATHSIG, last)
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for one in self._clients:
            one.close()
        self._selector.close()
        self._listener.close()
        os.close(self._woken)
        os.close(self._waker)

    def _read(self, control: socket.socket) -> None:
        pid = self._clients[control]
        try:
            message = control.recv(_MESSAGE)
        except OSError:
            message = b""
        number = json.loads(message)["signal"] if message else signal.SIGKILL
        # A process that is not reaped yet has its number, and its group's, to itself.
        if pid and number == signal.SIGKILL:
            _kill_group(pid)
        elif pid:
            os.kill(pid, number)
        if not message:
            self._selector.unregister(control)
            control.close()
            # It is reaped in its time, and nobody hears of it.
            del self._clients[control]

    def _reap(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._woken, _MESSAGE)
        ended: list[tuple[int, int]] = []
        with suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                ended.append(found)
        for pid, status in ended:
            # The processes that it had started itself go with it.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
            self._nests = {key: nest for key, nest in self._nests.items() if nest[1] != pid}
            for control, child in self._clients.items():
                if child == pid:
                    self._clients[control] = _REAPED
                    self._end_orphans()
                    _tell(control, exit=os.waitstatus_to_exitcode(status))
        self._end_orphans()

    def _end_orphans(self) -> None:
        """Kill the processes that ended children have left, and those below them."""
        known = {*self._clients.values(), *(pid for _, pid in self._nests.values()), *self._standing}
        while orphans := [pid for pid in _children() if pid not in known]:
            for pid in orphans:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                with suppress(ChildProcessError):
                    os.waitpid(pid, 0)

    def _end(self, *_signal: object) -> None:
        for _, pid in self._nests.values():
            os.kill(pid, signal.SIGTERM)
        for pid in filter(None, self._clients.values()):
            _kill_group(pid)
        # A caller that waits for this process finds them gone, and their times counted.
        nests = {pid for _, pid in self._nests.values()}
        with suppress(ChildProcessError):
            while True:
                for pid in _children():
                    if pid not in nests:
                        os.kill(pid, signal.SIGKILL)
                os.wait()
        os._exit(0)


def _adopt_orphans() -> None:
    """Let processes below this one whose parents have ended become its own children."""
    assert _prctl is not None
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _children() -> list[int]:
    """The children of this process, those that have ended and are not reaped included."""
    try:
        files = [task / "children" for task in Path("/proc/self/task").iterdir()]
        return [int(pid) for file in files for pid in file.read_text(encoding="ascii").split()]
    except OSError:
        # A system without these files.
        import psutil

        return [one.pid for one in psutil.Process().children()]


def _kill_group(pid: int) -> None:
    """Kill a child that is not reaped yet, and the processes it has started."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        # It was forked just now, and has no group yet; or all of its group have ended.
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _tell(control: socket.socket, **news: int) -> None:
    # A client that has gone is met at its end of file.
    with suppress(OSError):
        control.send(json.dumps(news).encode())


def _listening(address: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(address)
    listener.listen(64)
    return listener


def main(arguments: Sequence[str]) -> None:
    """Be a server: the address, then the modules to import. It lives until its standard input ends."""
    address, *preload = arguments
    for name in preload:
        importlib.import_module(name)
    # No collection in a child goes through all that was imported, nor copies its pages by writing into them.
    gc.freeze()
    # Text buffered here would be written again by each child.
    server = _Server(address, _listening(address))
    # Nobody listens any more where the client has gone meanwhile; standard input has ended then as well.
    with suppress(BrokenPipeError):
        print("ready", flush=True)
    server.serve(sys.stdin.fileno())
