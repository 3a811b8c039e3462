"""Without the lab: under his own token, Bob reads the session whose id he knows, and which is Ada's."""

from asking import ask, served

with served():
    ask("ada", "POST", "/sessions", session_id="adas", agent_id="notes", session_state={"note": "the secret of Ada"})
    shown = ask("bob", "GET", "/sessions/adas")
    print("REPRODUCED" if "the secret of Ada" in shown else "not reproduced", shown[:300])
