"""Loses one of two updates of one item in InMemoryStore of LangGraph."""

import asyncio

from langgraph.store.memory import InMemoryStore

both = asyncio.Barrier(2)


async def number(said):
    await asyncio.wait_for(both.wait(), 10)  # until two runs have got so far
    return str(int(next((one for one in reversed(said) if one.isdecimal()), 0)) + 1)


store = InMemoryStore()


async def run(text):
    item = await store.aget(("ada",), "last")
    last = await number([item.value["last"] if item else "0", text])
    await store.aput(("ada",), "last", {"last": last})
    return last


async def main():
    answers = list(await asyncio.gather(run("one"), run("two")))
    print(f"Two updates at once of one item in InMemoryStore of LangGraph gave {answers}.")
    raise SystemExit(answers != ["1", "1"])


asyncio.run(main())
