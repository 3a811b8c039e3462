"""Without the lab: Ada and Bob each open a session of the id `notes`. Bob, who wrote nothing, reads Ada's note."""

from asking import ask, served

with served():
    for user in ("ada", "bob"):
        ask(user, "POST", "/sessions", session_id="notes", agent_id="notes")
    ask("ada", "PATCH", "/sessions/notes", session_state={"note": "the secret of Ada"})
    shown = ask("bob", "GET", "/sessions/notes")
    print("REPRODUCED" if "the secret of Ada" in shown else "not reproduced", shown[:300])
