"""Without the lab: Bob asks for his list twice and does nothing else; what Ada does in between makes it another one."""

from asking import ask, served

with served():
    ask("bob", "POST", "/sessions", session_id="bobs", agent_id="notes")
    alone, again = ask("bob", "GET", "/sessions"), ask("bob", "GET", "/sessions")
    ask("ada", "POST", "/sessions", session_id="adas", agent_id="notes")
    beside = ask("bob", "GET", "/sessions")
    counts = [answer.count('"session_id"') for answer in (alone, again, beside)]
    print("REPRODUCED" if counts == [1, 1, 2] else "not reproduced", "sessions in Bob's list:", counts)
