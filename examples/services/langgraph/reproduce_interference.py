"""Without the lab: Bob lists his threads twice and does nothing else; a thread of Ada's in between changes the list."""

from asking import NEW, ask, served

with served():
    ask("bob", "POST", "", NEW)
    counts = [len(ask("bob", "POST", "/search", {}).json()) for _ in range(2)]
    ask("ada", "POST", "", NEW)
    counts.append(len(ask("bob", "POST", "/search", {}).json()))
    print("REPRODUCED" if counts == [1, 1, 2] else "not reproduced", "threads in Bob's list:", counts)
