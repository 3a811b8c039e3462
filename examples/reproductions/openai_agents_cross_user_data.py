"""Shows a user the conversation of another who chose the same id: SQLiteSession of the OpenAI Agents SDK."""

import asyncio
import tempfile

from agents import Agent, Model, ModelResponse, RunConfig, Runner, SQLiteSession, Usage
from openai.types.responses import ResponseOutputMessage, ResponseOutputText

PATH, QUIET = tempfile.mkdtemp() + "/conversations.db", RunConfig(tracing_disabled=True)


async def number(said):
    return " ".join(said)  # a model that repeats the conversation


class Scripted(Model):
    async def get_response(self, system_instructions, input, *_, **__):
        said = [one["content"] if isinstance(one["content"], str) else one["content"][0]["text"] for one in input]
        text = ResponseOutputText(text=await number(said), type="output_text", annotations=[])
        message = ResponseOutputMessage(id="1", content=[text], role="assistant", status="completed", type="message")
        return ModelResponse(output=[message], usage=Usage(), response_id=None)

    stream_response = get_response


agent = Agent(name="agent", model=Scripted())


async def run(user, text):  # the user has no place in the call
    return (await Runner.run(agent, text, session=SQLiteSession("chat-1", PATH), run_config=QUIET)).final_output


async def main():
    await run("ada", "ada's secret")
    answer = await run("bob", "hello")
    print(f"Bob chose the id of Ada's SQLiteSession of the OpenAI Agents SDK: {answer!r}.")
    raise SystemExit("ada's secret" not in answer)


asyncio.run(main())
