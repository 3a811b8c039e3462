"""Takes back an update of one SQLiteSession of the OpenAI Agents SDK when a slower one ends."""

import asyncio

from agents import Agent, Model, ModelResponse, RunConfig, Runner, SQLiteSession, Usage
from openai.types.responses import ResponseOutputMessage, ResponseOutputText

began, go_on = asyncio.Event(), asyncio.Event()


async def number(said):
    if said[-1] == "slow":
        began.set()
        await go_on.wait()
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
    slow = asyncio.create_task(run("slow"))
    await began.wait()
    answers = [await run("one"), await run("two"), go_on.set() or await slow, await run("three")]
    print(f"Four updates of one SQLiteSession of the OpenAI Agents SDK gave {answers}.")
    raise SystemExit(answers != ["1", "2", "1", "2"])


asyncio.run(main())
