"""Children of a process that has imported beforehand what kernels and pages use."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from lab_utils.output import pages
from lab_utils.output.store import OpenRun
from lab_utils.runner.forkserver import ForkedChild, ServerFailed, is_available
from lab_utils.runner.watch import server

__all__ = ["ChildFailed", "prepare", "publish", "start", "write_page"]

_WARM: Final = "lab_utils.batch.warm"
_KEPT: Final = 1 << 16


class ChildFailed(Exception):
    """A child could not do what it was started for; the message is the last line that it printed."""


def prepare() -> None:
    """Have the process begin its imports; returns at once."""

    def ask() -> None:
        # A server that does not start is met again, and told of, where a kernel is wanted.
        with suppress(ServerFailed):
            start("nothing", {}).close()

    if is_available():
        # The server itself imports first, and is waited for: meanwhile there is much to import here.
        threading.Thread(target=ask, name="prepare kernels").start()


def start(what: str, asked: Mapping[str, object]) -> ForkedChild:
    """Start a child that does what one function of `warm` does. Raises `ServerFailed` if there is no server."""
    child = server().start(f"{_WARM}:{what}", imports=(_WARM,))
    child.connection.send_bytes(json.dumps(asked).encode())
    return child


def write_page(run: OpenRun, notebook: str) -> None:
    """Write the page of an executed notebook of the run, beside it."""
    if is_available():
        _call("page", run, notebook=notebook)
    else:
        pages.write_notebook_page(run, notebook)


def publish(run: OpenRun, status: str) -> None:
    """Write the run's frames and its report, as `pages.publish` does."""
    if is_available():
        _call("report", run, status=status)
        run.reload()
    else:
        pages.publish(run, status)


def _call(what: str, run: OpenRun, **asked: str) -> None:
    child = start(what, {"outputs": str(run.folder.parent), "run": run.run_id, **asked})
    try:
        printed = b"".join(iter(lambda: os.read(child.output, _KEPT), b""))
        if code := child.wait():
            lines = printed.decode(errors="replace").splitlines()
            raise ChildFailed(lines[-1] if lines else f"its process ended with exit code {code}")
    finally:
        child.close()
