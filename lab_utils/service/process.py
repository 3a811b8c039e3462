"""Starts a service, waits until it is ready, and ends all of its processes, however the lab itself ends."""

from __future__ import annotations

import asyncio
import os
import random
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from lab_utils.service.file import ServiceFile
from lab_utils.service.traffic import trusted

__all__ = ["ServiceProcess", "StartFailed"]

_KEEPER = Path(__file__).with_name("keeper.py")
_LINES = 12
_LONGEST = 4_000
_MOST_WORDS = 1_000_000
_TURN_S = 0.02
_RUNNING_S = 5.0
_PORTS = range(20_000, 32_000)


class StartFailed(Exception):
    """The server did not become ready. The message ends with the last lines that it wrote."""


class ServiceProcess:
    """One start of a service: a port of its own, a fresh working folder, and all processes that come of its command.

    `base` is its address after `start`. One that was running before is neither started nor ended. `stop` is safe to
    call again.
    """

    def __init__(self, service: ServiceFile) -> None:
        self._service = service
        self.base = service.address.rstrip("/")
        self._keeper: asyncio.subprocess.Process | None = None
        self._folder: Path | None = None
        self._port: socket.socket | None = None
        self._last_words = ""

    @property
    def pid(self) -> int:
        """The process whose descendants are the server's; 0 where the lab has started none."""
        return self._keeper.pid if self._keeper is not None else 0

    async def ends_within(self, seconds: float) -> bool:
        """Whether the command that the lab started ends by itself in this time."""
        if self._keeper is None:
            return False
        with suppress(TimeoutError):
            await asyncio.wait_for(self._keeper.wait(), seconds)
        return self._keeper.returncode is not None

    async def start(self) -> None:
        """Start the server and return when it is ready. Raises `StartFailed`, with nothing left running."""
        service = self._service
        within = service.ready_within_s
        if service.command:
            try:
                await self._launch()
            except OSError as error:
                raise StartFailed(f"{service.command[0]}: {error.strerror}") from error
        else:
            # One that runs already need not be waited for.
            within = min(within, _RUNNING_S)
        try:
            async with asyncio.timeout(within):
                await self._until_ready()
        except TimeoutError:
            if not service.command:
                where = f"{self.base}{service.ready}"
                remedy = "start the server, or give the command that starts it in place of address"
                raise StartFailed(f"nothing answers at {where}; {remedy}") from None
            tail = self.tail()
            await self._give_up()
            what = service.ready or service.ready_text or "its port"
            remedy = "mend ready or ready_text, or raise ready_within_s, if it needs longer"
            raise StartFailed(f"not ready after {within:g} s ({what}); {remedy}{tail}") from None
        except BaseException:
            await self._give_up()
            raise

    async def _give_up(self) -> None:
        """End a start that failed. What the server wrote can be read until `stop`: it is the reason, often."""
        words = self.output(_MOST_WORDS)
        await self.stop()
        self._last_words = words

    async def restart(self) -> None:
        """End the server and start it again, with the same working folder and port."""
        if self._keeper is not None and self._keeper.stdin is not None:
            self._keeper.stdin.write(b"k")
        await self._end()
        await self.start()

    async def stop(self) -> None:
        """End every process of the server and remove its working folder."""
        self._last_words = ""
        try:
            await self._end()
        finally:
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
                self._folder = None
            if self._port is not None:
                self._port.close()
                self._port = None

    def tail(self) -> str:
        """A colon, and the last lines that the server wrote, each after a line break; "" where it wrote none."""
        lines = "".join(f"\n    {line}" for line in self.output(_LONGEST).splitlines()[-_LINES:])
        return f":{lines}" if lines else ""

    def output(self, most: int) -> str:
        """The last whole lines that the server wrote since `start`, over restarts too, in so many bytes. "" after
        `stop`, or where the lab has started none."""
        if self._folder is None:
            return self._last_words[-most:]
        try:
            with (self._folder / "server.log").open("rb") as log:
                begin = max(0, log.seek(0, os.SEEK_END) - most)
                log.seek(begin)
                text = log.read().decode("utf-8", "replace")
                # The rest of a line may be the rest of a secret, which nobody would know for one.
                return text.partition("\n")[2] or text if begin else text
        except FileNotFoundError:
            return ""

    async def _launch(self) -> None:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="registry-lab-service-"))
            (self._folder / "work").mkdir()
            port, self._port = _free_port()
            self.base = f"http://127.0.0.1:{port}"
        values = {
            "port": str(urlsplit(self.base).port),
            "folder": self._service.folder,
            "work": str(self._folder / "work"),
            "workers": str(self._service.workers),
            "python": sys.executable,
        }
        command = [_filled(word, values) for word in self._service.command]
        given = {name: _filled(text, values) for name, text in self._service.environment.items()}
        with (self._folder / "server.log").open("ab") as log:
            self._keeper = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", str(_KEEPER), str(self._folder), *command),
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self._folder / "work",
                env={**os.environ, **given},
                # Ctrl-C and the end of a check's process group are for the lab; the keeper ends when its input does.
                start_new_session=True,
            )

    async def _until_ready(self) -> None:
        async with httpx.AsyncClient(verify=trusted(), trust_env=False, timeout=5.0) as client:
            while not await self._is_ready(client):
                if self._keeper is not None and self._keeper.returncode is not None:
                    remedy = "it runs in an empty folder: name files by {folder}"
                    code = self._keeper.returncode
                    raise StartFailed(f"the command ended with exit code {code} ({remedy}){self.tail()}")
                await asyncio.sleep(_TURN_S)

    async def _is_ready(self, client: httpx.AsyncClient) -> bool:
        service = self._service
        if service.ready_text and self._folder is not None:
            log = (self._folder / "server.log").read_text(encoding="utf-8", errors="replace")
            return re.search(service.ready_text, log) is not None
        if service.ready:
            with suppress(httpx.HTTPError):
                return (await client.get(f"{self.base}{service.ready}")).status_code < 500
            return False
        parts = urlsplit(self.base)
        with suppress(OSError):
            port = parts.port or (443 if parts.scheme == "https" else 80)
            _, writer = await asyncio.open_connection(parts.hostname, port)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
            return True
        return False

    async def _end(self) -> None:
        if self._keeper is None:
            return
        keeper, self._keeper = self._keeper, None
        assert keeper.stdin is not None
        keeper.stdin.close()
        await keeper.wait()


def _free_port() -> tuple[int, socket.socket]:
    """A port that nobody has, and a socket that keeps it from other labs of this machine until it is closed.

    It is below the ports that systems hand out by themselves: until the server listens, or while it is started again,
    another program could be given such a one.
    """
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            kept = socket.socket(socket.AF_UNIX)
            try:
                if sys.platform == "linux":
                    # A name that is no file, and is gone with this process.
                    kept.bind(f"\0registry-lab-port-{port}")
            except OSError:
                kept.close()
                continue
            return port, kept
    raise StartFailed(f"no port from {_PORTS[0]} to {_PORTS[-1]} is free")


def _filled(text: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value)
    return text
