"""Takes back an update of one thread in InMemorySaver of LangGraph when a slower one ends."""

import asyncio
import operator
from typing import Annotated, TypedDict

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph

began, go_on = asyncio.Event(), asyncio.Event()


async def number(said):
    if said[-1] == "slow":
        began.set()
        await go_on.wait()
    return str(int(next((one for one in reversed(said) if one.isdecimal()), 0)) + 1)


class State(TypedDict):
    said: Annotated[list[str], operator.add]


async def answer(state: State) -> State:
    return {"said": [await number(state["said"])]}


graph = StateGraph(State).add_node("answer", answer).add_edge(START, "answer").compile(checkpointer=InMemorySaver())


async def run(text):
    state = await graph.ainvoke({"said": [text]}, {"configurable": {"thread_id": "ada"}})
    return state["said"][-1]


async def main():
    slow = asyncio.create_task(run("slow"))
    await began.wait()
    answers = [await run("one"), await run("two"), go_on.set() or await slow, await run("three")]
    print(f"Four updates of one thread in InMemorySaver of LangGraph gave {answers}.")
    raise SystemExit(answers != ["1", "2", "1", "2"])


asyncio.run(main())
