"""Without the lab: Bob opens the page and presses `recall`; the note that Ada left on hers is shown."""

from asking import RECALL, REMEMBER, press, served

with served():
    press("page-of-ada", REMEMBER, "the secret of Ada", "")
    shown = press("page-of-bob", RECALL, "")
    print("REPRODUCED" if "the secret of Ada" in shown else "not reproduced", shown[:200])
