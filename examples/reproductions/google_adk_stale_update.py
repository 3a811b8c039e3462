"""Takes back an update of one session in InMemorySessionService of Google ADK when a slower one ends."""

import asyncio

from google.adk.agents import LlmAgent
from google.adk.models import BaseLlm, LlmResponse
from google.adk.runners import InMemoryRunner
from google.genai.types import Content, Part

began, go_on = asyncio.Event(), asyncio.Event()


async def number(said):
    if said[-1] == "slow":
        began.set()
        await go_on.wait()
    return str(int(next((one for one in reversed(said) if one.isdecimal()), 0)) + 1)


class Scripted(BaseLlm):
    async def generate_content_async(self, request, stream=False):
        text = await number([part.text for content in request.contents for part in content.parts])
        yield LlmResponse(content=Content(role="model", parts=[Part(text=text)]))


runner = InMemoryRunner(LlmAgent(name="agent", model=Scripted(model="m")), app_name="app")


async def run(text):
    message = Content(role="user", parts=[Part(text=text)])
    events = runner.run_async(user_id="ada", session_id="1", new_message=message)
    return [event.content.parts[0].text async for event in events][-1]


async def main():
    await runner.session_service.create_session(app_name="app", user_id="ada", session_id="1")
    slow = asyncio.create_task(run("slow"))
    await began.wait()
    answers = [await run("one"), await run("two"), go_on.set() or await slow, await run("three")]
    print(f"Four updates of one session in InMemorySessionService of Google ADK gave {answers}.")
    raise SystemExit(answers != ["1", "2", "1", "2"])


asyncio.run(main())
