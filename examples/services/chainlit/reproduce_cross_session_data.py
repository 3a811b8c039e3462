"""Without the lab: Ada opens a second page, which is a session of its own; the first one's note is there."""

from asking import say, served

with served():
    before = say("ada", "second-page-of-ada", "recall")
    say("ada", "first-page-of-ada", "note of the first page")
    after = say("ada", "second-page-of-ada", "recall")
    stray = "note of the first page" in after and "note of the first page" not in before
    print("REPRODUCED" if stray else "not reproduced", repr(after[:200]))
