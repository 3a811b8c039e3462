"""Leaves a task, and the hook around a run in it, when a run is cancelled as it starts: Agent.run of Pydantic AI."""

import asyncio

from pydantic_ai import Agent
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.models.test import TestModel


class Cleaned(AbstractCapability):
    async def wrap_run(self, ctx, *, handler):
        ctx.deps.append("held")
        try:
            return await handler()
        finally:
            ctx.deps.clear()


async def main():
    agent, found = Agent(TestModel(), capabilities=[Cleaned()]), {}
    for steps in range(1, 30):
        run = asyncio.create_task(agent.run("hello", deps=(held := [])))
        for _ in range(steps):
            await asyncio.sleep(0)
        run.cancel()
        await asyncio.wait({run})
        await asyncio.sleep(0.1)
        if run.cancelled() and held:
            found[steps] = len(asyncio.all_tasks() - {asyncio.current_task()})
    print(f"Cancelled 0.1 s ago after so many steps of the loop, runs were not cleaned up; tasks left: {found}.")
    raise SystemExit(not found)


asyncio.run(main())
