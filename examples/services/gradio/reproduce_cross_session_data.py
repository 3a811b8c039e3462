"""Without the lab: Ada opens the page in a second tab, which is a session of its own; the first one's note is there."""

from asking import RECALL, REMEMBER, press, served

with served():
    before = press("second-tab-of-ada", RECALL, "")
    press("first-tab-of-ada", REMEMBER, "note of the first tab", "")
    after = press("second-tab-of-ada", RECALL, "")
    stray = "note of the first tab" in after and "note of the first tab" not in before
    print("REPRODUCED" if stray else "not reproduced", after[:200])
