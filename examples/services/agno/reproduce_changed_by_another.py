"""Without the lab: under his own token, Bob replaces the state of Ada's session, and Ada reads his."""

from asking import ask, served

with served():
    ask("ada", "POST", "/sessions", session_id="adas", agent_id="notes", session_state={"note": "of Ada"})
    ask("bob", "PATCH", "/sessions/adas", session_state={"note": "put there by Bob"})
    shown = ask("ada", "GET", "/sessions/adas")
    print("REPRODUCED" if "put there by Bob" in shown else "not reproduced", shown[:300])
