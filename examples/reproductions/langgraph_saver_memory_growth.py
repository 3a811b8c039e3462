"""Keeps a checkpoint of every step of a conversation, whose state stays one note: InMemorySaver of LangGraph."""

import asyncio
import tracemalloc
from typing import TypedDict

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph


class State(TypedDict):
    note: str


async def main():
    builder, saver = StateGraph(State), InMemorySaver()
    builder.add_node("agent", lambda state: {"note": "done"})
    builder.add_edge(START, "agent")
    graph, thread = builder.compile(checkpointer=saver), {"configurable": {"thread_id": "0"}}
    tracemalloc.start()
    held = []
    for number in range(601):
        await graph.ainvoke({"note": "hello"}, thread)
        if number % 200 == 0:
            held.append(tracemalloc.get_traced_memory()[0])
    kept = [one async for one in saver.alist(thread)]
    print(f"601 runs leave one note, {len(kept):,} checkpoints and {held[3] / 1e6:.1f} MB.")
    raise SystemExit(len(kept) < 601 or held[3] - held[2] < 500_000)


asyncio.run(main())
