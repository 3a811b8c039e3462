"""Writes the answer of a session of Google ADK that was deleted into the next session with its id."""

import asyncio

from google.adk.agents import LlmAgent
from google.adk.models import BaseLlm, LlmResponse
from google.adk.runners import InMemoryRunner
from google.genai.types import Content, Part

KEY = {"user_id": "ada", "session_id": "1"}
begun, go_on = asyncio.Event(), asyncio.Event()


class Scripted(BaseLlm):
    async def generate_content_async(self, request, stream=False):
        begun.set()
        await go_on.wait()
        yield LlmResponse(content=Content(role="model", parts=[Part(text="old")]))


runner = InMemoryRunner(LlmAgent(name="agent", model=Scripted(model="m")), app_name="app")


async def run():
    return [one async for one in runner.run_async(**KEY, new_message=Content(role="user", parts=[Part(text="mine")]))]


async def main():
    sessions = runner.session_service
    await sessions.create_session(app_name="app", **KEY)
    running = asyncio.create_task(run())
    await begun.wait()
    await sessions.delete_session(app_name="app", **KEY)
    await sessions.create_session(app_name="app", **KEY)
    go_on.set()
    await running
    found = [one.content.parts[0].text for one in (await sessions.get_session(app_name="app", **KEY)).events]
    print(f"A session of Google ADK that is new since its predecessor was deleted holds {found}.")
    raise SystemExit(found != ["old"])


asyncio.run(main())
