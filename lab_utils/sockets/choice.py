"""Which way events reach the clients of one trial: in process, or over each target's own sockets."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable

from lab_utils.sockets.transport import SocketTransport
from lab_utils.target import Capability, Target
from lab_utils.values.profiles import UsageError

__all__ = ["Transports", "require_sockets"]

_NEEDED = ("itsdangerous", "uvicorn", "websockets")
_LOADED = (
    "itsdangerous",
    "uvicorn.protocols.websockets.websockets_sansio_impl",
    "lab_utils.sockets.fleet",
    "lab_utils.sockets.loopback",
)


def socket_modules() -> tuple[str, ...]:
    """The modules that sockets need; none where the packages are not installed.

    Importing them takes a second, which no trial should wait for.
    """
    return () if _missing() else _LOADED


def require_sockets(serves_any: Callable[[], bool]) -> None:
    """Raise `UsageError` with the remedy where packages that sockets need are missing and the target serves any."""
    if (missing := _missing()) and serves_any():
        raise UsageError(
            f"transport='websocket' needs {', '.join(missing)}: pip install 'agent-registry-lab[server]', "
            "or choose transport='inprocess'"
        )


def _missing() -> list[str]:
    return [name for name in _NEEDED if importlib.util.find_spec(name) is None]


class Transports:
    """The transports of one trial: `of` each target its own, where the trial is to have sockets and the target serves
    any."""

    def __init__(self, chosen: str) -> None:
        self.in_process = 0
        self._chosen = chosen
        self._opened, self._received = 0, 0
        self._of: dict[int, SocketTransport] = {}  # By the id of a target that is open.
        self._flushing = asyncio.Lock()
        self._flushes = 0

    def of(self, target: Target, patience_s: float) -> SocketTransport | None:
        """The target's sockets, made at the first call; None if its clients are in process."""
        if self._chosen != "websocket" or Capability.SOCKETS not in target.capabilities:
            return None
        return self._of.setdefault(id(target), SocketTransport(target, patience_s))

    async def replace(self, old: Target, new: Target) -> None:
        """Let `new` serve where `old` did."""
        transport = self._of[id(new)] = self._of.pop(id(old))
        await transport.restart(new)

    async def flush(self) -> None:
        """Return once every client that reads has received everything sent so far."""
        before = self._flushes
        async with self._flushing:
            # If many wait here, the first does it for all: it begins after they asked.
            if self._flushes == before:
                self._flushes += 1
                for transport in list(self._of.values()):
                    await transport.flush()

    async def close(self, target: Target) -> None:
        """Close a target's clients and its server; nothing if it has none."""
        transport = self._of.pop(id(target), None)
        if transport is not None:
            self._opened += transport.opened
            try:
                await transport.aclose()
            finally:
                self._received += transport.arrived

    async def close_all(self) -> None:
        """Close the remaining clients, whatever goes wrong with one of them."""
        errors = []
        while self._of:
            _, transport = self._of.popitem()
            self._opened += transport.opened
            try:
                await transport.aclose()
            except Exception as error:
                errors.append(error)
            self._received += transport.arrived
        if errors:
            raise ExceptionGroup("sockets did not close", errors)

    def arrived(self) -> int:
        """How many greetings and events all clients have received so far."""
        return sum(transport.opened + transport.arrived for transport in self._of.values())

    def received(self) -> int:
        """How many events all clients have received, those of targets that are closed included."""
        return self._received + sum(transport.arrived for transport in self._of.values())

    def note(self) -> str:
        """Which transport was used, in a sentence; "" if nobody connected."""
        if self._opened:
            return f"Events crossed {self._opened} WebSockets on loopback to clients in a thread of their own."
        if not self.in_process:
            return ""
        if self._chosen == "websocket":
            return "Events were received in process: the target serves no sockets."
        return "Events were received in process, as was chosen."
