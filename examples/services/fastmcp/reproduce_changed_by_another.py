"""Without the lab: under his own token and the id of Ada's session, Bob adds a note, and Ada reads it."""

from asking import call, served

with served():
    call("ada", "adas-session", "remember", text="of Ada")
    call("bob", "adas-session", "remember", text="put there by Bob")
    shown = call("ada", "adas-session", "recall")
    print("REPRODUCED" if "put there by Bob" in shown else "not reproduced", " ".join(shown.split())[:300])
