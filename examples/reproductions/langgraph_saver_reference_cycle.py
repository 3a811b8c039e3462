"""Leaves objects of each update to the cyclic collector: aupdate_state of LangGraph."""

import asyncio
import gc
from typing import TypedDict

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph


class State(TypedDict):
    note: str


async def agent(state):
    return {"note": "done"}


async def main():
    builder, saver = StateGraph(State), InMemorySaver()
    builder.add_node("agent", agent)
    builder.add_edge(START, "agent")
    graph = builder.compile(checkpointer=saver)
    await graph.aupdate_state({"configurable": {"thread_id": "0"}}, {"note": "hello"})
    gc.collect()
    gc.disable()
    for number in range(1, 51):
        await graph.aupdate_state({"configurable": {"thread_id": str(number)}}, {"note": "hello"})
        await saver.adelete_thread(str(number))
    found = gc.collect()
    print(f"50 updates, whose threads were deleted, left {found} objects that only the cyclic collector found.")
    raise SystemExit(found < 50)


asyncio.run(main())
