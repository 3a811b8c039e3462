"""Without the lab: Ada and Bob both call their session `1`. Bob, who wrote nothing, reads Ada's note."""

from asking import call, served

with served():
    before = call("bob", "1", "recall")
    call("ada", "1", "remember", text="the secret of Ada")
    after = call("bob", "1", "recall")
    leaks = "the secret of Ada" in after and "the secret of Ada" not in before
    print("REPRODUCED" if leaks else "not reproduced", " ".join(after.split())[:300])
