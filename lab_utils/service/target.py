"""A service as a target: starts and ends its process, and opens the doors of its callers."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote, quote_plus

from lab_utils.service import ALLOWED_VARIABLE, LOG_VARIABLE, PREFIX
from lab_utils.service.credentials import Credentials
from lab_utils.service.door import Door
from lab_utils.service.file import ServiceFile, read_service
from lab_utils.service.process import ServiceProcess, StartFailed
from lab_utils.service.traffic import Traffic
from lab_utils.target import BaseTarget, Capability
from lab_utils.values.profiles import UsageError

__all__ = ["ServiceTarget", "load_service"]

_OUTPUT: Final = 1_000_000
_LOOK_ALIKES: Final = ("acme", "ACME", "acme1", "acme-1")


class ServiceTarget(BaseTarget):
    """A server known by its service file. `launch` starts it in a fresh folder; `stop` ends all of its processes."""

    also = frozenset({Capability.SERVICE})

    def __init__(self, service: ServiceFile, *, log: Path | None = None) -> None:
        self.service = service
        self.process = ServiceProcess(service)
        self._make_door = _door_class(service)
        self._doors: list[Door] = []
        self._log = log
        self._traffic = Traffic(service.bounds, log, (*service.secrets, service.identity.signing_key))
        self.credentials = Credentials(service.identity, service.folder, self._traffic, service.variables)

    @property
    def name(self) -> str:
        return self.service.name

    async def launch(self) -> None:
        """Start the server and return when it is ready. Raises `StartFailed`.

        Not `start`, which a trial expects to end within its patience: a server has `ready_within_s`.
        """
        try:
            await self.process.start()
        except StartFailed as error:
            begins = "does not start" if self.service.command else "is not there"
            raise StartFailed(f"service {self.name!r} {begins}: {error}") from None
        self.credentials.address = self.process.base

    async def stop(self) -> None:
        try:
            for door in self._doors:
                await door.close()
            self._doors.clear()
        finally:
            self._keep_output()
            self._traffic.close()
            await self.process.stop()

    def _keep_output(self) -> None:
        """Add the server's own output to the record, without the secrets that are known: the end of it takes its
        folder."""
        if self._log is not None and (text := self.process.output(_OUTPUT)):
            with self._log.with_suffix(".log").open("a", encoding="utf-8", errors="backslashreplace") as kept:
                of = f"of process {self.process.pid}" if self.process.pid else "did not start"
                kept.write(f"{self.process.base} {of}\n{self.masked(text).rstrip()}\n")

    async def restart(self) -> None:
        """End the server and start it again on its own working folder. Doors stay; their connections do not."""
        await self.process.restart()

    def masked(self, text: str) -> str:
        """The text without the secrets that are known."""
        return self._traffic.masked(text)

    @property
    def sent(self) -> int:
        """How many requests were sent."""
        return self._traffic.sent

    def users(self, count: int) -> list[str]:
        """So many users: those with accounts, else names that a careless key mixes up, where identity is proved."""
        if self.service.identity.accounts:
            return list(self.service.identity.accounts)[:count]
        first = _LOOK_ALIKES if self.service.promises.identity == "proved" else ()
        return [*first, *(f"user{number}" for number in range(1, count + 1))][:count]

    def door(self, user: str, token: str | None = "", headers: Mapping[str, str] | None = None) -> Door:
        """A caller with this user's credentials; with another `token`, or with none (None), or with other `headers`."""
        credentials = self.credentials
        if token == "" and credentials.exist:
            token = credentials.token(user)
        for form in (token, quote_plus(token), quote(token)) if token else ():
            self._traffic.learn(form)
        sent = credentials.headers(user, token) if headers is None else headers
        door = self._make_door(self.service, self.process.base, user, sent, self._traffic)
        door.token = token or ""
        door.query = credentials.query(user, token)
        self._doors.append(door)
        return door

    async def close(self, door: Door) -> None:
        """Close one door before the target stops."""
        self._doors.remove(door)
        await door.close()


def load_service(name: str) -> Callable[[], ServiceTarget]:
    """The maker of the target of a service file, named `service:PATH`. Raises `UsageError` as `read_service` does."""
    path = name.removeprefix(PREFIX)
    allowed = [host for host in os.environ.get(ALLOWED_VARIABLE, "").split(",") if host]
    service = read_service(path, allowed_hosts=allowed)
    _door_class(service)
    folder = os.environ.get(LOG_VARIABLE, "")
    log = Path(folder) / f"{service.name}-{os.getpid()}.jsonl" if folder else None
    return lambda: ServiceTarget(service, log=log)


def _door_class(service: ServiceFile) -> type[Door]:
    """The class of the service's doors. Raises `UsageError` where the file names one that cannot be had."""
    if service.door:
        return _own_door(service)
    if service.is_mcp:
        if importlib.util.find_spec("mcp") is None:
            raise UsageError("mcp is not installed; pip install 'agent-registry-lab[service]'")
        from lab_utils.service.mcp_door import McpDoor

        return McpDoor
    return Door


def _own_door(service: ServiceFile) -> type[Door]:
    file, _, name = service.door.partition(":")
    path = Path(service.folder) / file
    spec = importlib.util.spec_from_file_location(f"registry_lab_door_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UsageError(f"door = {service.door!r}: there is no file {file} beside the service file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    kind = getattr(module, name, None)
    if not (isinstance(kind, type) and issubclass(kind, Door)):
        raise UsageError(
            f"door = {service.door!r}: {file} has no class {name!r} that extends lab_utils.service.door.Door"
        )
    return kind
