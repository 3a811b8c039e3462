"""Without the lab: of two sessions of Ada's whose ids differ in case alone, each holds the note of the other."""

from asking import say, served

with served():
    for page in ("page-Aa", "PAGE-aA"):
        say("ada", page, f"note of {page}")
    shown = [say("ada", page, "recall") for page in ("page-Aa", "PAGE-aA")]
    both = "note of PAGE-aA" in shown[0] and "note of page-Aa" in shown[1]
    print("REPRODUCED" if both else "not reproduced", repr(shown[0][:200]))
