"""Shows a user the conversation of another who chose the same id: thread in InMemorySaver of LangGraph."""

import asyncio
import operator
from typing import Annotated, TypedDict

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph


async def number(said):
    return " ".join(said)  # a model that repeats the conversation


class State(TypedDict):
    said: Annotated[list[str], operator.add]


async def answer(state: State) -> State:
    return {"said": [await number(state["said"])]}


graph = StateGraph(State).add_node("answer", answer).add_edge(START, "answer").compile(checkpointer=InMemorySaver())


async def run(user, text):  # the user has no place in the call
    state = await graph.ainvoke({"said": [text]}, {"configurable": {"thread_id": "chat-1"}})
    return state["said"][-1]


async def main():
    await run("ada", "ada's secret")
    answer = await run("bob", "hello")
    print(f"Bob chose the id of Ada's thread in InMemorySaver of LangGraph: {answer!r}.")
    raise SystemExit("ada's secret" not in answer)


asyncio.run(main())
