"""Finds one user's memories at a cost that grows with all others': InMemoryStore of LangGraph."""

import time

from langgraph.store.memory import InMemoryStore


def cost(others):
    store = InMemoryStore()
    for number in range(others + 1):
        store.put((f"user-{number}",), "note", {"text": "mine"})
    begun = time.process_time()
    for _ in range(20):
        assert len(store.search((f"user-{others}",))) == 1
    return (time.process_time() - begun) / 20


few, many = cost(100), cost(20_000)
print(f"Finding one user's memories took {few * 1e6:.0f} us beside 100 others and {many * 1e6:.0f} us beside 20,000.")
raise SystemExit(many < 10 * few)
