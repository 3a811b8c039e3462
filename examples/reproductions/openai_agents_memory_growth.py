"""Loads a whole conversation for each run, however long it is: SQLiteSession of the OpenAI Agents SDK."""

import asyncio
import tracemalloc

from agents import Agent, Model, ModelResponse, RunConfig, Runner, SQLiteSession, Usage
from openai.types.responses import ResponseOutputMessage, ResponseOutputText


class Scripted(Model):
    async def get_response(self, *_, **__):
        text = ResponseOutputText(text="done", type="output_text", annotations=[])
        message = ResponseOutputMessage(id="1", content=[text], role="assistant", status="completed", type="message")
        return ModelResponse(output=[message], usage=Usage(), response_id=None)

    stream_response = get_response


async def main():
    session, agent, peaks = SQLiteSession("ada"), Agent(name="agent", model=Scripted()), []
    tracemalloc.start()
    for _ in range(201):
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        await Runner.run(agent, "x" * 10_000, session=session, run_config=RunConfig(tracing_disabled=True))
        peaks.append(tracemalloc.get_traced_memory()[1] - before)
    print(f"The 10th run of a conversation took {peaks[9] / 1e6:.1f} MB, the 200th {peaks[199] / 1e6:.1f} MB.")
    raise SystemExit(peaks[199] < 5 * peaks[9])


asyncio.run(main())
