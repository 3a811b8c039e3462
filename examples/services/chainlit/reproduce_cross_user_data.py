"""Without the lab: Bob opens a page of his own and asks for the notes; the one that Ada wrote on hers is shown."""

from asking import say, served

with served():
    say("ada", "page-of-ada", "the secret of Ada")
    shown = say("bob", "page-of-bob", "recall")
    print("REPRODUCED" if "the secret of Ada" in shown else "not reproduced", repr(shown[:200]))
