"""Without the lab: `langgraph dev` grows with threads that were deleted. Argument: a port."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

port, here = sys.argv[1], Path(__file__).parent


def ask(method: str, path: str, body: object = None) -> bytes:
    headers = {"Authorization": "Bearer token-of-ada", "Content-Type": "application/json"}
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers, method=method)
    return urllib.request.urlopen(request).read()


with tempfile.TemporaryDirectory() as folder:
    for file in (*here.glob("*.py"), *here.glob("*.json")):
        shutil.copy(file, folder)
    command = ["langgraph", "dev", "--no-browser", "--no-reload", "--port", port, "--config", "owned.json"]
    server = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait = ["curl", "-sfo", "ready", "--retry", "300", "--retry-delay", "1", "--retry-connrefused"]
    subprocess.run([*wait, f"http://127.0.0.1:{port}/ok"], cwd=folder, check=True)
    try:
        for cycle in range(9):
            for _ in range(10):
                thread = json.loads(ask("POST", "/threads", {"metadata": {"graph_id": "notes"}}))["thread_id"]
                ask("POST", f"/threads/{thread}/state", {"values": {"notes": [os.urandom(131_072).hex()]}})
                ask("DELETE", f"/threads/{thread}")
            pages = Path(f"/proc/{server.pid}/statm").read_text().split()[1]
            print(f"{10 * cycle + 10} threads of 262,144 bytes deleted: {int(pages) * 4096:,} bytes resident")
    finally:
        server.terminate()
        server.wait()
