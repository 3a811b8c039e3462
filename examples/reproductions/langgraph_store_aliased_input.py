"""Changes a stored item of LangGraph's InMemoryStore through the object that was put."""

from langgraph.store.memory import InMemoryStore

store, value = InMemoryStore(), {"notes": ["mine"]}
store.put(("ada",), "note", value)
value["notes"].append("changed afterwards by the caller")
stored = store.get(("ada",), "note").value
print(f"After the caller had changed its own dict, InMemoryStore of LangGraph held {stored}.")
raise SystemExit(stored == {"notes": ["mine"]})
