"""Cancels a run of Google ADK whose session was deleted meanwhile: an error comes back in place of the cancellation."""

import asyncio

from google.adk.agents import LlmAgent
from google.adk.models import BaseLlm, LlmResponse
from google.adk.runners import Runner
from google.adk.sessions import InMemorySessionService
from google.genai.types import Content, Part


class Answers(BaseLlm):
    async def generate_content_async(self, llm_request, stream=False):
        yield LlmResponse(content=Content(role="model", parts=[Part(text="done")]))


async def cancelled_after(turns):
    service, message = InMemorySessionService(), Content(role="user", parts=[Part(text="hello")])
    runner = Runner(app_name="a", agent=LlmAgent(name="a", model=Answers(model="m")), session_service=service)
    session = await service.create_session(app_name="a", user_id="ada")
    run = asyncio.ensure_future(anext(runner.run_async(user_id="ada", session_id=session.id, new_message=message)))
    for turn in range(turns):
        await asyncio.sleep(0)
        if turn == 1:
            await service.delete_session(app_name="a", user_id="ada", session_id=session.id)
    was_cancelled = run.cancel()
    await asyncio.wait([run])
    return was_cancelled and not run.cancelled()


lost = [turns for turns in range(2, 30) if asyncio.run(cancelled_after(turns))]
print(f"a run that was cancelled after {lost or 'no'} turns of the loop came back with another error")
raise SystemExit(not lost)
