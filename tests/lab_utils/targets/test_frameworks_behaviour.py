"""The lab's findings in LangGraph and the OpenAI Agents SDK, shown again by a few lines against their own interface.

Each runs where the framework is installed: in an environment of its own, `pip install 'agent-registry-lab[langgraph]'`.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, TypedDict

import pytest


class Conversation(TypedDict, total=False):
    count: int
    note: Any


async def _counts(state: Conversation) -> Conversation:
    count = state.get("count", 0)
    await asyncio.sleep(0)
    return {"count": count + 1}


def _graph() -> Any:
    pytest.importorskip("langgraph")
    from langgraph.checkpoint.memory import InMemorySaver
    from langgraph.graph import START, StateGraph

    builder = StateGraph(Conversation)
    builder.add_node("agent", _counts)
    builder.add_edge(START, "agent")
    return builder.compile(checkpointer=InMemorySaver())


def test_two_runs_of_one_conversation_at_once_lose_an_update() -> None:
    graph, config = _graph(), {"configurable": {"thread_id": "ada"}}

    async def main() -> int:
        await asyncio.gather(*(graph.ainvoke({"note": number}, config) for number in range(2)))
        state = await graph.aget_state(config)
        count: int = state.values["count"]
        return count

    assert asyncio.run(main()) == 1


def test_the_checkpointer_copies_and_makes_a_list_of_a_tuple() -> None:
    graph, config = _graph(), {"configurable": {"thread_id": "ada"}}

    async def main() -> Any:
        note = {"list": ["mine"], "pair": (1, 2)}
        await graph.ainvoke({"note": note}, config)
        note["list"].append("spoiled")  # type: ignore[attr-defined]
        return (await graph.aget_state(config)).values["note"]

    assert asyncio.run(main()) == {"list": ["mine"], "pair": [1, 2]}


def test_the_store_keeps_the_very_object_and_hands_it_out() -> None:
    pytest.importorskip("langgraph")
    from langgraph.store.memory import InMemoryStore

    async def main() -> Any:
        store, value = InMemoryStore(), {"notes": ["mine"]}
        await store.aput(("ada",), "note", value)
        value["notes"].append("changed by whoever put it")
        (await store.aget(("ada",), "note")).value["notes"].append("changed by whoever got it")
        return (await store.aget(("ada",), "note")).value

    assert asyncio.run(main()) == {"notes": ["mine", "changed by whoever put it", "changed by whoever got it"]}


def test_two_runs_with_one_session_at_once_do_not_see_each_other(tmp_path: Path) -> None:
    pytest.importorskip("agents")
    from agents import SQLiteSession

    async def count(session: Any) -> None:
        number = len(await session.get_items())
        await asyncio.sleep(0)
        await session.add_items([{"role": "user", "content": f"number {number}"}])

    async def main() -> list[str]:
        sessions = [SQLiteSession("ada", tmp_path / "conversations.db") for _ in range(2)]
        await asyncio.gather(*map(count, sessions))
        said = [item["content"] for item in await sessions[0].get_items()]
        for session in sessions:
            session.close()
        return said

    assert asyncio.run(main()) == ["number 0", "number 0"]
