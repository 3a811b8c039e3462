"""Loses one of two updates of one thread in InMemorySaver of LangGraph."""

import asyncio
import operator
from typing import Annotated, TypedDict

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph

both = asyncio.Barrier(2)


async def number(said):
    await asyncio.wait_for(both.wait(), 10)  # until two runs have got so far
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
    answers = list(await asyncio.gather(run("one"), run("two")))
    print(f"Two updates at once of one thread in InMemorySaver of LangGraph gave {answers}.")
    raise SystemExit(answers != ["1", "1"])


asyncio.run(main())
