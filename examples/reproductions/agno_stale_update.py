"""Takes back an update of one session in InMemoryDb of agno when a slower one ends."""

import asyncio

from agno.agent import Agent
from agno.db.in_memory import InMemoryDb
from agno.models.base import Model
from agno.models.response import ModelResponse

began, go_on = asyncio.Event(), asyncio.Event()


async def number(said):
    if said[-1] == "slow":
        began.set()
        await go_on.wait()
    return str(int(next((one for one in reversed(said) if one.isdecimal()), 0)) + 1)


class Scripted(Model):
    async def ainvoke(self, messages, *_, **__):
        said = [message.content for message in messages if message.role != "system"]
        return ModelResponse(role="assistant", content=await number(said))

    invoke = invoke_stream = ainvoke_stream = _parse_provider_response = _parse_provider_response_delta = ainvoke


agent = Agent(model=Scripted(id="m"), db=InMemoryDb(), add_history_to_context=True, telemetry=False)


async def run(text):
    return (await agent.arun(text, user_id="ada", session_id="1")).content


async def main():
    slow = asyncio.create_task(run("slow"))
    await began.wait()
    answers = [await run("one"), await run("two"), go_on.set() or await slow, await run("three")]
    print(f"Four updates of one session in InMemoryDb of agno gave {answers}.")
    raise SystemExit(answers != ["1", "2", "1", "2"])


asyncio.run(main())
