"""Without the lab: under his own token and the id of Ada's thread, Bob adds a note, and Ada reads it."""

from asking import NEW, ask, served

with served():
    thread = ask("ada", "POST", "", NEW).json()["thread_id"]
    ask("bob", "POST", f"/{thread}/state", {"values": {"notes": ["put there by Bob"]}})
    shown = ask("ada", "GET", f"/{thread}/state").text
    print("REPRODUCED" if "put there by Bob" in shown else "not reproduced", shown[:200])
