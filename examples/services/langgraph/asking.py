"""Starts `langgraph dev` and asks it as one of its users. Arguments of a script: a port, `authenticated` or `owned`."""

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx

PORT, MODE = (*sys.argv[1:], "authenticated")[:2]
NEW = {"metadata": {"graph_id": "notes"}}


def ask(user: str, method: str, path: str, body: object = None) -> httpx.Response:
    headers = {"Authorization": f"Bearer token-of-{user}"}
    return httpx.request(method, f"http://127.0.0.1:{PORT}/threads{path}", json=body, headers=headers, timeout=60)


@contextlib.contextmanager
def served() -> Iterator[subprocess.Popen[bytes]]:
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(Path(__file__).parent, folder, dirs_exist_ok=True)
        command = ["langgraph", "dev", "--no-browser", "--no-reload", "--port", PORT, "--config", f"{MODE}.json"]
        server = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            subprocess.run(["curl", "-so", "/dev/null", "--retry", "300", "--retry-delay", "1", "--retry-connrefused",
                            f"http://127.0.0.1:{PORT}/ok"], check=True)  # fmt: skip
            yield server
        finally:
            server.terminate()
            server.wait()
