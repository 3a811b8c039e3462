"""Without the lab: notes in a variable of the module are shown to whoever opens the page. Argument: a port."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

base = f"http://127.0.0.1:{sys.argv[1]}/gradio_api"


def call(session: str, number: int, *data: str) -> str:
    body = json.dumps({"fn_index": number, "session_hash": session, "data": data}).encode()
    request = urllib.request.Request(f"{base}/queue/join", body, {"Content-Type": "application/json"})
    urllib.request.urlopen(request).close()
    with urllib.request.urlopen(f"{base}/queue/data?session_hash={session}") as events:
        for line in events:
            event = json.loads(line.removeprefix(b"data:")) if line.startswith(b"data:") else {}
            if event.get("msg") == "process_completed":
                return json.dumps(event["output"])
    return ""


settings = {**os.environ, "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
command = [sys.executable, str(Path(__file__).with_name("server.py")), sys.argv[1], "global"]
server = subprocess.Popen(command, env=settings)
try:
    while True:
        try:
            call("browser-of-ada", 0, "the secret of Ada", "")
            break
        except OSError:
            time.sleep(0.5)
    shown = call("browser-of-bob", 1, "")
    print("LEAK" if "the secret of Ada" in shown else "kept apart", shown[:200])
finally:
    server.terminate()
    server.wait()
