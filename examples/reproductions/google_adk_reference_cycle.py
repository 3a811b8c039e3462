"""Leaves objects of each run to the cyclic collector: Runner.run_async of Google ADK."""

import asyncio
import gc
import logging

from google.adk.agents import LlmAgent
from google.adk.models import BaseLlm, LlmResponse
from google.adk.runners import Runner
from google.adk.sessions import InMemorySessionService
from google.genai.types import Content, Part


class Scripted(BaseLlm):
    async def generate_content_async(self, llm_request, stream=False):
        yield LlmResponse(content=Content(role="model", parts=[Part(text="done")]))


async def main():
    logging.disable()  # a warning for each answer without token counts
    service = InMemorySessionService()
    runner = Runner(app_name="a", agent=LlmAgent(name="a", model=Scripted(model="m")), session_service=service)
    hello = Content(role="user", parts=[Part(text="hello")])
    for number in range(101):
        if number == 1:  # the first one warmed up
            gc.collect()
            gc.disable()
        await service.create_session(app_name="a", user_id="ada", session_id="one")
        _ = [event async for event in runner.run_async(user_id="ada", session_id="one", new_message=hello)]
        await service.delete_session(app_name="a", user_id="ada", session_id="one")
    found = gc.collect()
    print(f"100 runs, whose sessions were deleted, left {found} objects that only the cyclic collector found.")
    raise SystemExit(found < 100)


asyncio.run(main())
