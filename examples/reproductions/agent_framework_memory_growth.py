"""Keeps the session of every user who does not come back: SessionStore of Agent Framework."""

import asyncio
import tracemalloc

from agent_framework import Agent, BaseChatClient, ChatResponse, Message, SessionStore


class Scripted(BaseChatClient):
    async def _inner_get_response(self, **_):
        return ChatResponse(messages=[Message(role="assistant", contents=["done"])])


async def main():
    store, agent = SessionStore(), Agent(Scripted())
    tracemalloc.start()
    held = []
    for number in range(1_001):
        session = agent.create_session(session_id=f"user-{number}")
        await agent.run("x" * 1_000, session=session)
        await store.set(f"user-{number}", session)
        if number % 500 == 0:
            held.append(tracemalloc.get_traced_memory()[0])
    first, second = held[1] - held[0], held[2] - held[1]
    print(f"500 users who left hold {first / 1e6:.1f} MB in SessionStore, and 500 more {second / 1e6:.1f} MB more.")
    raise SystemExit(min(first, second) < 500_000)


asyncio.run(main())
