"""Without the lab: Ada and Bob each write one note to a session of the same id; each reads the notes of both."""

from asking import call, served

with served():
    for user in ("ada", "bob"):
        call(user, "notes-1", "remember", text=f"note of {user}")
    shown = [call(user, "notes-1", "recall") for user in ("ada", "bob")]
    both = all(f"note of {user}" in one for user in ("ada", "bob") for one in shown)
    print("REPRODUCED" if both else "not reproduced", " ".join(shown[0].split())[:300])
