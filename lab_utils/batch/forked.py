"""Children of processes that have imported the modules of kernels, pages and reports beforehand."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing import connection as pipes
from typing import Final

from lab_utils.output import pages
from lab_utils.output.store import OpenRun
from lab_utils.runner.forkserver import ForkedChild, ServerFailed, is_available, surroundings
from lab_utils.runner.server import server

__all__ = ["ChildFailed", "prepare", "publish", "start_kernel", "write_page"]

_KERNELS: Final = "lab_utils.batch.warm_kernels"
_PAGES: Final = "lab_utils.batch.warm_pages"
_KEPT: Final = 1 << 16
_SECONDS_BETWEEN: Final = 0.1


class ChildFailed(Exception):
    """A child could not do its job; the message is the last line that it printed."""


def prepare() -> None:
    """Have the imports begin; returns at once."""

    def ask() -> None:
        # A server that does not start is met again, and reported, where a kernel is wanted.
        with suppress(ServerFailed):
            for module in (_KERNELS, _PAGES):
                server().prepare((module,), for_all=True)

    if is_available():
        # The server itself imports first, and is waited for: meanwhile there is much to import here.
        threading.Thread(target=ask, name="prepare kernels").start()


def start_kernel(asked: Mapping[str, object]) -> ForkedChild:
    """Start a child that is a kernel, as `warm_kernels.kernel` is asked for it.

    Raises `ServerFailed` if there is no server.
    """
    return _start(_KERNELS, "kernel", asked)


def write_page(run: OpenRun, notebook: str, *, is_over: Callable[[], bool] = lambda: False) -> None:
    """Write the page of an executed notebook of the run, beside it; given up once `is_over`, where there are forks."""
    if is_available():
        _call(_PAGES, "page", run, is_over, notebook=notebook)
    else:
        pages.write_notebook_page(run, notebook)


def publish(run: OpenRun, status: str) -> None:
    """Write the run's frames and its report, as `pages.publish` does."""
    if is_available():
        _call(_KERNELS, "report", run, status=status)
        run.reload()
    else:
        pages.publish(run, status)


def _call(module: str, function: str, run: OpenRun, is_over: Callable[[], bool] = lambda: False, **asked: str) -> None:
    named = {"outputs": str(run.folder.parent), "run": run.run_id, **asked}
    child = _start(module, function, {**surroundings(), **named})
    try:
        printed, data = b"", b" "
        while data:
            if is_over():
                raise ChildFailed("it was given up")
            if pipes.wait([child.output], _SECONDS_BETWEEN):
                data = os.read(child.output, _KEPT)
                printed = (printed + data)[-_KEPT:]
        if code := child.wait():
            lines = printed.decode(errors="replace").splitlines()
            raise ChildFailed(lines[-1] if lines else f"its process ended with exit code {code}")
    finally:
        child.close()


def _start(module: str, function: str, asked: Mapping[str, object]) -> ForkedChild:
    child = server().start(f"{module}:{function}", imports=(module,), for_all=True)
    child.connection.send_bytes(json.dumps(asked).encode())
    return child
