"""Waits forever for a cancelled run whose model finished nevertheless: Runner.run_async of Google ADK."""

import asyncio

from google.adk.agents import LlmAgent
from google.adk.models import BaseLlm, LlmResponse
from google.adk.runners import Runner
from google.adk.sessions import InMemorySessionService
from google.genai.types import Content, Part


class Finishes(BaseLlm):
    async def generate_content_async(self, llm_request, stream=False):
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:  # it saves its work, and answers
            yield LlmResponse(content=Content(role="model", parts=[Part(text="done")]))


async def main():
    service = InMemorySessionService()
    runner = Runner(app_name="a", agent=LlmAgent(name="a", model=Finishes(model="m")), session_service=service)
    session = await service.create_session(app_name="a", user_id="ada")
    message = Content(role="user", parts=[Part(text="hello")])
    run = asyncio.ensure_future(anext(runner.run_async(user_id="ada", session_id=session.id, new_message=message)))
    await asyncio.sleep(1)
    run.cancel()
    _, waiting = await asyncio.wait([run], timeout=3)
    print(f"3 seconds after its cancellation, the run {'still waits' if waiting else 'has ended'}.")
    raise SystemExit(not waiting)


asyncio.run(asyncio.wait_for(main(), 10))
