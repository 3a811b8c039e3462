"""Without the lab: Bob presses `recall` twice and sees the same; once Ada has used her own page, he sees more."""

from asking import RECALL, REMEMBER, press, served

with served():
    press("page-of-bob", REMEMBER, "note of Bob", "")
    alone, again = press("page-of-bob", RECALL, ""), press("page-of-bob", RECALL, "")
    press("page-of-ada", REMEMBER, "note of Ada", "")
    beside = press("page-of-bob", RECALL, "")
    print("REPRODUCED" if alone == again != beside else "not reproduced", f"alone {alone}, beside {beside}")
