"""Without the lab: Bob searches for his threads, and the answer holds Ada's notes, though he knows no id of hers."""

from asking import NEW, ask, served

with served():
    thread = ask("ada", "POST", "", NEW).json()["thread_id"]
    ask("ada", "POST", f"/{thread}/state", {"values": {"notes": ["the secret of Ada"]}})
    shown = ask("bob", "POST", "/search", {}).text
    print("REPRODUCED" if "the secret of Ada" in shown else "not reproduced", shown[:300])
