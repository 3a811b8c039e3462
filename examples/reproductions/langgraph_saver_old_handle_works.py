"""Begins a deleted thread again with what a run of it under way stores: InMemorySaver of LangGraph."""

import asyncio
from typing import TypedDict

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph

began, go_on = asyncio.Event(), asyncio.Event()


class State(TypedDict):
    note: str


async def agent(state):
    began.set()
    await go_on.wait()
    return {"note": "mine"}


async def main():
    builder, saver, config = StateGraph(State), InMemorySaver(), {"configurable": {"thread_id": "1"}}
    builder.add_node("agent", agent)
    builder.add_edge(START, "agent")
    graph = builder.compile(checkpointer=saver)
    run = asyncio.create_task(graph.ainvoke({"note": ""}, config))
    await began.wait()
    await saver.adelete_thread("1")
    deleted = await saver.aget_tuple(config) is None
    go_on.set()
    await run
    now = (await graph.aget_state(config)).values
    print(f"The thread was deleted: {deleted}. After its run LangGraph has it again: {now}.")
    raise SystemExit(not deleted or not now)


asyncio.run(main())
