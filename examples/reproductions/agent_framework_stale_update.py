"""Takes back an update of one session in SessionStore of Agent Framework when a slower one ends."""

import asyncio

from agent_framework import Agent, BaseChatClient, ChatResponse, Message, SessionStore

began, go_on = asyncio.Event(), asyncio.Event()


async def number(said):
    if said[-1] == "slow":
        began.set()
        await go_on.wait()
    return str(int(next((one for one in reversed(said) if one.isdecimal()), 0)) + 1)


class Scripted(BaseChatClient):
    async def _inner_get_response(self, *, messages, **_):
        text = await number([message.text for message in messages])
        return ChatResponse(messages=[Message(role="assistant", contents=[text])])


store, agent = SessionStore(), Agent(Scripted())


async def run(text):
    session = await store.get("ada") or agent.create_session(session_id="ada")
    response = await agent.run(text, session=session)
    await store.set("ada", session)
    return response.text


async def main():
    slow = asyncio.create_task(run("slow"))
    await began.wait()
    answers = [await run("one"), await run("two"), go_on.set() or await slow, await run("three")]
    print(f"Four updates of one session in SessionStore of Agent Framework gave {answers}.")
    raise SystemExit(answers != ["1", "2", "1", "2"])


asyncio.run(main())
