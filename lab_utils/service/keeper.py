"""Runs one command and ends it, with every process that came of it, when its standard input closes.

    python -I keeper.py FOLDER COMMAND [WORD ...]

The lab holds the other end of that pipe: however the lab ends, killed included, the pipe closes. Standard library only,
and run as a file: it must start fast and need no package.

It is two processes, each of which ends the command's if the other one is killed: whoever adopts orphans must be alive.

The folder goes with the command, unless a byte came before the pipe closed: the lab then starts it there again. Where
this process is killed too, the lock on `.owner` is gone, and the next run of the lab removes the folder
(`lab_utils/runner/scratch.py`).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

_PARENT_DEATH_SIGNAL, _CHILD_SUBREAPER = 1, 36
_GRACE_S = 3.0


def main(folder: str, command: list[str]) -> int:
    """Run the command to its end, or to that of standard input; return its exit code."""
    # Orphans of the command come to the second process, or to this one when that is gone.
    _control(_CHILD_SUBREAPER, 1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    lifeline, held = os.pipe()
    second = os.fork()
    if second:
        os.close(lifeline)
        code = os.waitstatus_to_exitcode(os.waitpid(second, 0)[1])
        while _below(os.getpid()):
            _kill_orphans()
        return code if code >= 0 else 128 - code
    os.close(held)
    return _keep(folder, command, lifeline)


def _keep(folder: str, command: list[str], lifeline: int) -> int:
    """The work of the second process, which ends the command when the first one is gone: `lifeline` closes then."""
    _control(_CHILD_SUBREAPER, 1)
    owner = os.open(f"{folder}/.owner", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.lockf(owner, fcntl.LOCK_EX)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    try:
        # One thread, and nothing but two system calls between fork and exec.
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_restore)  # noqa: PLW1509
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        _leave(folder)
        return 127
    is_kept = is_closed = False
    while child.poll() is None and not is_closed:
        ready, _, _ = select.select([0, woken, lifeline], [], [])
        is_closed = lifeline in ready
        if woken in ready:
            os.read(woken, 4096)
        if 0 in ready:
            is_word = bool(os.read(0, 4096))
            is_closed, is_kept = is_closed or not is_word, is_kept or is_word
    _end(child)
    if is_closed and not is_kept:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        _leave(folder)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _leave(folder: str) -> None:
    """The lab still has the folder: nobody else is to take it for one that was left behind."""
    Path(folder, ".owner").unlink(missing_ok=True)


def _restore() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    # Where this process itself is killed, the command goes as well.
    _control(_PARENT_DEATH_SIGNAL, signal.SIGKILL)


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the command's process group and all orphans: asked first, killed when the grace is over."""
    last = time.monotonic() + _GRACE_S
    _signal_all(child.pid, signal.SIGTERM)
    while time.monotonic() < last and (child.poll() is None or _below(os.getpid())):
        _reap(child)
        time.sleep(0.02)
    # A killed process may have left a child of its own behind, which is an orphan only then.
    while child.poll() is None or _below(os.getpid()):
        _signal_all(child.pid, signal.SIGKILL)
        _reap(child)
        time.sleep(0.01)


def _kill_orphans() -> None:
    """Kill what is left of a command whose other keeper was killed, and reap it."""
    for pid in _below(os.getpid()):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            os.waitpid(pid, os.WNOHANG)
    time.sleep(0.01)


def _signal_all(group: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(group, number)
    for pid in _below(os.getpid()):
        with contextlib.suppress(OSError):
            os.kill(pid, number)


def _reap(child: subprocess.Popen[bytes]) -> None:
    """Reap orphans; the command itself is left to `child.poll`."""
    for pid in _below(os.getpid()):
        if pid != child.pid:
            with contextlib.suppress(OSError):
                os.waitpid(pid, os.WNOHANG)


def _below(root: int) -> list[int]:
    """All processes that descend from this one; none where there is no /proc."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            text = stat.read_text(encoding="ascii", errors="replace")
            parents.setdefault(int(text.rpartition(")")[2].split()[1]), []).append(int(stat.parent.name))
    found = [root]
    for pid in found:
        found.extend(parents.get(pid, ()))
    return found[1:]


def _control(option: int, value: int) -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
