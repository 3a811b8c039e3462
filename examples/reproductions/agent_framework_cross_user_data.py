"""Shows a user the conversation of another who chose the same id: session in SessionStore of Agent Framework."""

import asyncio

from agent_framework import Agent, BaseChatClient, ChatResponse, Message, SessionStore


async def number(said):
    return " ".join(said)  # a model that repeats the conversation


class Scripted(BaseChatClient):
    async def _inner_get_response(self, *, messages, **_):
        text = await number([message.text for message in messages])
        return ChatResponse(messages=[Message(role="assistant", contents=[text])])


store, agent = SessionStore(), Agent(Scripted())


async def run(user, text):  # the user has no place in the call
    session = await store.get("chat-1") or agent.create_session(session_id="chat-1")
    response = await agent.run(text, session=session)
    await store.set("chat-1", session)
    return response.text


async def main():
    await run("ada", "ada's secret")
    answer = await run("bob", "hello")
    print(f"Bob chose the id of Ada's session in SessionStore of Agent Framework: {answer!r}.")
    raise SystemExit("ada's secret" not in answer)


asyncio.run(main())
