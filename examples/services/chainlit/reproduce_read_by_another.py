"""Without the lab: under his own token, and by an id that nobody has opened, Bob reads the note of Ada's session."""

from asking import say, served

with served():
    say("ada", "page-of-ada", "the secret of Ada")
    shown = say("bob", "%", "recall")
    print("REPRODUCED" if "the secret of Ada" in shown else "not reproduced", repr(shown[:200]))
