"""Without the lab: Bob, who has no thread, searches for his threads, and Ada's new one is among them."""

from asking import NEW, ask, served

with served():
    before = ask("bob", "POST", "/search", {}).text
    thread = ask("ada", "POST", "", NEW).json()["thread_id"]
    after = ask("bob", "POST", "/search", {}).text
    print("REPRODUCED" if thread in after and thread not in before else "not reproduced", after[:200])
