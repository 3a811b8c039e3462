"""Without the lab: Bob, who has no session, lists his sessions, and Ada's new one is among them."""

from asking import ask, served

with served():
    before = ask("bob", "GET", "/sessions")
    ask("ada", "POST", "/sessions", session_id="the-id-of-adas-session", agent_id="notes")
    after = ask("bob", "GET", "/sessions")
    listed = "the-id-of-adas-session" in after and "the-id-of-adas-session" not in before
    print("REPRODUCED" if listed else "not reproduced", after[:300])
