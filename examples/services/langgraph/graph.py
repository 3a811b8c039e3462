"""A graph that keeps notes: its state is a list that is added to."""

import operator
from typing import Annotated, TypedDict

from langgraph.graph import END, START, StateGraph


class State(TypedDict):
    notes: Annotated[list[str], operator.add]


graph = StateGraph(State).add_node("note", lambda state: {}).add_edge(START, "note").add_edge("note", END).compile()
