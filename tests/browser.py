"""A headless Chromium, driven over its own protocol; nothing but `websockets` is needed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

__all__ = ["Page", "browsing", "chromium"]

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--remote-debugging-port=0",
    "--window-size=1000,700",
)
LIMIT_S = 600.0
"""On a machine that has a part of one core for all of a browser's processes: only a test that fails waits so long."""


def chromium() -> str | None:
    """The browser's command, if there is one."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page:
    """One tab."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._count = 0

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the DevTools protocol. Raises `RuntimeError`, and `TimeoutError` after `LIMIT_S` seconds."""
        self._count += 1
        self._socket.send(json.dumps({"id": self._count, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._socket.recv(timeout=LIMIT_S))
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result

    def evaluate(self, expression: str) -> Any:
        """The value of an expression, a promise awaited. Raises `RuntimeError` with the error that it throws."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def until(self, condition: str) -> Any:
        """Wait until the page changes so that the condition holds; return its value."""
        return self.evaluate(
            f"""new Promise((resolve, reject) => {{
                const look = () => {{
                    const found = {condition};
                    if (found) {{ watcher.disconnect(); resolve(found); }}
                }};
                const watcher = new MutationObserver(look);
                watcher.observe(document, {{subtree: true, childList: true, attributes: true, characterData: true}});
                setTimeout(() => reject(document.body.innerText), {LIMIT_S * 500});
                look();
            }})"""
        )

    def open(self, url: str) -> None:
        """Go to an address, and wait until it is loaded."""
        self.call("Page.enable")
        self.call("Page.navigate", url=url)
        self.evaluate(
            "new Promise(go => document.readyState === 'complete' ? go() : addEventListener('load', () => go()))"
        )


@contextmanager
def browsing(profile: Path) -> Iterator[Page]:
    """A new browser with an empty profile in a folder of the caller's; it is gone afterwards, children included."""
    command = chromium()
    assert command is not None
    # It leaves a folder of its own among the temporary files, whose name must be short: it holds a socket.
    temporary = tempfile.mkdtemp()
    process = subprocess.Popen(
        [command, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        env={**os.environ, "TMPDIR": temporary},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stderr is not None
    try:
        port = _debugging_port(process)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=LIMIT_S) as answer:
            tabs = json.load(answer)
        address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
        with connect(address, max_size=None, compression=None, proxy=None) as socket:
            yield Page(socket)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stderr.close()
        shutil.rmtree(temporary, ignore_errors=True)


def _debugging_port(process: subprocess.Popen[bytes]) -> int:
    assert process.stderr is not None
    said = b""
    for line in process.stderr:
        said += line
        if b"DevTools listening on ws://" in line:
            return int(line.split(b"127.0.0.1:")[1].split(b"/")[0])
    raise RuntimeError(f"Chromium did not start:\n{said.decode(errors='replace')}")
