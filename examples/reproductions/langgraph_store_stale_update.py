"""Takes back an update of one item in InMemoryStore of LangGraph when a slower one ends."""

import asyncio

from langgraph.store.memory import InMemoryStore

began, go_on = asyncio.Event(), asyncio.Event()


async def number(said):
    if said[-1] == "slow":
        began.set()
        await go_on.wait()
    return str(int(next((one for one in reversed(said) if one.isdecimal()), 0)) + 1)


store = InMemoryStore()


async def run(text):
    item = await store.aget(("ada",), "last")
    last = await number([item.value["last"] if item else "0", text])
    await store.aput(("ada",), "last", {"last": last})
    return last


async def main():
    slow = asyncio.create_task(run("slow"))
    await began.wait()
    answers = [await run("one"), await run("two"), go_on.set() or await slow, await run("three")]
    print(f"Four updates of one item in InMemoryStore of LangGraph gave {answers}.")
    raise SystemExit(answers != ["1", "2", "1", "2"])


asyncio.run(main())
