"""Without the lab: Bob asks for his notes twice and sees the same; once Ada has written one, he sees more."""

from asking import say, served

with served():
    say("bob", "page-of-bob", "note of Bob")
    alone, again = say("bob", "page-of-bob", "recall"), say("bob", "page-of-bob", "recall")
    say("ada", "page-of-ada", "note of Ada")
    beside = say("bob", "page-of-bob", "recall")
    print("REPRODUCED" if alone == again != beside else "not reproduced", f"alone {alone!r}, beside {beside!r}")
