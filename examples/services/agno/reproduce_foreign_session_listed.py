"""Without the lab: Ada and Bob work at once, each on a session of their own, and the list of each names the other's."""

from concurrent.futures import ThreadPoolExecutor

from asking import ask, served


def work(user: str) -> str:
    ask(user, "POST", "/sessions", session_id=f"the-session-of-{user}", agent_id="notes")
    return ask(user, "GET", "/sessions")


with served(), ThreadPoolExecutor() as pool:
    list(pool.map(work, ("ada", "bob")))
    ada, bob = pool.map(lambda user: ask(user, "GET", "/sessions"), ("ada", "bob"))
    crossed = "the-session-of-bob" in ada and "the-session-of-ada" in bob
    print("REPRODUCED" if crossed else "not reproduced", bob[:300])
