"""Loses one of two updates of one session in SessionStore of Agent Framework."""

import asyncio

from agent_framework import Agent, BaseChatClient, ChatResponse, Message, SessionStore

both = asyncio.Barrier(2)


async def number(said):
    await asyncio.wait_for(both.wait(), 10)  # until two runs have got so far
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
    answers = list(await asyncio.gather(run("one"), run("two")))
    print(f"Two updates at once of one session in SessionStore of Agent Framework gave {answers}.")
    raise SystemExit(answers != ["1", "1"])


asyncio.run(main())
