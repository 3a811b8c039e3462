"""Loses one of two updates of one SQLiteSession of the OpenAI Agents SDK."""

import asyncio

from agents import Agent, Model, ModelResponse, RunConfig, Runner, SQLiteSession, Usage
from openai.types.responses import ResponseOutputMessage, ResponseOutputText

both = asyncio.Barrier(2)


async def number(said):
    await asyncio.wait_for(both.wait(), 10)  # until two runs have got so far
    return str(int(next((one for one in reversed(said) if one.isdecimal()), 0)) + 1)


class Scripted(Model):
    async def get_response(self, system_instructions, input, *_, **__):
        said = [one["content"] if isinstance(one["content"], str) else one["content"][0]["text"] for one in input]
        text = ResponseOutputText(text=await number(said), type="output_text", annotations=[])
        message = ResponseOutputMessage(id="1", content=[text], role="assistant", status="completed", type="message")
        return ModelResponse(output=[message], usage=Usage(), response_id=None)

    stream_response = get_response


session, agent = SQLiteSession("ada"), Agent(name="agent", model=Scripted())


async def run(text):
    return (await Runner.run(agent, text, session=session, run_config=RunConfig(tracing_disabled=True))).final_output


async def main():
    answers = list(await asyncio.gather(run("one"), run("two")))
    print(f"Two updates at once of one SQLiteSession of the OpenAI Agents SDK gave {answers}.")
    raise SystemExit(answers != ["1", "1"])


asyncio.run(main())
