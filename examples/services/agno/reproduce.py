"""Without the lab: with tokens checked and user_isolation off, Bob reads and changes Ada's session. Argument: port."""

import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import jwt

port = sys.argv[1]
SCOPES = ["sessions:read", "sessions:write"]


def ask(user: str, method: str, path: str, body: object = None) -> str:
    claims = {"sub": user, "scopes": SCOPES, "exp": time.time() + 600}
    token = jwt.encode(claims, "a-signing-key-of-at-least-32-characters", "HS256")
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers, method=method)
    with urllib.request.urlopen(request) as answer:
        return answer.read().decode()


server = subprocess.Popen([sys.executable, str(Path(__file__).with_name("server.py")), port, "shared"])
try:
    while True:
        try:
            ask("ada", "POST", "/sessions", {"session_id": "adas", "agent_id": "notes"})
            break
        except OSError:
            time.sleep(0.5)
    ask("ada", "PATCH", "/sessions/adas", {"session_state": {"note": "the secret of Ada"}})
    shown = ask("bob", "GET", "/sessions/adas")
    print("LEAK" if "the secret of Ada" in shown else "kept apart", shown[:300])
finally:
    server.terminate()
    server.wait()
