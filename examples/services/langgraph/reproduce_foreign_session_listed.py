"""Without the lab: Ada and Bob work at once, each on a thread of their own, and the list of each names the other's."""

from concurrent.futures import ThreadPoolExecutor

from asking import NEW, ask, served

with served(), ThreadPoolExecutor() as pool:
    ada, bob = pool.map(lambda user: ask(user, "POST", "", NEW).json()["thread_id"], ("ada", "bob"))
    of_ada, of_bob = pool.map(lambda user: ask(user, "POST", "/search", {}).text, ("ada", "bob"))
    print("REPRODUCED" if bob in of_ada and ada in of_bob else "not reproduced", of_bob[:200])
