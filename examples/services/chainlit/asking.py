"""Starts a chainlit app and uses it as a page does. Arguments of a script: a port, and `global` or `session`."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import jwt
import socketio

PORT, MODE = (*sys.argv[1:], "global")[:2]
KEY = "a-signing-key-of-at-least-32-characters"


def say(user: str, page: str, text: str) -> str:
    claims = {"identifier": user, "display_name": user, "metadata": {}, "iat": time.time(), "exp": time.time() + 600}
    cookie = {"Cookie": f"access_token={jwt.encode(claims, KEY, 'HS256')}"}
    auth = {"sessionId": page, "clientType": "webapp", "userEnv": None, "chatProfile": "", "threadId": None}
    message = {"id": str(uuid.uuid4()), "name": user, "type": "user_message", "output": text, "createdAt": ""}
    with socketio.SimpleClient() as socket:
        socket.connect(f"http://127.0.0.1:{PORT}", headers=cookie, auth=auth, socketio_path="/ws/socket.io")
        socket.emit("connection_successful")
        socket.emit("client_message", {"message": message, "fileReferences": []})
        while (event := socket.receive(60))[0] != "new_message" or event[1]["type"] != "assistant_message":
            pass
    return str(event[1]["output"])


@contextlib.contextmanager
def served() -> Iterator[None]:
    settings = {**os.environ, "CHAINLIT_AUTH_SECRET": KEY, "NOTES": MODE, "CHAINLIT_APP_ROOT": tempfile.mkdtemp()}
    app = str(Path(__file__).with_name("server.py"))
    command = ["chainlit", "run", app, "--headless", "--host", "127.0.0.1", "--port", PORT]
    server = subprocess.Popen(command, env=settings)
    try:
        subprocess.run(["curl", "-so", "/dev/null", "--retry", "300", "--retry-delay", "1", "--retry-connrefused",
                        f"http://127.0.0.1:{PORT}/"], check=True)  # fmt: skip
        yield
    finally:
        server.terminate()
        server.wait()
