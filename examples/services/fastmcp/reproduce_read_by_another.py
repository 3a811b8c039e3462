"""Without the lab: under his own token and the id of Ada's session, Bob reads her notes."""

from asking import call, served

with served():
    call("ada", "adas-session", "remember", text="the secret of Ada")
    shown = call("bob", "adas-session", "recall")
    print("REPRODUCED" if "the secret of Ada" in shown else "not reproduced", " ".join(shown.split())[:300])
