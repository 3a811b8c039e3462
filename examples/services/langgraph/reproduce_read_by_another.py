"""Without the lab: under his own token and the id of Ada's thread, Bob reads its state."""

from asking import NEW, ask, served

with served():
    thread = ask("ada", "POST", "", NEW).json()["thread_id"]
    ask("ada", "POST", f"/{thread}/state", {"values": {"notes": ["the secret of Ada"]}})
    shown = ask("bob", "GET", f"/{thread}/state").text
    print("REPRODUCED" if "the secret of Ada" in shown else "not reproduced", shown[:200])
