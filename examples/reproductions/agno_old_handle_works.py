"""Stores a session of agno again that was deleted while a run of it was under way."""

import asyncio

from agno.agent import Agent
from agno.db.in_memory import InMemoryDb
from agno.models.base import Model
from agno.models.response import ModelResponse

began, go_on = asyncio.Event(), asyncio.Event()


class Scripted(Model):
    async def ainvoke(self, messages, *_, **__):
        began.set()
        await go_on.wait()
        return ModelResponse(role="assistant", content="done")

    invoke = invoke_stream = ainvoke_stream = _parse_provider_response = _parse_provider_response_delta = ainvoke


async def main():
    db = InMemoryDb()
    agent = Agent(model=Scripted(id="m"), db=db, telemetry=False)
    run = asyncio.create_task(agent.arun("mine", user_id="ada", session_id="1"))
    await began.wait()
    deleted = await agent.adelete_session("1", user_id="ada") or db.get_session("1") is None
    go_on.set()
    await run
    print(f"The session was deleted: {deleted}. After its run agno has it again: {db.get_session('1') is not None}.")
    raise SystemExit(not deleted or db.get_session("1") is None)


asyncio.run(main())
