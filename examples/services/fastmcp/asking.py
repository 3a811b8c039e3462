"""Starts a FastMCP server and calls its tools. Arguments of a script: a port, and `stateless` or `stateful`."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2

PORT, MODE = (*sys.argv[1:], "stateless")[:2]


def call(user: str, session: str, tool: str, **arguments: str) -> str:
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
    headers = {"Authorization": f"Bearer token-of-{user}", "Mcp-Session-Id": session}
    headers |= {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-11-25"}
    return httpx2.post(f"http://127.0.0.1:{PORT}/mcp", json=body, headers=headers, timeout=60).text


@contextlib.contextmanager
def served() -> Iterator[None]:
    server = subprocess.Popen([sys.executable, str(Path(__file__).with_name("server.py")), PORT, MODE])
    try:
        subprocess.run(["curl", "-so", "/dev/null", "--retry", "300", "--retry-delay", "1", "--retry-connrefused",
                        f"http://127.0.0.1:{PORT}/"], check=True)  # fmt: skip
        yield
    finally:
        server.terminate()
        server.wait()
