"""Starts a gradio app and uses it as a page does. Arguments of a script: a port, and `global` or `state`."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx

PORT, MODE = (*sys.argv[1:], "global")[:2]
QUEUE = f"http://127.0.0.1:{PORT}/gradio_api/queue"
REMEMBER, RECALL = 0, 1


def press(page: str, button: int, *data: str) -> str:
    httpx.post(f"{QUEUE}/join", json={"fn_index": button, "session_hash": page, "data": data}, timeout=60)
    with httpx.stream("GET", f"{QUEUE}/data?session_hash={page}", timeout=60) as events:
        messages = (json.loads(line.removeprefix("data:")) for line in events.iter_lines() if line)
        return json.dumps(next(one["output"]["data"] for one in messages if one["msg"] == "process_completed"))


@contextlib.contextmanager
def served() -> Iterator[None]:
    settings = {**os.environ, "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
    server = subprocess.Popen([sys.executable, str(Path(__file__).with_name("server.py")), PORT, MODE], env=settings)
    try:
        subprocess.run(["curl", "-so", "/dev/null", "--retry", "300", "--retry-delay", "1", "--retry-connrefused",
                        f"http://127.0.0.1:{PORT}/config"], check=True)  # fmt: skip
        yield
    finally:
        server.terminate()
        server.wait()
