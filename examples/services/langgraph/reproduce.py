"""Without the lab: under an auth handler that only authenticates, Bob reads Ada's thread. Argument: a port."""

import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

port, here = sys.argv[1], Path(__file__).parent


def ask(user: str, method: str, path: str, body: object = None) -> str:
    headers = {"Authorization": f"Bearer token-of-{user}", "Content-Type": "application/json"}
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers, method=method)
    with urllib.request.urlopen(request) as answer:
        return answer.read().decode()


with tempfile.TemporaryDirectory() as folder:
    for file in (*here.glob("*.py"), *here.glob("*.json")):
        shutil.copy(file, folder)
    command = ["langgraph", "dev", "--no-browser", "--no-reload", "--port", port, "--config", "authenticated.json"]
    server = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                thread = json.loads(ask("ada", "POST", "/threads", {"metadata": {"graph_id": "notes"}}))["thread_id"]
                break
            except OSError:
                time.sleep(0.5)
        ask("ada", "POST", f"/threads/{thread}/state", {"values": {"notes": ["the secret of Ada"]}})
        shown = ask("bob", "GET", f"/threads/{thread}/state")
        print("LEAK" if "the secret of Ada" in shown else "kept apart", shown[:200])
    finally:
        server.terminate()
        server.wait()
