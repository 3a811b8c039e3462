"""Without the lab: of two sessions whose ids differ in case alone, each holds the note of the other."""

from asking import RECALL, REMEMBER, press, served

with served():
    for page in ("page-Aa", "PAGE-aA"):
        press(page, REMEMBER, f"note of {page}", "")
    shown = [press(page, RECALL, "") for page in ("page-Aa", "PAGE-aA")]
    both = "note of PAGE-aA" in shown[0] and "note of page-Aa" in shown[1]
    print("REPRODUCED" if both else "not reproduced", shown[0][:200])
