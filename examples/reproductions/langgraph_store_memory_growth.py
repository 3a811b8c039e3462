"""Holds a namespace of every user whose memories were deleted, or only looked up: InMemoryStore of LangGraph."""

import tracemalloc

from langgraph.store.memory import InMemoryStore

store = InMemoryStore()
tracemalloc.start()
held = []
for number in range(20_001):
    store.put((f"user-{number}",), "note", {"text": "mine"})
    store.delete((f"user-{number}",), "note")
    store.get((f"guest-{number}",), "note")
    if number % 10_000 == 0:
        held.append(tracemalloc.get_traced_memory()[0])
left = len(store.list_namespaces(limit=100_000))
print(f"Nobody has a memory any more; the store lists {left:,} namespaces and holds {held[2] / 1e6:.1f} MB.")
raise SystemExit(left < 40_000 or held[2] - held[1] < 500_000)
