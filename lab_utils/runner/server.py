"""The fork server of a process: that of its batch, or one of its own."""

from __future__ import annotations

import importlib.util
import os
import threading
from pathlib import Path
from typing import Final

from lab_utils.runner.forkserver import ForkServer, is_available
from lab_utils.runner.interpreter import interpreter
from lab_utils.sockets.choice import socket_modules

__all__ = ["OTHER_SERVER_VARIABLE", "SERVER_VARIABLE", "SLOTS_VARIABLE", "begin", "server", "slots"]

SERVER_VARIABLE: Final = "REGISTRY_LAB_FORK_SERVER"
"""The environment variable that names the address of a fork server which other processes may use."""

OTHER_SERVER_VARIABLE: Final = "REGISTRY_LAB_OTHER_FORK_SERVER"
"""The environment variable that names the address of one with another interpreter, a colon, and that interpreter."""

SLOTS_VARIABLE: Final = "REGISTRY_LAB_SLOTS"
"""The environment variable that names the folder of locks of processes that have a fork server each and share slots."""

_servers: dict[tuple[int, str], ForkServer] = {}
_starting: Final = threading.Lock()


def begin() -> None:
    """Have the server import the lab, where there is one, while this process imports its own: a second is saved."""
    if is_available():
        server()


def server(python: str = "") -> ForkServer:
    """Return the fork server of this process, which is started when first asked for. Several threads may call it.

    `python`: that of another interpreter (`interpreter`).
    """
    pid = os.getpid()
    with _starting:
        found = _servers.get((pid, python))
        if found is None or not found.is_alive:
            # Descriptors that a fork inherits are its parent's to close.
            for key in [key for key in _servers if key[0] != pid]:
                del _servers[key]
            _servers[pid, python] = found = _begun(python)
    return found


def _begun(python: str) -> ForkServer:
    if python:
        other = interpreter(python)
        address, _, named = os.environ.get(OTHER_SERVER_VARIABLE, "").partition(":")
        address = address if named == python and Path(address).exists() else ""
        worker = ("lab_utils.runner.worker",)
        return ForkServer(worker, address=address, executable=other.executable, path=other.path)
    address = os.environ.get(SERVER_VARIABLE, "")
    preload = ("lab_utils.runner.worker", *_default_agents(), *socket_modules())
    return ForkServer(preload, address=address if Path(address).exists() else "")


def slots() -> str:
    """Return the folder of the locks: that of the environment, else of all processes that share this fork server."""
    if named := os.environ.get(SLOTS_VARIABLE):
        return named
    return str(server().path.parent / "slots") if is_available() else ""


def _default_agents() -> tuple[str, ...]:
    # A registry imports them when it is asked for them; a copy of the project may be without.
    return ("registry.usage.agents",) if importlib.util.find_spec("registry.usage") else ()
