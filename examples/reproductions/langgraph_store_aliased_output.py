"""Changes a stored item of LangGraph's InMemoryStore through the object that a reader was given."""

from langgraph.store.memory import InMemoryStore

store = InMemoryStore()
store.put(("ada",), "note", {"notes": ["mine"]})
store.get(("ada",), "note").value["notes"].append("changed by a reader")
stored = store.get(("ada",), "note").value
print(f"After a reader had changed its answer, InMemoryStore of LangGraph held {stored}.")
raise SystemExit(stored == {"notes": ["mine"]})
