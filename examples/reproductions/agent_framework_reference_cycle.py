"""Leaves a function of each run to the cyclic collector: Agent.run of Agent Framework."""

import asyncio
import gc

from agent_framework import Agent, BaseChatClient, ChatResponse, Message


class Scripted(BaseChatClient):
    async def _inner_get_response(self, **_):
        return ChatResponse(messages=[Message(role="assistant", contents=["done"])])


async def main():
    agent = Agent(Scripted())
    await agent.run("hello")
    gc.collect()
    gc.disable()
    for _ in range(100):
        await agent.run("hello")
    found = gc.collect()
    print(f"100 runs left {found} objects that only the cyclic collector found.")
    raise SystemExit(found < 100)


asyncio.run(main())
