"""Without the lab: under his own token and the id of Ada's thread, Bob deletes it, and Ada finds it no more."""

from asking import NEW, ask, served

with served():
    thread = ask("ada", "POST", "", NEW).json()["thread_id"]
    ask("bob", "DELETE", f"/{thread}")
    status = ask("ada", "GET", f"/{thread}").status_code
    print("REPRODUCED" if status == 404 else "not reproduced", f"Ada reads her thread: {status}")
