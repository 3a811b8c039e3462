"""Goes on with a conversation of Pydantic AI that was deleted, in the next one that has its id."""

import asyncio

from pydantic_ai import Agent
from pydantic_ai.conversation import Conversation
from pydantic_ai.conversation_store import InMemoryConversationStore
from pydantic_ai.models.test import TestModel

store = InMemoryConversationStore()
agent = Agent(TestModel(custom_output_text="done"))


async def say(text):
    """Run the agent once as the store's documentation has it, in the conversation that this code was written for."""
    conversation = await store.load("chat-1", scope="ada") or Conversation(conversation_id="chat-1")
    await store.save(await agent.run(text, conversation=conversation), scope="ada")


async def main():
    await say("of the first conversation")
    await store.delete("chat-1", scope="ada")
    await store.save(Conversation(conversation_id="chat-1"), scope="ada")
    await say("from the first conversation")
    second = await store.load("chat-1", scope="ada")
    print(f"After a delete and a new conversation the old id wrote to the new one: {len(second.messages) > 0}.")
    raise SystemExit(not second.messages)


asyncio.run(main())
