"""Loses one of two updates of one session in InMemoryDb of agno."""

import asyncio

from agno.agent import Agent
from agno.db.in_memory import InMemoryDb
from agno.models.base import Model
from agno.models.response import ModelResponse

both = asyncio.Barrier(2)


async def number(said):
    await asyncio.wait_for(both.wait(), 10)  # until two runs have got so far
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
    answers = list(await asyncio.gather(run("one"), run("two")))
    print(f"Two updates at once of one session in InMemoryDb of agno gave {answers}.")
    raise SystemExit(answers != ["1", "1"])


asyncio.run(main())
