"""Without the lab: under his own token, Bob deletes Ada's session, and Ada finds it no more."""

from asking import ask, served

with served():
    ask("ada", "POST", "/sessions", session_id="adas", agent_id="notes", session_state={"note": "of Ada"})
    before = ask("ada", "GET", "/sessions/adas")
    ask("bob", "DELETE", "/sessions/adas")
    after = ask("ada", "GET", "/sessions/adas")
    print("REPRODUCED" if "of Ada" in before and "of Ada" not in after else "not reproduced", after[:300])
