"""Starts AgentOS and asks it as one of its users. Arguments of a script: a port, and `shared` or `isolated`."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import jwt

PORT, MODE = (*sys.argv[1:], "shared")[:2]


def ask(user: str, method: str, path: str, **body: object) -> str:
    claims = {"sub": user, "scopes": ["sessions:read", "sessions:write", "sessions:delete"], "exp": time.time() + 600}
    token = jwt.encode(claims, "a-signing-key-of-at-least-32-characters", "HS256")
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.request(method, f"http://127.0.0.1:{PORT}{path}", json=body or None, headers=headers, timeout=60).text


@contextlib.contextmanager
def served() -> Iterator[None]:
    server = subprocess.Popen([sys.executable, str(Path(__file__).with_name("server.py")), PORT, MODE])
    try:
        subprocess.run(["curl", "-so", "/dev/null", "--retry", "300", "--retry-delay", "1", "--retry-connrefused",
                        f"http://127.0.0.1:{PORT}/health"], check=True)  # fmt: skip
        yield
    finally:
        server.terminate()
        server.wait()
