"""Leaves objects of each failed run to the cyclic collector: Agent.arun of agno."""

import asyncio
import gc

from agno.agent import Agent
from agno.db.in_memory import InMemoryDb
from agno.models.base import Model


class Scripted(Model):
    async def ainvoke(self, messages, *_, **__):
        raise RuntimeError("the provider is down")

    invoke = invoke_stream = ainvoke_stream = _parse_provider_response = _parse_provider_response_delta = ainvoke


async def main():
    db = InMemoryDb()
    agent = Agent(model=Scripted(id="m"), db=db, telemetry=False)
    await agent.arun("hello", user_id="ada", session_id="0")
    gc.collect()
    gc.disable()
    for number in range(1, 51):
        await agent.arun("hello", user_id="ada", session_id=str(number))
        db.delete_session(str(number))
    found = gc.collect()
    print(f"50 failed runs, whose sessions were deleted, left {found} objects that only the cyclic collector found.")
    raise SystemExit(found < 50)


asyncio.run(main())
